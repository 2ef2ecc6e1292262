"""Which adapter reads a folder, and why."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pdsynth.cohorts.cohort import Cohort
from pdsynth.cohorts.layout import Layout
from pdsynth.discovery import modules_of
from pdsynth.types import Diagnosis, InputError


def _discovered() -> dict[str, Layout]:
    """The layouts that the modules of `pdsynth.cohorts` give, by name."""
    found: dict[str, Layout] = {}
    for layout in (module.LAYOUT for module in modules_of("pdsynth.cohorts") if hasattr(module, "LAYOUT")):
        if layout.name in found:
            raise ValueError(f"two layouts are named {layout.name!r}")
        found[layout.name] = layout
    return found


LAYOUTS = _discovered()


def detect(root: str | Path) -> tuple[str, str]:
    """The layout of a folder and the reason, by names alone.

    Raises InputError where the folder fits no layout, and where it fits two of which neither is preferred.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(root, "is no folder", "give the folder that holds the participants")
    fitting = [layout for layout in LAYOUTS.values() if layout.recognises(root)]
    found = [
        layout
        for layout in fitting
        if not any(other.preferred_to(root, layout.name) for other in fitting if other is not layout)
    ]
    if not found:
        signs = "; ".join(f"{layout.sign} ({layout.name})" for layout in LAYOUTS.values())
        raise InputError(root, f"holds none of these: {signs}", "give the folder that holds the participants")
    if len(found) > 1:
        reasons = "; as ".join(f"{layout.name}: it holds {layout.sign}" for layout in found)
        choices = " or ".join(f"--layout {layout.name}" for layout in found)
        raise InputError(root, f"can be read as {reasons}", f"choose {choices}")
    return found[0].name, f"it holds {found[0].sign}"


def read(
    root: str | Path,
    layout: str | None = None,
    diagnosis_column: str | None = None,
    diagnosis_map: Mapping[str, Diagnosis] | None = None,
) -> Cohort:
    """A cohort in any known layout, found by `detect` where none is given.

    The column and the map of diagnoses are of participants.tsv: the archives have tables and codes of their own.
    Raises InputError for what the adapter refuses, ValueError for an unknown layout or an option that does not fit.
    """
    layout = detect(root)[0] if layout is None else layout
    if layout not in LAYOUTS:
        raise ValueError(f"there is no layout {layout!r}. Choose among {', '.join(LAYOUTS)}.")
    adapter = LAYOUTS[layout]
    if adapter.participants_tsv:
        return adapter.read(root, diagnosis_column, diagnosis_map)
    if diagnosis_column or diagnosis_map:
        raise ValueError(
            f"--diagnosis-column and --diagnosis-map are for participants.tsv; {layout} has tables of its own."
        )
    return adapter.read(root)
