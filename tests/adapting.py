"""What the tests of adaptation share: the quality of a method on people who were left out."""

from __future__ import annotations

import numpy as np

from pdsynth.data.pairs import Pairs
from pdsynth.evaluation.estimates import predictions
from pdsynth.evaluation.metrics import psnr
from pdsynth.methods.base import Method
from pdsynth.types import Direction


def quality(method: Method, pairs: Pairs, direction: Direction) -> float:
    """The mean over rows of the PSNR in the brain, dB."""
    found = predictions(method, pairs, direction)
    scores = [
        psnr(found[row], pairs.volume(direction.target, row), pairs.brain(direction.target, row))
        for row in range(len(pairs))
    ]
    return float(np.mean(scores))
