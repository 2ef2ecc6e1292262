"""The `Layout` of an adapter: how a cohort of one layout on disk is recognised and read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pdsynth.cohorts.cohort import Cohort


def _never(root: Path, other: str) -> bool:
    return False


@dataclass(frozen=True)
class Layout:
    """How cohorts of one structure on disk (a layout, such as BIDS) are recognised and read.

    A module of `pdsynth.cohorts` with a `Layout` named `LAYOUT` is found by its presence, and need not be registered.

    - name is the value for `--layout`.
    - sign is a noun phrase for the content by which a folder of this layout is recognised.
    - recognises(root) is true if the folder has this content. It reads names of files and folders only.
    - read(root) returns the cohort. If `participants_tsv` is true, it is read(root, diagnosis_column, diagnosis_map).
      If it has a parameter `select`, it leaves out scans by the key-value pairs of their names (option --select).
    - scans(root) returns the cohort without reading a table, for synthesis, which needs no diagnosis; the default is
      `read`. It takes the parameter `select` if `read` does.
    - preferred_to(root, other) is true if this layout is to be chosen for a folder that also has the layout named
      `other`. If a folder has two layouts and neither is preferred, the user must choose.
    """

    name: str
    sign: str
    recognises: Callable[[Path], bool]
    read: Callable[..., Cohort]
    participants_tsv: bool = False
    scans: Callable[[Path], Cohort] | None = None
    preferred_to: Callable[[Path, str], bool] = _never
