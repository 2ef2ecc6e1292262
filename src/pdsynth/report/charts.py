"""Charts as inline SVG. Their colours come from the style sheet of the page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape

WIDTH, LEFT, RIGHT, ROW, TOP, BOTTOM = 760, 176, 60, 25, 8, 44


@dataclass(frozen=True)
class Bar:
    """The score of one method in a chart, with the 95 % interval; all in dB.

    shuffled: its score if each source is that of another participant. group: "tested", "baseline", "control" or
    "ceiling", which gives the colour. low, high and shuffled are None if they are not known.
    """

    name: str
    group: str
    value: float
    low: float | None
    high: float | None
    shuffled: float | None


def forest(bars: list[Bar], unit: str) -> Markup:
    """A chart (SVG) with one row per method: a dot for the score, a line for its interval, and a ring.

    The ring is the score with the sources of other participants; a line joins it to the dot. unit: the label of the
    horizontal axis. Raises ValueError if there is no bar.
    """
    numbers = [v for b in bars for v in (b.value, b.low, b.high, b.shuffled) if v is not None]
    ticks = _ticks(min(numbers), max(numbers))
    span = ticks[-1] - ticks[0]

    def x(value: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (value - ticks[0]) / span

    height = TOP + ROW * len(bars) + BOTTOM
    floor = TOP + ROW * len(bars)
    parts = [
        f'<svg class="forest" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(unit)} of each method">'
    ]
    parts += _scale(ticks, x, floor)
    middle = x((ticks[0] + ticks[-1]) / 2)
    parts.append(f'<text class="tick" x="{middle:.1f}" y="{floor + 36}" text-anchor="middle">{escape(unit)}</text>')
    for i, bar in enumerate(bars):
        y = TOP + ROW * (i + 0.5)
        parts.append(f'<g class="{escape(bar.group)}"><title>{escape(_spoken(bar))}</title>')
        parts.append(f'<text x="{LEFT - 14}" y="{y + 4:.1f}" text-anchor="end">{escape(bar.name)}</text>')
        if bar.shuffled is not None:
            a, b = sorted((x(bar.shuffled), x(bar.value)))
            parts.append(f'<line class="drop" x1="{a:.1f}" x2="{b:.1f}" y1="{y}" y2="{y}"/>')
            parts.append(f'<circle class="ring" cx="{x(bar.shuffled):.1f}" cy="{y}" r="4"/>')
        if bar.low is not None and bar.high is not None:
            parts.append(f'<line class="ci" x1="{x(bar.low):.1f}" x2="{x(bar.high):.1f}" y1="{y}" y2="{y}"/>')
        parts.append(f'<circle class="dot" cx="{x(bar.value):.1f}" cy="{y}" r="4.5"/>')
        parts.append(
            f'<text class="value" x="{WIDTH - 4}" y="{y + 4:.1f}" text-anchor="end">{bar.value:.1f}</text></g>'
        )
    return Markup("".join([*parts, "</svg>"]))


SMALL, TALL, SIDE, FOOT = 460, 190, 44, 40


def curves(groups: dict[str, np.ndarray], low: float, high: float, unit: str) -> Markup:
    """A chart (SVG) with one line per group: a histogram with equal bins from low to high.

    groups: non-negative values (n,) of n bins by name of the group, drawn at the centres of the bins. All lines are
    scaled to the largest value of all groups. A group without values has no line but keeps its colour, so that colours
    agree between charts. unit: the label of the horizontal axis.
    """
    top = max((float(np.max(values)) for values in groups.values() if len(values)), default=0.0) or 1.0
    floor = TALL - FOOT
    parts = [f'<svg class="curves" viewBox="0 0 {SMALL} {TALL}" role="img" aria-label="{escape(unit)} by group">']
    span = SMALL - 2 * SIDE
    parts += _scale(np.linspace(low, high, 5), lambda value: SIDE + span * (value - low) / (high - low), floor)
    for number, (name, values) in enumerate(groups.items()):
        if not len(values):
            continue
        x = SIDE + span * (np.arange(len(values)) + 0.5) / len(values)
        y = floor - (floor - TOP) * np.asarray(values) / top
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
        parts.append(f'<polyline class="g{number % 6}" points="{points}"><title>{escape(name)}</title></polyline>')
    parts.append(f'<text class="tick" x="{SMALL / 2}" y="{TALL - 6}" text-anchor="middle">{escape(unit)}</text>')
    return Markup("".join([*parts, "</svg>"]))


def strips(groups: dict[str, np.ndarray], unit: str) -> Markup:
    """A chart (SVG) with one row per group: one short line per value, and a long line at the median.

    groups: values (n,) by name of the group; values that are not finite are left out. unit: the label of the horizontal
    axis. Returns "" if no value is finite.
    """
    known = {name: values[np.isfinite(values)] for name, values in groups.items()}
    every = np.concatenate([*known.values(), np.zeros(0)])
    if not every.size:
        return Markup("")
    ticks = _ticks(float(every.min()), float(every.max()))
    left, floor = 120, TOP + ROW * len(known)
    span = SMALL - left - SIDE / 2

    def x(value: float) -> float:
        return float(left + span * (value - ticks[0]) / (ticks[-1] - ticks[0]))

    parts = [f'<svg class="strips" viewBox="0 0 {SMALL} {floor + FOOT}" role="img" aria-label="{escape(unit)}">']
    parts += _scale(ticks, x, floor)
    for number, (name, values) in enumerate(known.items()):
        y = TOP + ROW * (number + 0.5)
        parts.append(
            f'<text x="{left - 12}" y="{y + 4:.1f}" text-anchor="end">{escape(name)}</text><g class="g{number % 6}">'
        )
        for value in values:
            parts.append(f'<line x1="{x(value):.1f}" x2="{x(value):.1f}" y1="{y - 5:.1f}" y2="{y + 5:.1f}"/>')
        if len(values):
            at = x(float(np.median(values)))
            parts.append(f'<line class="median" x1="{at:.1f}" x2="{at:.1f}" y1="{y - 10:.1f}" y2="{y + 10:.1f}"/>')
        parts.append("</g>")
    parts.append(
        f'<text class="tick" x="{SMALL / 2}" y="{floor + FOOT - 6}" text-anchor="middle">{escape(unit)}</text>'
    )
    return Markup("".join([*parts, "</svg>"]))


def _scale(ticks: np.ndarray, x: Callable[[float], float], floor: float) -> Iterator[str]:
    """SVG elements of a grid line and a number at each tick."""
    for tick in ticks:
        yield f'<line class="grid" x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="{TOP}" y2="{floor}"/>'
        yield f'<text class="tick" x="{x(tick):.1f}" y="{floor + 17}" text-anchor="middle">{tick:g}</text>'


def _spoken(bar: Bar) -> str:
    interval = f" ({bar.low:.1f} to {bar.high:.1f})" if bar.low is not None and bar.high is not None else ""
    shuffled = f"; {bar.shuffled:.1f} with shuffled sources" if bar.shuffled is not None else ""
    return f"{bar.name}: {bar.value:.1f}{interval}{shuffled}"


def _ticks(low: float, high: float) -> np.ndarray:
    """About six round numbers that cover a range.

    >>> _ticks(3.2, 27.9).tolist()
    [0.0, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0]
    """
    raw = max(high - low, 1e-3) / 5
    power = 10.0 ** np.floor(np.log10(raw))
    step = next(m for m in (1, 2, 5, 10) if m * power >= raw) * power
    first = np.floor(low / step)
    return np.arange(first, max(np.ceil(high / step), first + 1) + 1) * step
