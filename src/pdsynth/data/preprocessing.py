"""Everything that turns a scan into the volume that a network sees, as one object that travels with pairs and models.

`prepare` writes it into the prepared folder's manifest, `train` copies it into the model's config.json, and
`synthesize` rebuilds it from there, as nnU-Net does with its plans (Isensee et al. 2021).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pdsynth.imaging.segments import B0_LIMIT, UNSTEADY_SECONDS, UNSTEADY_SHARE
from pdsynth.imaging.spatial import Grid, mni_grid
from pdsynth.types import InputError

ENTRY = "preprocessing"  # in a manifest or a card, beside `grid_shape` and `grid_affine`
SHELL = 1000.0  # s/mm^2
# What version 0.1.0 did to every scan, and recorded nowhere. A prepared folder of that version says in its parameters
# whether scans were corrected; a model does not, and is read as one that was trained on uncorrected scans.
BEFORE_IT_WAS_RECORDED: dict[str, Any] = {
    "steps": 1,
    "unsteady_seconds": 8.0,
    "unsteady_share": 0.1,
    "shell": 1000.0,
    "denoise": False,
    "realign": False,
    "mask": "computed",
    "alone": "affine",
    "paired_dmri": "through-fmri",
    "margin_mm": 8.0,
    "percentile": 99.5,
}


class Preprocessing(BaseModel):
    """The steps from a scan to a volume on the common grid, with their settings; frozen and hashable.

    - grid: where volumes lie, MNI space.
    - steps: version of the steps themselves. It grows when the same settings give another volume.
    - unsteady_seconds, unsteady_share: first volumes of an fMRI series that are dropped, in seconds, and at most this
      part of the series.
    - shell: the dMRI shell nearest to this b-value, s/mm^2, is averaged.
    - denoise: dMRI by the Marchenko-Pastur principal components of patches (Veraart et al. 2016).
    - realign: every volume rigidly to the mean fMRI, or to the mean b0.
    - mask: "given" takes the brain mask that a preprocessing tool wrote beside the scan, where there is one;
      "computed" never does.
    - alone: how a lone scan is placed. "affine" registers it to the template, unless a tool has placed it already.
    - paired_dmri: how a dMRI is placed whose session has an fMRI. "through-fmri" is rigid to the fMRI, then by the
      fMRI's own transform.
    - margin_mm: what is farther from the template's brain is zero.
    - percentile: inside the brain, of the intensity that becomes 1.

    >>> Preprocessing(realign=True).difference(Preprocessing())
    {'realign': ('realign True', 'realign False')}
    """

    model_config = ConfigDict(
        frozen=True, strict=True, extra="forbid", arbitrary_types_allowed=True, allow_inf_nan=False
    )

    grid: Grid = Field(default_factory=mni_grid, exclude=True)
    steps: Literal[1] = 1
    unsteady_seconds: Annotated[float, Field(ge=0, le=120)] = UNSTEADY_SECONDS
    unsteady_share: Annotated[float, Field(ge=0, lt=1)] = UNSTEADY_SHARE
    shell: Annotated[float, Field(gt=B0_LIMIT, le=50_000)] = SHELL
    denoise: bool = False
    realign: bool = False
    mask: Literal["given", "computed"] = "given"
    alone: Literal["affine"] = "affine"
    paired_dmri: Literal["through-fmri"] = "through-fmri"
    margin_mm: Annotated[float, Field(ge=0, le=100)] = 8.0
    percentile: Annotated[float, Field(gt=50, le=100)] = 99.5

    def entries(self) -> dict[str, Any]:
        """As a manifest or a card holds it: `grid_shape`, `grid_affine` and `preprocessing`, JSON values."""
        grid = {"grid_shape": list(self.grid.shape), "grid_affine": self.grid.affine.tolist()}
        return {**grid, ENTRY: self.model_dump()}

    @classmethod
    def of(cls, entries: Mapping[str, Any], path: Path) -> Preprocessing:
        """What the entries of a manifest or card at `path` record; version 0.1.0's where they record none.

        Raises InputError, naming `path`, for a step, a version or a setting that this version cannot rebuild.
        """
        grid = Grid(tuple(entries["grid_shape"]), np.asarray(entries["grid_affine"]))
        recorded = recorded_by(entries)
        if problem := _unknown(recorded):
            raise _not_rebuilt(path, entries, problem)
        try:
            return cls.model_validate({**recorded, "grid": grid})
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            problem = f"{'.'.join(map(str, first['loc']))} is {first['input']!r:.40}"
            raise _not_rebuilt(path, entries, problem) from error

    def difference(self, other: Preprocessing) -> dict[str, tuple[str, str]]:
        """Each setting in which two differ, in words: its value here and its value in the other."""
        names = [name for name in type(self).model_fields if getattr(self, name) != getattr(other, name)]
        return {name: (self._in_words(name), other._in_words(name)) for name in names}

    def option(self, name: str) -> str | None:
        """How `prepare` is asked for a setting; None for one that it has no option for."""
        if name == "grid":
            return f"with --grid-mm {self.grid.spacing_mm[0]:g}"
        if name in ("denoise", "realign"):
            return f"{'with' if getattr(self, name) else 'without'} --{name}"
        return None

    def _in_words(self, name: str) -> str:
        if name == "grid":
            return f"a grid of {self.grid.spacing_mm[0]:g} mm {self.grid.shape}"
        return f"{name} {getattr(self, name)}"

    def __str__(self) -> str:
        """One line for a person.

        >>> print(Preprocessing(realign=True))
        steps 1, grid of 4 mm, shell 1000 s/mm^2, realigned, brain masks given or else computed
        """
        words = [f"steps {self.steps}", f"grid of {self.grid.spacing_mm[0]:g} mm", f"shell {self.shell:g} s/mm^2"]
        words += [word for word, on in (("denoised", self.denoise), ("realigned", self.realign)) if on]
        masks = "given or else computed" if self.mask == "given" else "computed"
        return ", ".join([*words, f"brain masks {masks}"])


def recorded_by(entries: Mapping[str, Any]) -> Any:
    """What a manifest or a card says of the preprocessing, unchecked; version 0.1.0's where it says nothing."""
    asked = entries.get("parameters", {})
    known = {name: asked[name] for name in ("denoise", "realign") if name in asked}
    return entries.get(ENTRY, BEFORE_IT_WAS_RECORDED | known)


def _unknown(recorded: Any) -> str | None:
    """What in a record is no setting of this version, or is missing there; None where all are known."""
    if not isinstance(recorded, Mapping):
        return "it is no set of named settings"
    fields = Preprocessing.model_fields.keys() - {"grid"}
    for word, odd in (("unknown", recorded.keys() - fields), ("missing", fields - recorded.keys())):
        if odd:
            return f"{word}: {', '.join(sorted(map(str, odd)))[:80]}"
    return None


def _not_rebuilt(path: Path, entries: Mapping[str, Any], problem: str) -> InputError:
    version = entries.get("version") or "another version"
    return InputError(
        path,
        f"records a preprocessing that this version cannot rebuild ({problem})",
        f"use the pdsynth that wrote it ({version}), or make it again with this one",
    )
