"""One run of one load against one target, and many of them in turns, with progress."""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from .targets import BIN, TARGETS, Broken, Server, processors


def one(row, target, seconds, extra=(), environment=None, label=None):
    """Starts the target, loads it and stops it. Returns what was found, as plain data."""
    cpus = processors()
    pinned = row.placement == "pinned" and len(cpus) > 1
    # A server has the first processor to itself and the generator has the others, so that a result does not depend
    # on where the scheduler happened to put whom.
    server_cpus, generator_cpus = ({cpus[0]}, set(cpus[1:])) if pinned else (None, None)
    arguments = [*row.server.get(target, ()), *extra]
    with Server(target, arguments, environment, server_cpus) as server, tempfile.TemporaryDirectory() as work:
        histogram = Path(work) / "latency.hgrm"
        command = [
            str(BIN / "tickring-loadgen"),
            *row.load.format(s=seconds).split(),
            *("--target", TARGETS[target][0], "--connect", server.address, "--server-pid", str(server.process.pid)),
            *("--json", "-", "--hdr", str(histogram), "--drain-timeout", "2"),
        ]
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=150,
            preexec_fn=(lambda: os.sched_setaffinity(0, generator_cpus)) if generator_cpus else None,
        )
        after, took = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic() - start
        if done.returncode not in (0, 1):
            raise Broken(f"{target}: {done.stderr.strip().splitlines()[-1:]}")
        report = json.loads(done.stdout)
        generator = (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime)
        return {
            "row": row.key,
            "target": label or target,
            **figures(report, generator),
            "percentiles": percentiles(histogram),
            "command": " ".join(command[:1] + command[1 : command.index("--connect")]).replace(str(BIN) + "/", ""),
            "wall_s": round(took, 2),
        }


def figures(report, generator_cpu_s):
    server, latency = report["server"], report["latency_us"]
    seconds = report["seconds"] or 1.0
    faults = {
        key: report[key]
        for key in ("lost", "duplicated", "out_of_order", "disconnected", "stuck", "gaps", "gaps_delayed", "refused")
        if report[key]
    }
    return {
        "cpu_ns": server["cpu_ns_per_delivery"],
        "p50": latency["p50"],
        "p90": latency["p90"],
        "p99": latency["p99"],
        "p999": latency["p999"],
        "rss_per_connection": server["rss_bytes_per_connection"],
        "seconds": report["seconds"],
        "delivered": report["delivered"],
        "delivered_per_s": report["delivered_per_s"],
        "server_cpus": server["cpu_ns"] / 1e9 / seconds,
        "generator_cpus": generator_cpu_s / seconds,
        "schedule_lag_us": report["schedule_lag_us"],
        "faults": faults,
        "errors": report["errors"][:3],
    }


def percentiles(path, points=40):
    """A histogram's curve, thinned: pairs of (1 / (1 - quantile), microseconds)."""
    curve = []
    if path.exists():
        for line in path.read_text().splitlines():
            parts = line.split()
            try:
                value, _, _, inverse = map(float, parts)
            except ValueError:
                continue
            curve.append((round(inverse, 3), value))
    step = max(1, len(curve) // points)
    return curve[::step] + curve[-1:] if curve else []


class Book:
    """All results so far, kept in a file after each run: what was measured is not lost, and `--resume` goes on."""

    def __init__(self, path, settings, resume):
        self.path = Path(path)
        self.data = {"settings": settings, "runs": []}
        if resume and self.path.exists():
            self.data = json.loads(self.path.read_text())
            self.data["settings"] = settings
        self.path.parent.mkdir(parents=True, exist_ok=True)

    def has(self, row, target, repeat):
        return any((r["row"], r["target"], r["repeat"]) == (row, target, repeat) for r in self.data["runs"])

    def add(self, run, repeat):
        self.data["runs"].append({**run, "repeat": repeat})
        self.save()

    def save(self):
        # Whole or not at all.
        draft = self.path.with_suffix(".draft")
        rest = json.dumps({key: value for key, value in self.data.items() if key != "runs"}, indent=1)
        # A run to a line: readable, and short where it changes.
        runs = ",\n".join(json.dumps(run) for run in self.data["runs"])
        draft.write_text(f'{rest[:-2]},\n "runs": [\n{runs}\n ]\n}}\n')
        draft.replace(self.path)

    def series(self, row, target, metric):
        found = (r.get(metric) for r in self.data["runs"] if (r["row"], r["target"]) == (row, target))
        return [value for value in found if value is not None]


class Progress:
    """Which run of how many, what it gave, and how long the rest takes."""

    def __init__(self, total):
        self.total, self.done, self.start = total, 0, time.monotonic()

    def show(self, row, target, text):
        self.done += 1
        left = (time.monotonic() - self.start) / self.done * (self.total - self.done)
        print(f"[{self.done:3}/{self.total}] {row:12} {target:14} {text:64} {left / 60:4.1f} min left", flush=True)


def describe(run):
    words = []
    if run["cpu_ns"]:
        words.append(f"{run['cpu_ns']:7.0f} ns/delivery")
    words.append(f"p50 {run['p50']:.0f} p99 {run['p99']:.0f} us")
    if run["rss_per_connection"] and not run["cpu_ns"]:
        words.append(f"{run['rss_per_connection']:.0f} B/conn {run['seconds']:.2f} s")
    if run["faults"]:
        words.append(f"FAULTS {run['faults']}")
    return "  ".join(words)


def all_in_turns(jobs, book):
    """Does the jobs: (row, target, repeat, seconds, keywords of `one`), in the order given."""
    left = [job for job in jobs if not book.has(job[0].key, job[4].get("label") or job[1], job[2])]
    progress = Progress(len(left))
    for row, target, repeat, seconds, more in left:
        label = more.get("label") or target
        try:
            run = one(row, target, seconds, **more)
        except (Broken, subprocess.TimeoutExpired, json.JSONDecodeError) as error:
            print(f"bench: {row.key} {label}: {error}", file=sys.stderr)
            book.data.setdefault("broken", []).append({"row": row.key, "target": label, "why": str(error)})
            book.save()
            progress.show(row.key, label, "could not be done")
            continue
        book.add(run, repeat)
        progress.show(row.key, label, describe(run))
