"""What an adapter is: how one layout of a cohort on disk is recognised and read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pdsynth.cohorts.cohort import Cohort


def _never(root: Path, other: str) -> bool:
    return False


@dataclass(frozen=True)
class Layout:
    """One layout of a cohort. A module of `pdsynth.cohorts` that has one as `LAYOUT` is an adapter.

    name: what `--layout` takes. sign: what a folder of this layout holds, as a noun. recognises(root): whether it holds
    that, by names alone. read(root) gives the cohort; where `participants_tsv` is true, read(root, diagnosis_column,
    diagnosis_map). preferred_to(root, other): whether this layout is meant where the folder fits the one named `other`
    too; where neither of two is preferred, the user must choose.
    """

    name: str
    sign: str
    recognises: Callable[[Path], bool]
    read: Callable[..., Cohort]
    participants_tsv: bool = False
    preferred_to: Callable[[Path, str], bool] = _never
