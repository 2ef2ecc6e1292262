"""Synthesis of a missing functional MRI from the diffusion MRI of the same person, and of a missing dMRI from the fMRI.

>>> import pdsynth
>>> cohort = pdsynth.cohorts.bids("/data/study")  # doctest: +SKIP
>>> pairs = pdsynth.prepare(cohort, out="prepared")  # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the names of __all__, as a type checker sees them
    from pdsynth import cohorts
    from pdsynth.api import evaluate, fit, load
    from pdsynth.data.prepare import prepare
    from pdsynth.evidence.calibration.model import calibrate
    from pdsynth.missing import synthesise_path as synthesise

__version__ = "0.1.0"

# Module, or module:attribute, of each public name. It is imported at its first use, because torch alone takes seconds.
_PUBLIC = {
    "cohorts": "pdsynth.cohorts",
    "prepare": "pdsynth.data.prepare:prepare",
    "fit": "pdsynth.api:fit",
    "load": "pdsynth.api:load",
    "calibrate": "pdsynth.evidence.calibration.model:calibrate",
    "evaluate": "pdsynth.api:evaluate",
    "synthesise": "pdsynth.missing:synthesise_path",
}
__all__ = ["__version__", "calibrate", "cohorts", "evaluate", "fit", "load", "prepare", "synthesise"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _PUBLIC[name].partition(":")
    imported = import_module(module)
    return getattr(imported, attribute) if attribute else imported


def __dir__() -> list[str]:
    return sorted(__all__)
