"""Small SVG line charts, without any library."""

from html import escape
from math import floor, log10

WIDTH, HEIGHT = 720, 400
LEFT, RIGHT, TOP, BOTTOM = 78, 150, 38, 52
COLOURS = {"tickring": "#0b6e4f", "nats": "#3465a4", "redis": "#c0392b", "floor": "#777777", "floor-each": "#b9a44c"}


def chart(path, title, x_label, y_label, series, log_x=True, log_y=True, x_ticks=None):
    """Writes a chart of `series`: name -> [(x, y)]."""
    points = [p for line in series.values() for p in line if p[0] > 0 and p[1] > 0]
    if not points:
        return False
    x_axis = Axis([p[0] for p in points], log_x, LEFT, WIDTH - RIGHT, x_ticks)
    y_axis = Axis([p[1] for p in points], log_y, HEIGHT - BOTTOM, TOP)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="22" font-size="14" font-weight="bold">{escape(title)}</text>',
    ]
    for value, text in x_axis.ticks:
        x = x_axis.at(value)
        out.append(f'<line x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{HEIGHT - BOTTOM}" stroke="#e4e4e4"/>')
        out.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 17}" text-anchor="middle">{escape(text)}</text>')
    for value, text in y_axis.ticks:
        y = y_axis.at(value)
        out.append(f'<line x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}" stroke="#e4e4e4"/>')
        out.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{escape(text)}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    out.append(f'<text x="{middle}" y="{HEIGHT - 12}" text-anchor="middle">{escape(x_label)}</text>')
    centre = (TOP + HEIGHT - BOTTOM) / 2
    out.append(
        f'<text x="16" y="{centre}" text-anchor="middle" transform="rotate(-90 16 {centre})">{escape(y_label)}</text>'
    )
    for place, (name, line) in enumerate(series.items()):
        colour = COLOURS.get(name, "#000000")
        placed = [(x_axis.at(x), y_axis.at(y)) for x, y in line if x > 0 and y > 0]
        if not placed:
            continue
        road = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
        out.append(f'<polyline points="{road}" fill="none" stroke="{colour}" stroke-width="2"/>')
        if len(placed) < 12:
            out += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in placed]
        y = TOP + 14 + 18 * place
        out.append(f'<line x1="{WIDTH - RIGHT + 12}" y1="{y - 4}" x2="{WIDTH - RIGHT + 34}" y2="{y - 4}" stroke="{colour}" stroke-width="3"/>')
        out.append(f'<text x="{WIDTH - RIGHT + 40}" y="{y}">{escape(name)}</text>')
    out.append("</svg>")
    path.write_text("\n".join(out) + "\n")
    return True


class Axis:
    def __init__(self, values, log, start, end, ticks=None):
        self.log, self.start, self.end = log, start, end
        low, high = min(values), max(values)
        if log:
            self.low, self.high = low / 1.1, high * 1.1
        else:
            self.low, self.high = 0, high * 1.05
        self.ticks = [t for t in ticks if self.low <= t[0] <= self.high] if ticks else self._ticks()

    def at(self, value):
        scale = log10 if self.log else float
        span = scale(self.high) - scale(self.low) if self.low > 0 or not self.log else 1
        return self.start + (scale(value) - scale(self.low)) / span * (self.end - self.start)

    def _ticks(self):
        if self.log:
            decades = range(floor(log10(self.low)), floor(log10(self.high)) + 1)
            steps = (1, 2, 5) if len(decades) < 4 else (1,)
            values = [step * 10.0**decade for decade in decades for step in steps]
        else:
            step = 10.0 ** floor(log10(self.high / 2))
            step *= 1 if self.high / step < 10 else 2 if self.high / step < 20 else 5
            values = [step * i for i in range(int(self.high / step) + 1)]
        return [(value, short(value)) for value in values if self.low <= value <= self.high]


def short(value):
    for limit, unit in ((1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:g}{unit}"
    return f"{value:g}"


#: 1 / (1 - quantile) -> how people write it.
QUANTILES = [(1, "0"), (2, "50 %"), (10, "90 %"), (100, "99 %"), (1e3, "99.9 %"), (1e4, "99.99 %"), (1e5, "99.999 %")]
