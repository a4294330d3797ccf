"""`bench/REPORT.md` and its plots, from the results and from what people wrote in `bench/notes.md`."""

from statistics import median

from .plots import QUANTILES, chart
from .rows import CURVES, EVERY, ROWS, SATURATION
from .targets import TARGETS

UNITS = {
    "cpu_ns": ("server CPU, ns/delivery", 1, 0),
    "p50": ("p50, us", 1, 0),
    "p99": ("p99, us", 1, 0),
    "rss_per_connection": ("server memory, bytes/connection", 1, 0),
    "seconds": ("seconds", 1, 2),
    "delivered_per_s": ("delivered/s", 1, 0),
    "generator_cpus": ("processors used by the generator", 1, 2),
    "server_cpus": ("processors used by the server", 1, 2),
}


def ratio(book, row, target, metric):
    """Median of tickring's by median of the target's; None where either is missing."""
    ours, theirs = book.series(row, "tickring", metric), book.series(row, target, metric)
    if not ours or not theirs or not median(theirs):
        return None
    return median(ours) / median(theirs)


def cell(values, metric):
    if not values:
        return "–"
    _, scale, digits = UNITS[metric]
    shown = [f"{value * scale:,.{digits}f}" for value in (median(values), min(values), max(values))]
    return shown[0] if len(values) == 1 else f"{shown[0]} ({shown[1]}–{shown[2]})"


def bars(book):
    """Every bar: (row, metric, target, limit, ratio)."""
    for row in ROWS:
        for bar in row.bars:
            for target, limit in bar.limits.items():
                yield row, bar.metric, target, limit, ratio(book, row.key, target, bar.metric)


def bar_table(book):
    lines = ["| load | figure | vs nats | vs redis | vs floor |", "|---|---|---|---|---|"]
    met = missed = 0
    for row in ROWS:
        for bar in row.bars:
            cells = []
            for target in ("nats", "redis", "floor"):
                limit = bar.limits.get(target)
                value = ratio(book, row.key, target, bar.metric)
                if limit is None:
                    cells.append("" if value is None else f"({value:.2f})")
                elif value is None:
                    cells.append(f"not measured (≤ {limit:.2f})")
                else:
                    good = value <= limit
                    met, missed = met + good, missed + (not good)
                    # A third digit where two would hide which side of the bar it is.
                    shown = f"{value:.3f}" if round(value, 2) == limit else f"{value:.2f}"
                    cells.append(f"{shown} ≤ {limit:.2f}" if good else f"**{shown}** > {limit:.2f}")
            lines.append(f"| {row.title} | {UNITS[bar.metric][0]} | " + " | ".join(cells) + " |")
    return lines, met, missed


def row_table(book, row, targets):
    shows = row.shows
    lines = ["| target | " + " | ".join(UNITS[m][0] for m in shows) + " | faults |", "|---" * (len(shows) + 2) + "|"]
    for target in targets:
        runs = [r for r in book.data["runs"] if (r["row"], r["target"]) == (row.key, target)]
        if not runs:
            continue
        cells = [cell(book.series(row.key, target, m), m) for m in shows]
        faults = {key: count for run in runs for key, count in run["faults"].items()}
        lines.append(f"| {target} | " + " | ".join(cells) + f" | {faults or 'none'} |")
    return lines


def plots(book, folder):
    """Writes the plots; returns their names."""
    folder.mkdir(parents=True, exist_ok=True)
    names = []

    def plot(name, *arguments, **more):
        if chart(folder / f"{name}.svg", *arguments, **more):
            names.append(name)

    for row in ROWS:
        curves = {}
        for target in row.targets:
            runs = [r for r in book.data["runs"] if (r["row"], r["target"]) == (row.key, target) and r["percentiles"]]
            if runs:
                # The run with the median p99 stands for its target.
                runs.sort(key=lambda r: r["p99"])
                curves[target] = runs[(len(runs) - 1) // 2]["percentiles"]
        if row.key != "connect":
            title = f"Latency: {row.title}"
            plot(f"latency-{row.key}", title, "percentile", "microseconds", curves, x_ticks=QUANTILES)
    rate, memory = {}, {}
    points = [(int(r.key[4:]), r.key) for r in CURVES if r.curve == "rate"] + [(10000, "100x10000")]
    idle = [(int(r.key[4:]), r.key) for r in CURVES if r.curve == "memory"] + [(19000, "connect")]
    for target in ("tickring", "nats", "redis", "floor"):
        for store, line, metric in ((rate, points, "cpu_ns"), (memory, idle, "rss_per_connection")):
            found = [(x, book.series(key, target, metric)) for x, key in sorted(line)]
            store[target] = [(x, median(values) * (x if store is memory else 1)) for x, values in found if values]
    plot("cpu-by-rate", "Server CPU per delivery, 100 subscribers", "messages/s", "nanoseconds", rate)
    memory = {t: [(x, y / 2**20) for x, y in line] for t, line in memory.items()}
    plot("memory-by-connections", "Server memory, idle connections", "connections", "MiB grown", memory)
    return names


def saturation_table(book):
    lines = ["| cores | delivered/s | server CPU, ns/delivery | server's processors | generator's processors | delivered/s by server processor |", "|---|---|---|---|---|---|"]
    for row in SATURATION:
        values = {m: book.series(row.key, "tickring", m) for m in row.shows}
        if not values["delivered_per_s"]:
            continue
        per = [d / c for d, c in zip(values["delivered_per_s"], values["server_cpus"])]
        cells = [cell(values[m], m) for m in ("delivered_per_s", "cpu_ns", "server_cpus", "generator_cpus")]
        lines.append(f"| {row.key[-1]} | " + " | ".join(cells) + f" | {median(per):,.0f} |")
    return lines


def withheld(about):
    """What the machine itself takes away, if that was measured."""
    if "withheld" not in about:
        return []
    share, longest = about["withheld"]
    return [
        f"With nothing but a spinning process on each processor, a processor was away for {share:.1%} of the time, in pieces of up to",
        f"{longest:.1f} ms (measured before the first run): latencies beyond that quantile are the machine's and not a server's.",
        "",
    ]


def write(book, path, notes):
    data = book.data
    about, settings = data["about"], data["settings"]
    lines, met, missed = bar_table(book)
    out = [
        "# Side by side",
        "",
        "Written by `bench/compare`; do not edit: what people have to say about it is in `bench/notes.md`, and stands at the end.",
        f"`bench/compare --report` writes it anew from `{settings['results']}`, without measuring.",
        "",
        f"{met} bars met, {missed} not met. Ratios are tickring's median by the target's, so less is better; **bold** is beyond the bar.",
        "",
        *lines,
        "",
        "Where a ratio stands in brackets there is no bar.",
        "",
        "## How it was measured",
        f"{about['date']}, commit {about['commit']}; Linux {about['kernel']}, {about['processors']} processors ({about['processor']}"
        + (", virtual" if about["hypervisor"] == "yes" else "")
        + f"), {about['memory']}; {about['rustc']}; {about['nats']}; {about['redis']}.",
        "",
        f"`{settings['command']}`: each run starts a server of its own and lasts {settings['seconds']} s; {settings['repeats']} runs of each, interleaved",
        "(A B C D A B C D). One open-loop generator for all (`tickring-loadgen`): latency counts from the intended send, every event of every",
        "connection is checked. Server CPU is user + system time of its process over the load, by events delivered. The server is pinned to the",
        "first processor, the generator to the rest; nothing is pinned where the table says so. Values are medians (least–most).",
        "",
        *withheld(about),
        "",
        "| target | what it is |",
        "|---|---|",
        *[f"| {name} | {what} |" for name, (_, what) in TARGETS.items()],
        "",
        "## The loads",
    ]
    for row in ROWS:
        out += ["", f"### {row.title}", f"`tickring-loadgen {row.load.format(s=settings['seconds'])}`", ""]
        if row.server:
            out += ["Servers' flags: " + ", ".join(f"{t} `{' '.join(f)}`" for t, f in row.server.items()) + ".", ""]
        out += row_table(book, row, row.targets)
        if row.key != "connect":
            out += ["", f"![latency](plots/latency-{row.key}.svg)"]
    out += ["", "## By rate and by connections", "", "![CPU](plots/cpu-by-rate.svg)", "", "![memory](plots/memory-by-connections.svg)"]
    if any(book.series(row.key, "tickring", "cpu_ns") for row in SATURATION):
        load = SATURATION[0].load.format(s=settings["seconds"])
        out += ["", "## Two cores against one", f"`tickring-loadgen {load}`, nothing pinned but tickring's own threads.", "", *saturation_table(book)]
    if data.get("broken"):
        out += ["", "## Runs that could not be done", ""] + [f"- {b['row']}, {b['target']}: {b['why']}" for b in data["broken"]]
    if notes.exists():
        out += ["", notes.read_text().strip()]
    path.write_text("\n".join(out) + "\n")
    plots(book, path.parent / "plots")
    return met, missed


def ablation_rows():
    return {key: EVERY[key] for key in ("1000x300", "10000x15", "100x10000", "10x50000", "1000x1000", "pingpong")}
