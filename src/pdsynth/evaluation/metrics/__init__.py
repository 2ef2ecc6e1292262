"""Image quality of one synthesised volume against the real one.

Every function takes `pred` and `real` (X, Y, Z) in [0, 1] (data range 1) and, unless its name says `full`, a boolean
`mask` (X, Y, Z): the real brain, dilated by one voxel. A prediction is never rescaled with the target's statistics.
Results, tables and report include the metrics of every file in this package that has a tuple `METRICS`.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from pdsynth.discovery import modules_of
from pdsynth.evaluation.metrics.intensity import psnr
from pdsynth.evaluation.metrics.masks import dilate
from pdsynth.evaluation.metrics.metric import PRIMARY, Better, Metric

__all__ = ["METRICS", "MODULES", "PRIMARY", "Better", "Metric", "dilate", "image_quality", "psnr"]

_FOUND = [module for module in modules_of(__name__) if hasattr(module, "METRICS")]
MODULES = tuple(module.__name__ for module in _FOUND)  # scores depend on the code of these modules


def _ordered(found: list[Metric]) -> tuple[Metric, ...]:
    """The primary endpoint, then the others in the order of their files, then metrics for comparison only."""
    twice = [name for name, number in Counter(metric.name for metric in found).items() if number > 1]
    if twice:
        raise ValueError(f"two metrics are named {twice[0]!r}")
    return tuple(sorted(found, key=lambda metric: (metric.name != PRIMARY, metric.better is Better.NEITHER)))


METRICS = _ordered([metric for module in _FOUND for metric in module.METRICS])


def image_quality(pred: np.ndarray, real: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """The value of every image quality metric for one synthesised volume, by the name of the metric.

    pred, real (X, Y, Z): the synthesised and the real volume, in 0..1. mask (X, Y, Z) bool: the real brain, dilated by
    one voxel. Raises ValueError if the mask is empty, or if an axis has fewer than 11 voxels.
    """
    found = {function: function(pred, real, mask) for function in dict.fromkeys(m.function for m in METRICS)}
    return {m.name: float(found[m.function] if m.part is None else found[m.function][m.part]) for m in METRICS}
