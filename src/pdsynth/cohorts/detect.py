"""Detection of a folder's layout, and reading it with the layout's adapter."""

from __future__ import annotations

import os
from inspect import signature
from pathlib import Path

from pdsynth import manifest
from pdsynth.cohorts.choice import ANY, Select
from pdsynth.cohorts.cohort import Cohort
from pdsynth.cohorts.layout import Layout
from pdsynth.cohorts.participants import DiagnosisMap
from pdsynth.discovery import modules_of
from pdsynth.files import read_json
from pdsynth.types import InputError


def _discovered() -> dict[str, Layout]:
    """The `LAYOUT` of each module of `pdsynth.cohorts`, by name."""
    found: dict[str, Layout] = {}
    for layout in (module.LAYOUT for module in modules_of("pdsynth.cohorts") if hasattr(module, "LAYOUT")):
        if layout.name in found:
            raise ValueError(f"two layouts are named {layout.name!r}")
        found[layout.name] = layout
    return found


LAYOUTS = _discovered()
OWN_STUDY = "give the folder of the study itself, with the acquired scans"


def detect(root: str | Path) -> tuple[str, str]:
    """Recognise the layout (structure on disk) of a cohort's folder: its name, such as "bids", and the reason in words.

    Only names of files and folders are read. Raises InputError if root is not a folder or cannot be listed, if it has
    no known layout, such as another output of pdsynth, or several of which none is preferred, and if its table of
    diagnoses of OASIS-3 is there twice or is not a .csv file.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(root, "is not a folder", "give the folder that contains the participants")
    if not os.access(root, os.R_OK | os.X_OK):
        raise InputError(root, "cannot be listed", "ask for permission to read it")
    fitting = [layout for layout in LAYOUTS.values() if layout.recognises(root)]
    found = [
        layout
        for layout in fitting
        if not any(other.preferred_to(root, layout.name) for other in fitting if other is not layout)
    ]
    if not found:
        if manifest.made_by_pdsynth(entries := manifest.read(root)):
            raise InputError(root, f"was written by `pdsynth {entries['command']}` and is not a study", OWN_STUDY)
        signs = "; ".join(f"{layout.sign} ({layout.name})" for layout in LAYOUTS.values())
        raise InputError(root, f"contains none of these: {signs}", "give the folder that contains the participants")
    if len(found) > 1:
        reasons = "; as ".join(f"{layout.name}: it contains {layout.sign}" for layout in found)
        choices = " or ".join(f"--layout {layout.name}" for layout in found)
        raise InputError(root, f"can be read as {reasons}", f"choose {choices}; derivatives are the preprocessed scans")
    return found[0].name, f"it contains {found[0].sign}"


def read(
    root: str | Path,
    layout: str | None = None,
    diagnosis_column: str | None = None,
    diagnosis_map: DiagnosisMap | None = None,
    select: Select = ANY,
    tables: bool = True,
) -> Cohort:
    """Read a cohort in any known layout (structure on disk).

    layout: its name, "adni", "bids", "derivatives", "folder" or "oasis3"; None recognises it by names of files. select:
    leaves out scans by the key-value pairs of their file names (option --select); a session may lack that modality
    then. diagnosis_column: column of the diagnosis in participants.tsv and sessions.tsv; None for `diagnosis` or `dx`.
    diagnosis_map: further codes of a diagnosis, with NC, MCI, AD or "n/a" for each. Both are for layouts with
    participants.tsv; the others have tables and codes of their own. If `tables` is false, only the scans are read, and
    the two are ignored: no table can then stop or change a synthesis.

    Raises InputError if no layout is recognised, if the folder holds volumes that pdsynth synthesised, or as the reader
    of the layout does. Raises ValueError for an unknown layout, for another group in `diagnosis_map`, and for `select`
    or diagnosis options with a layout that does not take them.
    """
    if read_json(Path(root) / "dataset_description.json").get("Synthetic"):
        raise InputError(root, "holds synthetic volumes of pdsynth, not acquired scans", OWN_STUDY)
    layout = detect(root)[0] if layout is None else layout
    if layout not in LAYOUTS:
        raise ValueError(f"there is no layout {layout!r}. Choose among {', '.join(LAYOUTS)}.")
    adapter = LAYOUTS[layout]
    if select.values and "select" not in signature(adapter.read).parameters:
        raise ValueError(f"--select is not an option of the layout {layout}, which reads one scan per name.")
    restricted = {"select": select} if select.values else {}
    if not tables and adapter.scans is not None:
        return adapter.scans(Path(root), **restricted)
    if adapter.participants_tsv:
        return adapter.read(root, diagnosis_column, diagnosis_map, **restricted)
    if diagnosis_column or diagnosis_map:
        raise ValueError(
            f"--diagnosis-column and --diagnosis-map are for participants.tsv; {layout} has tables of its own."
        )
    return adapter.read(root, **restricted)
