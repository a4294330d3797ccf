"""The loads that are compared, and the bars that tickring is held to."""

from dataclasses import dataclass, field, replace  # noqa: F401


@dataclass(frozen=True)
class Bar:
    """tickring's `metric` by that of each peer, at most."""

    metric: str
    limits: dict


@dataclass(frozen=True)
class Row:
    """One load. `load` is the generator's command line; `{s}` is the length of a run in seconds."""

    key: str
    title: str
    load: str
    targets: tuple = ("tickring", "nats", "redis", "floor", "floor-each")
    bars: tuple = ()
    server: dict = field(default_factory=dict)
    #: Metrics that its table shows.
    shows: tuple = ("cpu_ns", "p50", "p99")
    #: Free: nothing is pinned, and the scheduler places everybody.
    placement: str = "pinned"
    #: For curves and not for the table: one run each.
    curve: str = ""


PEERS = ("tickring", "nats", "redis")
ALL = (*PEERS, "floor")


def fanout(connections, rate, more=""):
    return f"fanout --connections {connections} --rate {rate} --payload 64 --seconds {{s}} {more}".strip()


def cpu(nats, redis, floor=None):
    limits = {"nats": nats, "redis": redis} | ({"floor": floor} if floor else {})
    return Bar("cpu_ns", limits), Bar("p99", {"nats": 0.5, "redis": 0.5})


ROWS = [
    Row("1000x300", "1,000 subscribers x 300/s", fanout(1000, 300), bars=cpu(0.75, 0.95, 1.05)),
    Row("10000x15", "10,000 x 15/s", fanout(10000, 15), ALL, bars=cpu(0.60, 0.85, 1.05)),
    Row("10000x30", "10,000 x 30/s", fanout(10000, 30), ALL, bars=cpu(0.60, 0.85, 1.05)),
    Row("100x10000", "100 x 10,000/s", fanout(100, 10000), ALL, bars=cpu(0.40, 0.50, 0.70)),
    Row("10x50000", "10 x 50,000/s", fanout(10, 50000), bars=cpu(0.40, 0.50, 0.60)),
    Row("1000x1000", "1,000 x 1,000/s", fanout(1000, 1000), ALL, bars=cpu(0.40, 0.50, 0.60)),
    Row(
        "100topics",
        "10 x 50,000/s over 100 topics, 4 publishers",
        fanout(10, 50000, "--topics 100 --subscribe-each 100 --publishers 4"),
        PEERS,
        bars=cpu(0.40, 0.50),
    ),
    Row(
        "pingpong",
        "pingpong, 1 client",
        "pingpong --seconds {s}",
        ALL,
        bars=(
            Bar("p50", {"nats": 0.80, "redis": 0.80, "floor": 1.05}),
            Bar("p99", {"nats": 0.80, "redis": 0.80, "floor": 1.05}),
        ),
        shows=("p50", "p99", "cpu_ns"),
    ),
    Row(
        "busypoll",
        "pingpong, busy-poll on server and client",
        "pingpong --busy-poll --seconds {s}",
        ALL,
        bars=(Bar("p50", {"nats": 0.40, "redis": 0.40}),),
        # The peers have no such mode: theirs is the default, and the client's polling is the same for all.
        server={"tickring": ("--busy-poll",), "floor": ("--busy-poll",)},
        shows=("p50", "p99", "cpu_ns"),
    ),
    Row(
        "connect",
        "19,000 connections at once, to SUBSCRIBED",
        "connect --connections 19000 --hold 1",
        ALL,
        bars=(
            Bar("rss_per_connection", {"nats": 0.10, "redis": 0.20}),
            Bar("seconds", {"nats": 0.40, "redis": 0.70}),
        ),
        shows=("rss_per_connection", "seconds"),
    ),
]

#: Two cores against one, with all the processors busy: tickring alone, its cores as variants.
SATURATION = [
    Row(
        f"cores{cores}",
        f"all processors busy, {cores} core(s)",
        fanout(2000, 3000),
        ("tickring",),
        server={"tickring": ("--cores", str(cores))},
        shows=("delivered_per_s", "cpu_ns", "generator_cpus", "server_cpus"),
        placement="free",
    )
    for cores in (1, 2)
]

CURVES = [
    Row(f"rate{rate}", f"100 x {rate:,}/s", fanout(100, rate), ALL, curve="rate")
    for rate in (500, 2000, 5000, 20000)
] + [
    Row(f"idle{count}", f"{count:,} idle connections", f"connect --connections {count} --hold 0.5", ALL,
        shows=("rss_per_connection",), curve="memory")
    for count in (1000, 5000, 10000)
]

EVERY = {row.key: row for row in ROWS + SATURATION + CURVES}
