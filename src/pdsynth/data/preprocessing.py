"""The settings of all steps from a scan to the volume that a network sees, stored with prepared pairs and with models.

`prepare` writes them into the prepared folder's manifest, `train` copies them into the model's config.json, and
`synthesize` reads them from there, as nnU-Net does with its plans (Isensee et al. 2021).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, ValidationError, model_serializer

from pdsynth.imaging.segments import B0_LIMIT, UNSTEADY_SECONDS, UNSTEADY_SHARE
from pdsynth.imaging.spatial import Grid, mni_grid
from pdsynth.types import InputError

ENTRY = "preprocessing"  # entry of a manifest or a card, which also has `grid_shape` and `grid_affine`
SHELL = 1000.0  # s/mm^2
MOST_BVAL = 50_000  # s/mm^2
# The preprocessing of version 0.1.0, which did not record it. A prepared folder of that version has the corrections in
# its parameters. A model of that version has not, and is read as a model of uncorrected scans.
VERSION_0_1_0: dict[str, Any] = {
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
UNRECORDED: dict[str, Any] = {"intensity": "percentile"}  # settings that had one value only, before they were recorded


class Preprocessing(BaseModel):
    """The steps from a scan to a volume on the common grid, with their settings; frozen and hashable.

    - grid: the grid of the volumes, in MNI space.
    - steps: version of the steps. It increases when the same settings give another volume.
    - unsteady_seconds, unsteady_share: duration in seconds of the first fMRI volumes, which are dropped, and the
      largest fraction of the series that may be dropped.
    - shell: b-value in s/mm^2. The dMRI shell nearest to it is averaged.
    - denoise: whether dMRI is denoised by the Marchenko-Pastur principal components of patches (Veraart et al. 2016).
    - realign: whether each volume is registered rigidly to the mean fMRI, or to the mean b0.
    - mask: "given" uses the brain mask file that a preprocessing tool wrote for the scan, if there is one; "computed"
      always computes the mask.
    - alone: registration of a scan without a partner, the other scan of its session, unless a tool has already
      registered it. "affine-b0" registers an fMRI to the template, and a dMRI to the mean b0 of people whose dMRI was
      registered through their fMRI. "affine" registers both to the template; models and prepared folders of earlier
      versions have it.
    - paired_dmri: registration of a dMRI whose session has an fMRI. "through-fmri" combines the rigid transform to the
      fMRI and the fMRI's transform to the template. A dMRI is registered as if it were alone if a tool has already
      registered it, or has warped the fMRI to MNI.
    - margin_mm: voxels that are farther from the template's brain are set to zero.
    - intensity: "flat-median" divides each volume by its receive field, and 2.5 times the median inside the brain
      becomes 1. "percentile" leaves the field, and the intensity at `percentile` inside the brain becomes 1; models and
      prepared folders of earlier versions have it.
    - percentile: in percent, for the intensity "percentile"; it is not used with "flat-median".

    Raises ValueError for a value that is out of range or of another type.

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
    shell: Annotated[float, Field(gt=B0_LIMIT, le=MOST_BVAL)] = SHELL
    denoise: bool = False
    realign: bool = False
    mask: Literal["given", "computed"] = "given"
    alone: Literal["affine-b0", "affine"] = "affine-b0"
    paired_dmri: Literal["through-fmri"] = "through-fmri"
    margin_mm: Annotated[float, Field(ge=0, le=100)] = 8.0
    intensity: Literal["flat-median", "percentile"] = "flat-median"
    percentile: Annotated[float, Field(gt=50, le=100)] = 99.5

    @model_serializer(mode="wrap")
    def _record(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """The settings without those that earlier versions did not record: records of old models keep their bytes."""
        return {name: value for name, value in dump(self).items() if (name, value) not in UNRECORDED.items()}

    def entries(self) -> dict[str, Any]:
        """The settings as JSON values, for a manifest or a card: `grid_shape`, `grid_affine` and `preprocessing`.

        The card is the record of a training in the model's config.json. The intensity "percentile" is left out, as in
        records of earlier versions, which had no other.
        """
        grid = {"grid_shape": list(self.grid.shape), "grid_affine": self.grid.affine.tolist()}
        return {**grid, ENTRY: self.model_dump()}

    @classmethod
    def of(cls, entries: Mapping[str, Any], path: Path) -> Preprocessing:
        """The preprocessing by the content of the manifest or card (see `entries`) in the file `path`.

        `grid_shape` and `grid_affine` are needed. Without the entry `preprocessing`, it is that of version 0.1.0, with
        the denoise and realign of the manifest's parameters. An entry without `intensity` has "percentile". Raises
        InputError, naming `path`, for a version of the steps or a setting that this version cannot rebuild.
        """
        grid = Grid(tuple(entries["grid_shape"]), np.asarray(entries["grid_affine"]))
        recorded = recorded_by(entries)
        if isinstance(recorded, Mapping):
            recorded = UNRECORDED | dict(recorded)
        if problem := _unknown(recorded):
            raise _not_rebuilt(path, entries, problem)
        try:
            return cls.model_validate({**recorded, "grid": grid})
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            problem = f"{'.'.join(map(str, first['loc']))} is {first['input']!r:.40}"
            raise _not_rebuilt(path, entries, problem) from error

    def difference(self, other: Preprocessing) -> dict[str, tuple[str, str]]:
        """The settings that differ, by name: the value here and the value in the other, in words."""
        names = [name for name in type(self).model_fields if getattr(self, name) != getattr(other, name)]
        return {name: (self._in_words(name), other._in_words(name)) for name in names}

    def option(self, name: str) -> str | None:
        """How the command `prepare` gives a setting the value that it has here, in words, such as "with --realign".

        name: that of the setting, such as "realign". None if no option of the command can give it this value.
        """
        if name == "grid":
            return f"with --grid-mm {self.grid.spacing_mm[0]:g}"
        if name in ("denoise", "realign"):
            return f"{'with' if getattr(self, name) else 'without'} --{name}"
        newest = name in ("intensity", "alone") and getattr(self, name) == type(self).model_fields[name].default
        return "anew with this version" if newest else None

    def _in_words(self, name: str) -> str:
        if name == "grid":
            return f"a grid of {self.grid.spacing_mm[0]:g} mm {self.grid.shape}"
        return f"{name} {getattr(self, name)}"

    def __str__(self) -> str:
        """A summary of the settings in one line.

        >>> print(Preprocessing(realign=True))
        steps 1, grid of 4 mm, shell 1000 s/mm^2, realigned, brain masks given or else computed, intensity flat-median
        """
        words = [f"steps {self.steps}", f"grid of {self.grid.spacing_mm[0]:g} mm", f"shell {self.shell:g} s/mm^2"]
        words += [word for word, on in (("denoised", self.denoise), ("realigned", self.realign)) if on]
        masks = "given or else computed" if self.mask == "given" else "computed"
        return ", ".join([*words, f"brain masks {masks}", f"intensity {self.intensity}"])


def recorded_by(entries: Mapping[str, Any]) -> Any:
    """The entry `preprocessing` of a manifest or card, unchecked; without it, the settings of version 0.1.0.

    Those are taken with the denoise and realign of the manifest's parameters, if it has them. The card is the record of
    a training in the model's config.json.
    """
    parameters = entries.get("parameters", {})
    known = {name: parameters[name] for name in ("denoise", "realign") if name in parameters}
    return entries.get(ENTRY, VERSION_0_1_0 | known)


def _unknown(recorded: Any) -> str | None:
    """The unknown or the missing settings of a record, in words; None if the record has exactly the known ones."""
    if not isinstance(recorded, Mapping):
        return "it is not a set of named settings"
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
