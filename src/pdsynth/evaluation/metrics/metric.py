"""What a metric of image quality is: how it is computed, named, printed and read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np

PRIMARY = "psnr_brain"  # name of the primary endpoint


class Better(StrEnum):
    """Which of two values is the better one."""

    HIGH = "high"
    LOW = "low"
    ONE = "one"  # the nearer to 1
    NEITHER = ""  # for comparison with papers only


@dataclass(frozen=True)
class Metric:
    """A metric of one volume. A module of `pdsynth.evaluation.metrics` gives its own as a tuple `METRICS`.

    name: in metrics.json and the tables. label: the head of its column; "" for a metric that only metrics.json and
    metrics.tsv hold. function(pred, real, mask): of two volumes (X, Y, Z) in [0, 1] and the real brain (X, Y, Z), bool,
    dilated by one voxel; it returns a float, or several by name, of which `part` is this metric. A function that
    several metrics share runs once per volume.
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
        """The label with its unit."""
        return f"{self.label}, {self.unit}" if self.unit else self.label
