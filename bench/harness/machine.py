"""How much of its processors a shared machine withholds while all of them are busy: what no server can help."""

import multiprocessing
import os
import time

#: A pause of a spinning process that is longer than this was not its own.
GAP_NS = 200_000


def spin(processor, seconds, result):
    """Looks at the clock on one processor, without pause; reports the gaps in what it saw."""
    os.sched_setaffinity(0, {processor})
    gaps, last = [], time.perf_counter_ns()
    end = last + int(seconds * 1e9)
    while last < end:
        now = time.perf_counter_ns()
        if now - last > GAP_NS:
            gaps.append(now - last)
        last = now
    result.put(gaps)


def withheld(processors, seconds=3.0):
    """(share of the time that a processor was away, longest gap in ms), over all processors spinning at once."""
    result = multiprocessing.SimpleQueue()
    spinners = [multiprocessing.Process(target=spin, args=(p, seconds, result)) for p in processors]
    for spinner in spinners:
        spinner.start()
    gaps = [gap for _ in spinners for gap in result.get()]
    for spinner in spinners:
        spinner.join()
    return sum(gaps) / 1e9 / seconds / len(processors), max(gaps, default=0) / 1e6
