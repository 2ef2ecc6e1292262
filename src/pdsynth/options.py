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
    """The options of `pdsynth simulate`, which writes a simulated cohort.

    subjects: number of participants. seed: of all random numbers. sites: names of the sites among which the
    participants are divided evenly: "oasis", "adni" or "hospital". missing_fmri, missing_dmri: fractions of the
    participants without that scan; nobody lacks both. grid_mm: resolution of the simulated anatomy in mm; its voxels
    are 0.75 * grid_mm. quick: write fewer volumes and directions. randomise: fraction of the participants whose
    acquisition is random instead of their site's. truth: write also the volumes that the oracle (upper limit of the
    scores) needs. anatomies: folder of label maps with FreeSurfer's numbers; the fraction anatomies_share of the
    participants is simulated from them, the others from the template. None: all from the template.
    """

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
    """The options of `pdsynth prepare`, which brings the scans of a cohort onto one grid.

    grid_mm: voxel size of the grid, mm. segments: if above 1, number of parts of a scan whose means are prepared beside
    the mean of the whole scan. split: fractions of the participants in training, validation and test, which sum to 1;
    seed: of this division. denoise, realign: whether dMRI is denoised, and head motion corrected, before the volumes of
    a series are averaged; each takes minutes per scan.
    """

    grid_mm: float = 4.0
    segments: int = 1
    split: tuple[float, float, float] = (0.8, 0.1, 0.1)
    seed: int = 0
    denoise: bool = False
    realign: bool = False


@dataclass(frozen=True)
class TrainOptions:
    """The options of the training of a method.

    steps: number of training steps. budget: wall time of these steps, seconds. If both are given, training ends at the
    first of the two. A method that is trained in steps needs one of them, unless `fit` takes the number of steps from
    the recipe. seed: of the random numbers of the training. device: "auto", "cpu" or "cuda"; "auto" is "cuda" if torch
    finds such a device, else "cpu". devices: number of processes or GPUs that divide each batch among them. accumulate:
    number of equal parts of a device's batch that it takes one after the other, which needs less memory. precision:
    "32-true", "bf16-mixed" or "16-mixed"; None for that of the resumed run, or the fast one of the device. resume:
    continue from the checkpoints of the run; otherwise they are removed.
    """

    steps: int | None = None
    budget: float | None = None
    seed: int = 0
    device: str = "auto"
    devices: int = 1
    accumulate: int = 1
    precision: str | None = None
    resume: bool = False


@dataclass(frozen=True)
class FitOptions(TrainOptions):
    """The options of the training of a recipe (a named configuration of a method), besides those of `TrainOptions`.

    If neither steps nor budget is given, the recipe's own number of steps applies. size: "full", or "small" for a
    recipe that has a small size. settings: new values of settings of the recipe, by name. atlases: paths of label
    images in MNI space, by modality, which replace the default regions of a loss on region means. init: folder of the
    model of the same method from whose weights the training starts, or "default" for the shipped one; None for random
    weights. It cannot be given with settings or with another size than "full".
    """

    size: str = Size.FULL
    settings: Mapping[str, Any] | None = None
    atlases: Mapping[Modality, str | Path] | None = None
    init: str | Path | None = None


@dataclass(frozen=True)
class EvaluateOptions:
    """The options of `pdsynth evaluate` and `pdsynth evidence`.

    split: the participants to score. controls: whether the controls (simple methods for comparison) that need no
    training steps are fitted on the training split and scored too. samples: number of random samples that a generative
    model draws for each scan, each in `steps` sampling steps. The uncertainty audit tests the SD over the samples if
    they are three or more; with fewer, it tests the SD that the model itself gives. atlas: a label image in MNI space
    whose regions replace the default ones. seed: of all random numbers. device: "auto", "cpu" or "cuda".
    """

    split: Split = Split.TEST
    controls: bool = True
    samples: int = 0
    steps: int = 8
    atlas: Path | None = None
    seed: int = 0
    device: str = "auto"
