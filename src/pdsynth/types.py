"""Types that all layers share: modalities, directions, diagnoses, splits and the error for invalid input."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Final

NA: Final = "n/a"  # cell of a table whose value is not known
WHOLE_SCAN = "mean"  # segment of the row of a whole scan; the other segments of a session are numbered from 0


class _Axis(StrEnum):
    """An enumeration in a fixed order, which is the order of the entries of a method's buffers."""

    @property
    def index(self) -> int:  # type: ignore[override]  # str.index, a search for text, is not needed here
        """Position of this member in the order, from 0."""
        return list(type(self)).index(self)


class Modality(_Axis):
    """The kind of a scan: functional MRI ("fmri") or diffusion MRI ("dmri").

    other: the other one of the two. index: the position in this order, from 0.

    >>> Modality.FMRI.other
    <Modality.DMRI: 'dmri'>
    >>> Modality.FMRI.index, Modality.DMRI.index
    (0, 1)
    """

    FMRI = "fmri"
    DMRI = "dmri"

    @property
    def other(self) -> Modality:
        return Modality.DMRI if self is Modality.FMRI else Modality.FMRI


class Direction(_Axis):
    """The direction of a synthesis: "fmri_to_dmri" or "dmri_to_fmri".

    source, target: the modality from which a scan is synthesised, and that of the synthesised scan. index: 0 from fMRI
    to dMRI, 1 from dMRI to fMRI.

    >>> Direction.FMRI_TO_DMRI.source, Direction.FMRI_TO_DMRI.target
    (<Modality.FMRI: 'fmri'>, <Modality.DMRI: 'dmri'>)
    >>> Direction.DMRI_TO_FMRI.index
    1
    """

    FMRI_TO_DMRI = "fmri_to_dmri"
    DMRI_TO_FMRI = "dmri_to_fmri"

    @property
    def source(self) -> Modality:
        return Modality(self.value.split("_to_")[0])

    @property
    def target(self) -> Modality:
        return self.source.other

    @classmethod
    def to(cls, target: Modality) -> Direction:
        """The direction that synthesises `target`.

        >>> Direction.to(Modality.FMRI)
        <Direction.DMRI_TO_FMRI: 'dmri_to_fmri'>
        """
        return cls(f"{target.other}_to_{target}")


class Diagnosis(StrEnum):
    """Diagnostic group: cognitively normal (NC), mild cognitive impairment (MCI), Alzheimer's disease (AD)."""

    NC = "NC"
    MCI = "MCI"
    AD = "AD"


class Available(StrEnum):
    """The scans that a session of a prepared folder holds.

    Both ("both"), the fMRI alone ("fmri"), or the dMRI alone ("dmri").
    """

    BOTH = "both"
    FMRI = Modality.FMRI
    DMRI = Modality.DMRI


class Split(StrEnum):
    """The part of a cohort that a participant belongs to: training ("train"), validation ("val") or test ("test")."""

    TRAIN = "train"
    VAL = "val"
    TEST = "test"


class Size(StrEnum):
    """The size of a recipe's networks: "full", or "small" for the budget of a CPU.

    A recipe is a named configuration of a method.
    """

    FULL = "full"
    SMALL = "small"


class Space(StrEnum):
    """The space of a synthesised volume, besides that of its source scan.

    NATIVE ("native"): that of the source alone. MNI152NLIN6ASYM ("MNI152NLin6Asym"): also the MNI152 space of FSL.
    """

    NATIVE = "native"
    MNI152NLIN6ASYM = "MNI152NLin6Asym"


class View(StrEnum):
    """The images of a volume that a loss compares on the features of a network.

    PROJECTIONS ("projections") are three grey images, the means along each axis; STACKED ("stacked") are these three as
    the channels of one image; SLICES ("slices") are two slices across each axis; VOLUME ("volume") is the volume
    itself.
    """

    PROJECTIONS = "projections"
    STACKED = "stacked"
    SLICES = "slices"
    VOLUME = "volume"


def counted(number: int, noun: str) -> str:
    """A number with its noun, in the plural unless the number is 1. The noun forms its plural with an s.

    >>> counted(1, "scan"), counted(0, "missing scan")
    ('1 scan', '0 missing scans')
    """
    return f"{number} {noun}{'' if number == 1 else 's'}"


class InputError(ValueError):
    """Invalid input. The message is one line with the file, the problem and the remedy; a command exits with status 2.

    path, problem, remedy: the parts of the message. problem and remedy are given without a full stop at the end. Line
    breaks in problem become spaces.

    >>> str(InputError("a.nii.gz", "is truncated", "copy it again"))
    'a.nii.gz: is truncated. Remedy: copy it again.'
    """

    def __init__(self, path: str | Path, problem: str, remedy: str) -> None:
        self.path, self.remedy = Path(path), remedy
        self.problem = " ".join(problem.splitlines())  # a library's message may have several lines
        super().__init__(f"{path}: {self.problem}. Remedy: {remedy}.")

    def __reduce__(self) -> tuple[type[InputError], tuple[Path, str, str]]:
        """Make the three-argument exception picklable; multiprocessing otherwise reports a broken pool."""
        return type(self), (self.path, self.problem, self.remedy)
