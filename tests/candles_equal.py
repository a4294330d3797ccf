#!/usr/bin/env python3
"""Compares candles with a recomputation from the recording that was replayed.

usage: candles_equal.py RECORDING.gz SYMBOL DATABASE [PERIOD=PRINTED...]

DATABASE is the server's SQLite file, or a dump of another database: lines of tab-separated period, start_ns, open, high,
low, close, volume, trades. Every candle of 1 s, 1 min, 1 h and 1 day must be there once and equal to the last decimal,
and no other.
PRINTED is what `tickring sub candle/PERIOD/SYMBOL --json` printed. Its seqs must have no gap, and the last event of each
candle must be that candle as it ended.
"""
import gzip
import json
import sqlite3
import sys
from decimal import Decimal

SPANS = {"1s": 10**9, "1m": 60 * 10**9, "1h": 3600 * 10**9, "1d": 86400 * 10**9}


def micros(text):
    """A decimal text in millionths, exactly."""
    number = Decimal(text).scaleb(6)
    if number != int(number):
        sys.exit(f"{text} has more than six decimals")
    return int(number)


def recorded(path):
    """The recording's trades, which come in the order of their event time: time, price and quantity."""
    trades = []
    with gzip.open(path, "rt") as lines:
        for line in lines:
            if '"e":"trade"' not in line:
                continue
            data = json.loads(line.split(" ", 1)[1])["data"]
            trades.append((data["T"] * 1_000_000, micros(data["p"]), micros(data["q"])))
    return trades


def recomputed(trades, span):
    """The candles of trades, by their start."""
    candles = {}
    for at, price, qty in trades:
        start = at - at % span
        candle = candles.get(start)
        if candle is None:
            candles[start] = [price, price, price, price, qty, 1]
            continue
        candle[1] = max(candle[1], price)
        candle[2] = min(candle[2], price)
        candle[3] = price
        candle[4] += qty
        candle[5] += 1
    return candles


def stored(path, symbol):
    """The database's candles, by period and start."""
    found = {period: {} for period in SPANS}
    with open(path, "rb") as file:
        is_sqlite = file.read(15) == b"SQLite format 3"
    if is_sqlite:
        database = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        for period in SPANS:
            rows = database.execute(
                f"SELECT start_ns, open, high, low, close, volume, trades FROM candles_{period}"
                " WHERE topic_id IN (SELECT id FROM topics WHERE name = ?)",
                (f"market/{symbol}",),
            )
            for start, *candle in rows:
                found[period][start] = candle  # SQLite holds millionths
        return found
    with open(path) as lines:
        for line in lines:
            period, start, *decimals, trades = line.split()
            found[period][int(start)] = [micros(text) for text in decimals] + [int(trades)]
    return found


def compare(what, found, expected):
    if found.keys() != expected.keys():
        odd = sorted(found.keys() ^ expected.keys())
        sys.exit(f"{what}: {len(found)} candles, {len(expected)} expected; first difference at {odd[0]}")
    for start, candle in expected.items():
        if found[start] != candle:
            sys.exit(f"{what}: {start} is {found[start]}, recomputed {candle}")
    print(f"{what}: {len(found)} candles, equal to the last decimal")


def live(path):
    """How each candle ended in what was printed, by its start; and how many events there were."""
    last, seqs = {}, []
    with open(path) as lines:
        for line in lines:
            event = json.loads(line)
            if event["kind"] != "candle":
                sys.exit(f"{path}: unexpected {line}")
            seqs.append(event["seq"])
            fields = [micros(event[f]) for f in ("open", "high", "low", "close", "volume")]
            last[event["ts_start_ns"]] = fields + [event["trades"]]
    if seqs != list(range(1, len(seqs) + 1)):
        sys.exit(f"{path}: the seqs have a gap or a duplicate")
    return last, len(seqs)


def main():
    recording, symbol, database, *printed = sys.argv[1:]
    trades = recorded(recording)
    expected = {period: recomputed(trades, span) for period, span in SPANS.items()}
    found = stored(database, symbol)
    for period in SPANS:
        compare(f"{symbol} {period} stored", found[period], expected[period])
    for period, path in (argument.split("=", 1) for argument in printed):
        last, events = live(path)
        compare(f"{symbol} {period} live, {events} events", last, expected[period])


main()
