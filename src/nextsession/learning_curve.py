"""Pictures of how a network learns: the loss, the score of the validation, the learning rate, epoch by epoch.

They are drawn by hand as SVG, since a picture is drawn after every epoch and must cost next to
nothing, and take their colours from the page they stand in.
"""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

_WIDTH, _HEIGHT = 560, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 16, 14, 38


@dataclass(frozen=True)
class Line:
    """A line of a picture: a number for each epoch, None where there is none."""

    epochs: Sequence[float]
    values: Sequence[float | None]
    colour: str = "var(--s0)"
    name: str = ""

    @property
    def points(self) -> list[tuple[float, float]]:
        """The points that can be drawn."""
        pairs = zip(self.epochs, self.values, strict=True)
        return [(x, y) for x, y in pairs if y is not None and math.isfinite(y)]


def picture(lines: Sequence[Line], label: str, *, log: bool = False) -> str:
    """Return an SVG of lines over epochs.

    Args:
        lines: With a name beside the end of each that has one.
        label: What is drawn, for readers that do not see it.
        log: Draw powers of ten at equal distances?  Only for numbers above 0.
    """
    points = [point for line in lines for point in line.points]
    if not points:
        return ""
    right = _RIGHT + 7 * max(len(line.name) for line in lines)
    last = max(2.0, max(x for x, _ in points))
    ticks = _ticks(min(y for _, y in points), max(y for _, y in points), log)
    low, high = ticks[0], ticks[-1]

    def across(x: float) -> float:
        return _LEFT + (x - 1) / (last - 1) * (_WIDTH - _LEFT - right)

    def down(y: float) -> float:
        share = math.log(y / low) / math.log(high / low) if log else (y - low) / (high - low)
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)

    parts = [f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{html.escape(label)}" font-size="12">']
    for tick in ticks:
        parts.append(f'<path d="M{_LEFT} {down(tick):.1f}H{_WIDTH - right}" stroke="var(--grid)"/>')
        parts.append(
            f'<text x="{_LEFT - 8}" y="{down(tick) + 4:.1f}" text-anchor="end" fill="var(--muted)">{tick:g}</text>'
        )
    for tick in sorted({1, *(int(x) for x in _ticks(1, last, log=False) if 1 <= x <= last)}):
        parts.append(
            f'<text x="{across(tick):.1f}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle" fill="var(--muted)">'
            f"{tick}</text>"
        )
    middle = (_LEFT + _WIDTH - right) / 2
    parts.append(f'<text x="{middle:.0f}" y="{_HEIGHT - 4}" text-anchor="middle" fill="var(--muted)">epoch</text>')
    for line in lines:
        drawn = [(across(x), down(y)) for x, y in line.points]
        if not drawn:
            continue
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in drawn)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{line.colour}" stroke-width="2"/>')
        x, y = drawn[-1]
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{line.colour}"/>')
        if line.name:
            parts.append(f'<text x="{x + 8:.1f}" y="{y + 4:.1f}" fill="var(--ink)">{html.escape(line.name)}</text>')
    return "".join([*parts, "</svg>"])


def page(name: str, columns: Sequence[str], curve: Sequence[Sequence[float | None]], metric: str) -> str:
    """Return a page with the curves of one training, which loads nothing from anywhere and reloads itself.

    Args:
        name: Of the model.
        columns: Names of the columns of the curve.
        curve: A row an epoch.
        metric: Of the validation.
    """
    columns_of = {column: [row[i] for row in curve] for i, column in enumerate(columns)}
    epochs = [float(x or 0) for x in columns_of["epoch"]]
    titles = {"loss": "Loss of training", "validation": metric, "learning_rate": "Learning rate"}
    figures = []
    for column, title in titles.items():
        values = columns_of[column]
        if column == "learning_rate" and len(set(values)) < 2:
            continue
        svg = picture([Line(epochs, values)], f"{title} by epoch")
        if svg:
            figures.append(f"<figure><h2>{html.escape(title)}</h2>{svg}</figure>")
    return _PAGE.format(name=html.escape(name), said=_said(columns_of, metric), figures="\n".join(figures))


def _said(columns: dict[str, list[float | None]], metric: str) -> str:
    """Say in a sentence where training stands."""
    done = len(columns["epoch"])
    if not done:
        return "No epoch is finished yet."
    text = f"{done} {'epoch' if done == 1 else 'epochs'}, the last with a loss of {columns['loss'][-1]:.4f}"
    scores = [(score, epoch) for score, epoch in zip(columns["validation"], columns["epoch"], strict=True) if score]
    if scores:
        best, epoch = max(scores, key=lambda pair: pair[0] or 0)
        text += f"; best {html.escape(metric)} {best:.4f} after epoch {epoch:g}"
    seconds = sum(x or 0 for x in columns["seconds"])
    positives = sum(x or 0 for x in columns["positives"])
    return f"{text}. {seconds:,.0f} s of training, {positives / max(seconds, 1e-9):,.0f} positions a second."


def _ticks(low: float, high: float, log: bool) -> list[float]:
    """Return round numbers from at most `low` to at least `high`, three to seven of them."""
    if log:
        first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
        return [10.0**x for x in range(first, max(last, first + 1) + 1)]
    if high - low < 1e-9 * max(abs(high), abs(low), 1e-9):
        low, high = low - abs(low) / 10 - 1e-9, high + abs(high) / 10 + 1e-9
    size = 10.0 ** math.floor(math.log10((high - low) / 2))
    unit = next(size * x for x in (1, 2, 5, 10) if (high - low) / (size * x) <= 5)
    first, last = math.floor(low / unit + 1e-9), math.ceil(high / unit - 1e-9)
    return [float(f"{x * unit:.12g}") for x in range(first, last + 1)]


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="refresh" content="10">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="color-scheme" content="light dark">
<title>{name}: learning curve</title>
<style>
:root {{ --ink: #1b1d22; --muted: #667; --grid: #e3e4e8; --paper: #fff; --s0: #2563c9; }}
@media (prefers-color-scheme: dark) {{
  :root {{ --ink: #eceef2; --muted: #a3a9b5; --grid: #343841; --paper: #16181d; --s0: #7aa8f5; }}
}}
body {{ font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 2rem auto;
  max-width: 1200px; padding: 0 1rem; }}
h1 {{ font-size: 1.4rem; margin: 0; }}
h2 {{ font-size: 1rem; margin: 0 0 .3rem; }}
p {{ color: var(--muted); margin: .2rem 0 1.2rem; }}
main {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr)); gap: 1.5rem; }}
figure {{ margin: 0; }}
svg {{ width: 100%; height: auto; font-family: inherit; }}
</style>
</head>
<body>
<h1>{name}</h1>
<p>{said}</p>
<main>
{figures}
</main>
</body>
</html>
"""
