"""Synthesis of the missing one of two brain scans, functional or diffusion MRI, from the other.

>>> import pdsynth
>>> cohort = pdsynth.cohorts.bids("/data/study")  # doctest: +SKIP
>>> pairs = pdsynth.prepare(cohort, out="prepared")  # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# Public names and where they live. They are imported when they are first used: torch alone takes seconds.
_PUBLIC = {
    "cohorts": "pdsynth.cohorts",
    "prepare": "pdsynth.data.prepare:prepare",
    "fit": "pdsynth.api:fit",
    "load": "pdsynth.api:load",
    "calibrate": "pdsynth.evidence.calibration.model:calibrate",
    "evaluate": "pdsynth.api:evaluate",
    "synthesise": "pdsynth.missing:synthesise_path",
}
__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _PUBLIC[name].partition(":")
    found = import_module(module)
    return getattr(found, attribute) if attribute else found


def __dir__() -> list[str]:
    return sorted(__all__)
