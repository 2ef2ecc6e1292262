"""Estimates of a method from source scans alone: the batch that it gets, and the volumes that it returns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch

from pdsynth.data.batch import PairBatch
from pdsynth.data.pairs import Pairs
from pdsynth.methods.base import Method
from pdsynth.methods.controls import Oracle
from pdsynth.types import Direction


def source_only(batch: PairBatch, direction: Direction, method: Method) -> PairBatch:
    """A copy of the batch whose only volumes are the sources of one direction, on the method's device.

    Target volumes and masks are removed, so that no method can use them. Only the oracle, an upper limit for simulated
    data, also gets the simulated truth.
    """
    truth = batch.oracle if isinstance(method, Oracle) else {}
    source = replace(batch, sources={direction: batch.sources[direction]}, targets={}, masks={}, oracle=truth)
    return source.to(device_of(method))


def predictions(method: Method, pairs: Pairs, direction: Direction) -> np.ndarray:
    """The scans that a method synthesises, (rows, X, Y, Z) float32: one per row of `pairs`, from its source scan.

    Raises ValueError if the method returns a value that is not finite.
    """
    return np.stack([mean for mean, _ in estimates(method, pairs, direction)])


def estimates(method: Method, pairs: Pairs, direction: Direction) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """Yield for each row of `pairs` the scan that a method synthesises and its SD, (X, Y, Z) float32 each.

    They are made from the source scan of that row only. The SD is None if the method gives none. Raises ValueError if a
    value is not finite.
    """
    method.eval()
    for row in range(len(pairs)):
        with torch.inference_mode():
            batch = pairs.batch(np.array([row]), directions=[direction])
            mean, sd = method.estimate(source_only(batch, direction, method), direction)
        yield volume_of(mean, method), None if sd is None else volume_of(sd, method)


def volume_of(tensor: torch.Tensor, method: Method) -> np.ndarray:
    """The volume (X, Y, Z) float32 of a tensor (1, 1, X, Y, Z). Raises ValueError if a value is not finite."""
    volume = tensor[0, 0].detach().float().cpu().numpy()
    if not np.isfinite(volume).all():
        bad = int((~np.isfinite(volume)).sum())
        raise ValueError(f"method {method.name!r} returned {bad} values that are not finite.")
    return volume


def device_of(method: Method) -> torch.device:
    return next((t.device for t in [*method.parameters(), *method.buffers()]), torch.device("cpu"))
