"""Looks into the projection's tables past tickring, and recomputes them from `ticks` alone.

    python3 tests/tables.py URL|FILE [SUMMARY.json]

checks the tables of a MySQL or MariaDB server (mysql://...) or of a SQLite file; with the summary of
`tickring-feed ... --json` also that every tick of it is stored. Prints each difference; exit code 1 if
there is any. MySQL's side goes through the program `mariadb`.
"""

import json
import sqlite3
import subprocess
import sys
import time
from urllib.parse import unquote, urlsplit

PERIODS = {"candles_1s": 10**9, "candles_1m": 60 * 10**9, "candles_1h": 3600 * 10**9, "candles_1d": 86400 * 10**9}
NAMES = (
    "ACME BOLT CRUX DYNE ECHO FLUX GALE HALO IRIS JADE KITE LYNX MICA NOVA ONYX PINE QUAY RUNE SAGE TIDE UMBRA VOLT WREN "
    "XENO YARN ZINC"
).split()


def symbols(count):
    """The instruments of `tickring-feed synth`, busiest first."""
    return [NAMES[n % 26] + (str(n // 26) if n >= 26 else "") for n in range(count)]


def connect(target):
    return MySql(target) if target.startswith("mysql://") else Sqlite(target)


class Tables:
    """What both databases share. `ask` gives rows of text."""

    def count(self, table):
        return int(self.ask(f"SELECT COUNT(*) FROM {table}")[0][0])

    def per_topic(self):
        """Stored ticks by topic name."""
        rows = self.ask("SELECT t.name, COUNT(*) FROM ticks k JOIN topics t ON t.id=k.topic_id GROUP BY t.name")
        return {name: int(count) for name, count in rows}

    def lag(self, topics):
        """Seconds since the node took in the newest stored tick of the topic that is furthest behind."""
        names = ",".join(f"'{name}'" for name in topics)
        rows = self.ask(f"SELECT MIN(node_ns), COUNT(*) FROM latest JOIN topics ON id=topic_id WHERE name IN ({names})")
        (oldest, found) = rows[0]
        return time.time() - int(oldest) / 1e9 if int(found) else 0.0


class MySql(Tables):
    def __init__(self, url):
        u = urlsplit(url)
        self.process = subprocess.Popen(
            ["mariadb", "--no-defaults", "--protocol=tcp", f"--host={u.hostname}", f"--port={u.port}", f"--user={u.username}",
             f"--database={u.path[1:]}", "--batch", "--skip-column-names", "--unbuffered", "--raw", "--ssl"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={"MYSQL_PWD": unquote(u.password or ""), "PATH": "/usr/bin:/bin"})
        self.ask("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED", rows=False)

    def ask(self, sql, rows=True):
        mark = "-- end of rows --"
        self.process.stdin.write(f"{sql};\nSELECT '{mark}';\n")
        self.process.stdin.flush()
        out = []
        while (line := self.process.stdout.readline().rstrip("\n")) != mark:
            if not line and self.process.poll() is not None:
                raise RuntimeError(f"mariadb ended at: {sql[:200]}")
            out.append(line.split("\t"))
        return out

    def version(self):
        return self.ask("SELECT VERSION()")[0][0]

    @staticmethod
    def digits(number):
        return f"LPAD({number},20,'0')"

    @staticmethod
    def concat(*parts):
        return f"CONCAT({','.join(parts)})"

    number = "DECIMAL(19,6)"
    same = "<=>"
    floor = "DIV"


class Sqlite(Tables):
    def __init__(self, file):
        self.connection = sqlite3.connect(file, timeout=30)

    def ask(self, sql):
        return [["NULL" if v is None else str(v) for v in row] for row in self.connection.execute(sql)]

    def version(self):
        return f"SQLite {sqlite3.sqlite_version}"

    @staticmethod
    def digits(number):
        return f"printf('%020d',{number})"

    @staticmethod
    def concat(*parts):
        return "||".join(f"CAST({part} AS TEXT)" for part in parts)

    number = "INTEGER"
    same = "IS"
    floor = "/"


def candles(db, period):
    """SQL that computes a candle table from the trades in `ticks`."""
    # Open and close are the prices of the smallest and the largest (event time, seq): found as text
    # of a fixed width in front of the price, so that one pass over the trades is enough.
    key = db.concat(db.digits("event_ns"), db.digits("seq"), "price")
    price = lambda which: f"CAST(SUBSTR({which}({key}),41) AS {db.number})"  # noqa: E731
    start = f"(event_ns {db.floor} {period}) * {period}"
    return (
        f"SELECT topic_id, {start} AS start_ns, {price('MIN')} AS open, MAX(price) AS high, MIN(price) AS low, "
        f"{price('MAX')} AS close, SUM(qty) AS volume, COUNT(*) AS trades, MIN(event_ns) AS open_ns, MAX(event_ns) AS close_ns, "
        f"MIN(seq) AS first_seq, MAX(seq) AS last_seq FROM ticks WHERE price IS NOT NULL GROUP BY topic_id, {start}"
    )


def latest(db):
    """SQL that computes `latest` from `ticks`: largest seq, newest trade, newest quote."""
    newest = "SELECT topic_id, MAX(seq) AS seq FROM ticks GROUP BY topic_id"
    last = lambda what: (  # noqa: E731
        f"SELECT topic_id, MAX({db.concat(db.digits('event_ns'), db.digits('seq'))}) AS at FROM ticks "
        f"WHERE {what} IS NOT NULL GROUP BY topic_id")
    at = db.concat(db.digits("k.event_ns"), db.digits("k.seq"))
    of = lambda what: f"(SELECT k.* FROM ticks k JOIN ({last(what)}) m ON m.topic_id=k.topic_id AND m.at={at})"  # noqa: E731
    return (
        "SELECT n.topic_id, n.seq, t.event_ns AS trade_ns, t.price, t.qty, t.side, q.event_ns AS quote_ns, q.bid, q.bid_qty, q.ask, q.ask_qty "
        f"FROM ({newest}) n LEFT JOIN {of('price')} t ON t.topic_id=n.topic_id LEFT JOIN {of('bid')} q ON q.topic_id=n.topic_id"
    )


CANDLE = "open high low close volume trades open_ns close_ns first_seq last_seq".split()
LATEST = "seq trade_ns price qty side quote_ns bid bid_qty ask ask_qty".split()


def compare(db, table, recomputed, key, columns):
    """Differences between a table and what was computed, as text."""
    db.ask(f"DROP TABLE IF EXISTS {table}_again", **({"rows": False} if isinstance(db, MySql) else {}))
    kind = "TEMPORARY" if isinstance(db, MySql) else "TEMP"
    db.ask(f"CREATE {kind} TABLE {table}_again AS {recomputed}")
    there, again = db.count(table), db.count(f"{table}_again")
    equal = " AND ".join(f"a.{c} {db.same} b.{c}" for c in key + columns)
    same = int(db.ask(f"SELECT COUNT(*) FROM {table} a JOIN {table}_again b ON {equal}")[0][0])
    db.ask(f"DROP TABLE {table}_again")
    if there == again == same:
        return []
    return [f"{table}: {there} rows, {again} recomputed, {same} equal"]


def check(db, published=None):
    """Every difference between the tables and what `ticks` (and the publisher's summary) say."""
    faults = []
    gaps = db.ask("SELECT t.name, COUNT(*), COUNT(DISTINCT seq), MIN(seq), MAX(seq) FROM ticks k JOIN topics t ON t.id=k.topic_id "
                  "GROUP BY t.name HAVING COUNT(*)<>MAX(seq) OR MIN(seq)<>1 OR COUNT(DISTINCT seq)<>COUNT(*)")
    faults += [f"{name}: {n} ticks, {distinct} seqs from {low} to {high}" for name, n, distinct, low, high in gaps]
    if published is not None:
        stored = db.ask("SELECT t.name, COUNT(price), COUNT(bid) FROM ticks k JOIN topics t ON t.id=k.topic_id GROUP BY t.name")
        stored = {name.removeprefix("market/"): (int(trades), int(quotes)) for name, trades, quotes in stored}
        for name, counts in published.items():
            if stored.pop(name, (0, 0)) != (counts["trades"], counts["quotes"]):
                faults.append(f"{name}: published {counts}, and not all of it is stored")
        # Instruments `lg-...` are of tickring-loadgen, which counts by itself.
        faults += [f"{name}: stored {counts}, never published" for name, counts in stored.items() if not name.startswith("lg-")]
    for table, period in PERIODS.items():
        faults += compare(db, table, candles(db, period), ["topic_id", "start_ns"], CANDLE)
    faults += compare(db, "latest", latest(db), ["topic_id"], LATEST)
    return faults


def main():
    if len(sys.argv) not in (2, 3):
        print(__doc__, file=sys.stderr)
        return 2
    published = json.load(open(sys.argv[2]))["symbols"] if len(sys.argv) == 3 else None
    db = connect(sys.argv[1])
    faults = check(db, published)
    for fault in faults:
        print(fault)
    print(f"{db.version()}: {db.count('ticks')} ticks, " + (f"{len(faults)} differences" if faults else "all tables equal their recomputation"))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
