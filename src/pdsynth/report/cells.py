"""Cells of tables and parts of sentences, from numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import isnan
from typing import Protocol, TypeVar

from pdsynth.report import words
from pdsynth.statistics.resampling import Estimate
from pdsynth.types import Direction


class Directed(Protocol):
    """A row of a direction."""

    @property
    def direction(self) -> Direction:
        """Which modality is synthesised from which."""


Row = TypeVar("Row", bound=Directed)


def number(value: float, decimals: int = 2) -> str:
    """A number rounded; a dash for nan.

    >>> number(-0.256), number(float("nan"))
    ('−0.26', '–')
    """
    return words.number(None if isnan(value) else value, decimals)


def spread(estimate: Estimate, decimals: int = 2) -> str:
    """An estimate with its interval, where it has one.

    >>> spread(Estimate(0.5, 0.41, 0.6))
    '0.50 (0.41 to 0.60)'
    """
    value = number(estimate.value, decimals)
    if isnan(estimate.low) or isnan(estimate.high):
        return value
    return f"{value} ({words.interval(estimate.low, estimate.high, decimals)})"


def p_value(value: float) -> str:
    """To three decimals; a dash where there was no test.

    >>> p_value(0.0004), p_value(0.02), p_value(float("nan"))
    ('< 0.001', '0.020', '–')
    """
    if isnan(value):
        return words.number(None, 0)
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def by_direction(rows: Iterable[Row], tell: Callable[[Row], str]) -> str:
    """What is known of each row after its direction; rows without a value are left out."""
    parts = ((words.DIRECTIONS[row.direction], tell(row)) for row in rows)
    return "; ".join(f"{name} {text}" for name, text in parts if text)
