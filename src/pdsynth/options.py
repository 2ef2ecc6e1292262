"""The options of the verbs that decide results, as command line and Python interface share them, with their defaults.

An option that changes no result, such as the number of processes, is a parameter of the verb itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pdsynth.types import Modality, Size, Split


@dataclass(frozen=True)
class SimulateOptions:
    """See `pdsynth.cohorts.simulated.cohort.simulate`."""

    subjects: int = 40
    seed: int = 0
    sites: tuple[str, ...] = ("oasis", "adni", "hospital")
    missing_fmri: float = 0.0
    missing_dmri: float = 0.0
    grid_mm: float = 4.0
    quick: bool = False
    randomise: float = 0.0
    truth: bool = True
    anatomies: Path | None = None
    anatomies_share: float = 1.0


@dataclass(frozen=True)
class PrepareOptions:
    """See `pdsynth.data.prepare.prepare`."""

    grid_mm: float = 4.0
    segments: int = 1
    split: tuple[float, float, float] = (0.8, 0.1, 0.1)
    seed: int = 0
    denoise: bool = False
    realign: bool = False


@dataclass(frozen=True)
class TrainOptions:
    """The options of `pdsynth.training.train`; the budget is in seconds."""

    steps: int | None = None
    budget: float | None = None
    seed: int = 0
    device: str = "auto"
    devices: int = 1
    precision: str | None = None
    resume: bool = False


@dataclass(frozen=True)
class FitOptions(TrainOptions):
    """See `pdsynth.api.fit`; the budget is in seconds."""

    size: str = Size.FULL
    settings: Mapping[str, Any] | None = None
    atlases: Mapping[Modality, str | Path] | None = None
    init: str | Path | None = None


@dataclass(frozen=True)
class EvaluateOptions:
    """The options of `pdsynth evaluate` and `pdsynth evidence`.

    split: the participants to score. controls: whether the closed-form controls are fitted on the training split and
    scored too. samples: draws per scan of a generative model, each in `steps` sampling steps. The uncertainty audit
    tests the SD over at least three draws; with fewer, it tests the SD that the model itself gives. atlas: a label
    image in MNI space whose regions replace the default ones.
    """

    split: Split = Split.TEST
    controls: bool = True
    samples: int = 0
    steps: int = 8
    atlas: Path | None = None
    seed: int = 0
    device: str = "auto"
