#!/usr/bin/env python3
"""Compares what `tickring sub --json` printed with the recording that was replayed.

usage: replay_equals.py RECORDING.gz PRINTED TRADES [QUOTES]

Every trade and quote of the recording must have been printed once, in order, with a seq without
gap, and with the prices and quantities written as in the recording.
"""
import gzip
import json
import sys


def recorded(path):
    """The events that a market topic gets, as (kind, event time in ns, fields)."""
    with gzip.open(path, "rt") as lines:
        for line in lines:
            data = json.loads(line.split(" ", 1)[1]).get("data", {"e": "of another stream"})
            if data["e"] == "trade":
                side = "sell" if data["m"] else "buy"
                yield "trade", data["T"] * 1_000_000, (data["p"], data["q"], side)
            elif data["e"] == "bookTicker":
                fields = (data["b"], data["B"], data["a"], data["A"])
                yield "quote", data["T"] * 1_000_000, fields


def printed(path):
    with open(path) as lines:
        for line in lines:
            event = json.loads(line)
            if event["kind"] == "trade":
                fields = (event["price"], event["qty"], event["side"])
            elif event["kind"] == "quote":
                fields = tuple(event[f] for f in ("bid", "bid_qty", "ask", "ask_qty"))
            else:
                sys.exit(f"{path}: unexpected {line}")
            yield event["seq"], (event["kind"], event["ts_event_ns"], fields)


def main():
    recording, output, *wanted = sys.argv[1:]
    expected = list(recorded(recording))
    seen = list(printed(output))
    counts = [sum(e[0] == kind for e in expected) for kind in ("trade", "quote")]
    print(f"{recording}: {counts[0]} trades, {counts[1]} quotes recorded; {len(seen)} events printed")
    for count, figure in zip(counts, wanted):
        if count != int(figure):
            sys.exit(f"the recording has {count} where {figure} are known")
    if [seq for seq, _ in seen] != list(range(1, len(expected) + 1)):
        sys.exit("the seqs have a gap, a duplicate, or are too few")
    for (seq, event), want in zip(seen, expected):
        if event != want:
            sys.exit(f"seq {seq}: printed {event}, recorded {want}")
    print("every trade and quote, once each, in order, to the letter")


main()
