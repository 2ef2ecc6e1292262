"""Numbers as text, for the cells of tables and for sentences."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import isnan
from typing import Protocol, TypeVar

from pdsynth.report import words
from pdsynth.statistics.resampling import Estimate
from pdsynth.types import Direction


class Directed(Protocol):
    """Interface of a row of a table that belongs to one direction of synthesis."""

    @property
    def direction(self) -> Direction:
        """The direction of synthesis."""


Row = TypeVar("Row", bound=Directed)


def number(value: float, decimals: int = 2) -> str:
    """A number as text with a fixed number of decimals and a typographic minus sign; a dash for nan.

    >>> number(-0.256), number(float("nan"))
    ('−0.26', '–')
    """
    return words.number(None if isnan(value) else value, decimals)


def spread(estimate: Estimate, decimals: int = 2) -> str:
    """An estimate as text: its value, with its 95 % interval in parentheses if it has one; a dash if the value is nan.

    >>> spread(Estimate(0.5, 0.41, 0.6))
    '0.50 (0.41 to 0.60)'
    """
    value = number(estimate.value, decimals)
    if isnan(estimate.low) or isnan(estimate.high):
        return value
    return f"{value} ({words.interval(estimate.low, estimate.high, decimals)})"


def p_value(value: float) -> str:
    """A p value as text with three decimals, "< 0.001" if it is below; a dash for nan (no test).

    >>> p_value(0.0004), p_value(0.02), p_value(float("nan"))
    ('< 0.001', '0.020', '–')
    """
    if isnan(value):
        return words.number(None, 0)
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def by_direction(rows: Iterable[Row], describe: Callable[[Row], str]) -> str:
    """One text for all rows: "fMRI → dMRI <text>; dMRI → fMRI <text>", where describe(row) gives the text of a row.

    Each row belongs to one direction of synthesis. A row with the text "" is left out. The result is "" if all are left
    out.
    """
    parts = ((words.DIRECTIONS[row.direction], describe(row)) for row in rows)
    return "; ".join(f"{name} {text}" for name, text in parts if text)
