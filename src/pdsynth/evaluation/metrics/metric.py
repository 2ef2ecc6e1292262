"""The description of an image quality metric: its function, name, format and interpretation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np

PRIMARY = "psnr_brain"  # name of the primary endpoint


class Better(StrEnum):
    """Which of two values of a metric is the better one: the HIGH one, the LOW one, or the ONE nearer to 1.

    NEITHER: no value counts as better, because the metric is only for comparison with publications.
    """

    HIGH = "high"
    LOW = "low"
    ONE = "one"  # the value nearer to 1
    NEITHER = ""  # for comparison with publications only


@dataclass(frozen=True)
class Metric:
    """Description of one image quality metric: its function, its name, and how to print and to read it.

    name: key in metrics.json and in the tables. label: heading of its column; "" for a metric that is only in
    metrics.json and metrics.tsv. unit: such as "dB", or "" if it has none. better: whether a higher value, a lower one
    or the one nearer to 1 is better, or none. decimals: number of digits after the point in printed tables. meaning:
    explanation for the reader of the report. function(pred, real, mask): of two volumes (X, Y, Z) in 0..1 and the real
    brain (X, Y, Z), bool, dilated by one voxel. It returns a float if part is None, else a dict of floats; the value of
    this metric is then the one with the key `part`. A function that several metrics share runs once per volume.
    """

    name: str
    label: str
    unit: str
    better: Better
    decimals: int
    meaning: str
    function: Callable[[np.ndarray, np.ndarray, np.ndarray], Any]
    part: str | None = None

    @property
    def heading(self) -> str:
        """The label with its unit, if it has one."""
        return f"{self.label}, {self.unit}" if self.unit else self.label
