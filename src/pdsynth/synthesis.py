"""A model and a scan in, a synthesised volume in the scan's own space out, marked as synthetic wherever it is kept."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pdsynth import __version__, manifest
from pdsynth.cohorts.cohort import Cohort, Rejection, Scan, session_name
from pdsynth.cohorts.detect import read
from pdsynth.cohorts.scans import single_scan
from pdsynth.data.batch import source_batch
from pdsynth.data.means import SHELL
from pdsynth.data.standardise import refused, standardise_scan
from pdsynth.imaging.nifti import SyntheticMark, Volume, write_synthetic
from pdsynth.imaging.spatial import Grid, resample
from pdsynth.methods import checkpoint
from pdsynth.methods.base import Method
from pdsynth.resources import resolve_device
from pdsynth.types import Direction, InputError, Modality

FOLDER = {Modality.FMRI: "func", Modality.DMRI: "dwi"}
SUFFIX = {Modality.FMRI: "boldref", Modality.DMRI: "dwiref"}
DESCRIPTION = {
    "Name": "SYNTHETIC volumes, not acquired; research only",
    "BIDSVersion": "1.9.0",
    "DatasetType": "derivative",
    "GeneratedBy": [{"Name": "pdsynth", "Version": __version__}],
    "Synthetic": True,
}


@dataclass(frozen=True)
class Synthesis:
    """A synthesised volume on the source scan's own grid, in fractions of the 99.5th percentile inside the brain.

    `uncertainty` is its SD in the same unit: of the samples where at least two were drawn, else as the method states
    it, None where it states none. Each has its own mark.
    """

    volume: Volume
    uncertainty: Volume | None
    mark: SyntheticMark
    uncertainty_mark: SyntheticMark
    source: Path

    def save(self, out: str | Path, who: str = "") -> list[Path]:
        """Write the volume and its uncertainty into a folder as BIDS derivatives, marked; returns the files.

        who: the entities of the participant and session, for a source whose own name, as ADNI's, does not begin so.
        """
        target = self.mark.direction.target
        stem = re.sub(r"_(bold|dwi|boldref|dwiref)?(\.nii(\.gz)?)$", "", self.source.name)
        stem = re.sub(r"\.nii(\.gz)?$", "", re.sub(r"_desc-[a-zA-Z0-9]+", "", stem))
        if not stem.startswith("sub-"):
            stem = who or stem
        entities = dict(part.split("-", 1) for part in stem.split("_") if "-" in part)
        folder = Path(out)
        if "sub" in entities:
            folder = folder / f"sub-{entities['sub']}" / (f"ses-{entities['ses']}" if "ses" in entities else "")
            folder = folder / FOLDER[target]
        folder.mkdir(parents=True, exist_ok=True)
        written = []
        for volume, description, mark in (
            (self.volume, "synthetic", self.mark),
            (self.uncertainty, "syntheticstd", self.uncertainty_mark),
        ):
            if volume is not None:
                path = folder / f"{stem}_desc-{description}_{SUFFIX[target]}.nii.gz"
                write_synthetic(volume, path, mark)
                written.append(path)
        return written


class Model:
    """A trained method with its card and hash, ready to synthesise.

    >>> model = Model.load("default")  # doctest: +SKIP
    >>> model.synthesize("sub-01_task-rest_bold.nii.gz", to="dmri", samples=8, seed=0).save("out")  # doctest: +SKIP
    """

    def __init__(self, method: Method, card: dict[str, Any], sha256: str, device: str = "auto") -> None:
        self.device = resolve_device(device)
        self.method, self.card, self.sha256 = method.to(self.device).eval(), card, sha256

    @classmethod
    def load(cls, model: str | Path, device: str = "auto") -> Model:
        """A folder written by `pdsynth train`, or "default" for the shipped model."""
        method, card = checkpoint.load(model)
        return cls(method, card, checkpoint.sha256(model), device)

    @property
    def grid(self) -> Grid:
        return Grid(tuple(self.card["grid_shape"]), np.asarray(self.card["grid_affine"]))

    def synthesize(
        self,
        scan: Scan | str | Path,
        to: Modality | str | None = None,
        *,
        samples: int = 0,
        steps: int = 8,
        seed: int = 0,
        shell: float = SHELL,
    ) -> Synthesis:
        """Synthesise the other modality of one scan.

        scan: a 4D file (its bval and bvec beside it), a 3D mean, or a `Scan`; `to` may be left out where the file name
        ends in _bold or _dwi. shell: b-value in s/mm^2 that a synthesised dMRI volume shows. Raises InputError for a
        file that cannot be used.
        """
        if not isinstance(scan, Scan):
            scan = single_scan(Path(scan), Modality(to).other if to else None)
        direction = Direction.to(scan.modality.other)
        source, own_shell = standardise_scan(scan, self.grid)
        bval = own_shell if scan.modality is Modality.DMRI and own_shell else shell
        batch = source_batch(source.volume, source.brain, direction, bval).to(self.device)
        with torch.inference_mode():
            estimate, sd = self.method.estimate(batch, direction)
            statistic: dict[str, Any] = {"Statistic": "standard deviation", "Calibration": self._calibrated(direction)}
            if samples >= 2 and self.method.generative:
                generator = torch.Generator(self.device).manual_seed(seed)
                draws = [self.method.sample(batch, direction, generator, steps) for _ in range(samples)]
                sd = torch.stack(draws).std(0)
                statistic = {"Statistic": f"standard deviation of {samples} samples", "Calibration": "none"}
        mark = SyntheticMark(
            direction=direction,
            sources=[scan.path.name],
            model_sha256=self.sha256,
            seed=seed,
            version=__version__,
        )
        to_native = source.transform.inverse().matrix

        def native(values: torch.Tensor) -> Volume:
            on_grid = Volume(values[0, 0].float().cpu().numpy(), self.grid.affine)
            return Volume(resample(on_grid, source.native, to_native), source.native.affine)

        spread = None if sd is None else native(sd)
        return Synthesis(native(estimate), spread, mark, replace(mark, statistic=statistic), scan.path)

    def _calibrated(self, direction: Direction) -> str:
        """On whom the SD was calibrated, in words."""
        told = self.card.get("calibration")
        if told is None:
            return "none"
        people = f"{told['n_participants']} {'SIMULATED ' if told['simulated'] else ''}participants of {told['cohort']}"
        held = told["coverage_90"][direction]
        return f"on {people}" + (f": 90 % intervals held {100 * held:.1f} % of voxels of others" if held else "")


def missing_scans(cohort: Cohort, to: Modality | None) -> Iterator[tuple[Scan, str]]:
    """The scans whose counterpart a session lacks, in the direction wanted, each with whose it is (sub-1_ses-2)."""
    for subject, session in cohort:
        for modality in session.missing:
            if modality.other in session.scans and to in (None, modality):
                yield session.scans[modality.other], session_name(subject, session)


def synthesise_path(
    model: str | Path,
    path: Path,
    out: Path,
    *,
    to: Modality | None = None,
    samples: int = 0,
    steps: int = 8,
    seed: int = 0,
    device: str = "auto",
    shell: float = SHELL,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[Path], list[Rejection]]:
    """Fill in what a BIDS folder lacks, or synthesise from one scan; returns the files and the scans refused.

    In a folder one bad scan does not stop the rest; a single bad scan raises InputError. A folder where nothing is
    missing, or where every scan is refused, raises InputError too.
    """
    loaded = Model.load(model, device)
    unread: list[Rejection] = []
    rejected: list[Rejection] = []
    options: dict[str, Any] = {"samples": samples, "steps": steps, "seed": seed, "shell": shell}
    simulated = False
    if path.is_dir():
        cohort = read(path)
        simulated = cohort.simulated
        unread = cohort.rejected
        scans = list(missing_scans(cohort, to))
        if not scans:
            raise InputError(path, "holds no session that lacks one scan and has the other", "name a scan, or --to")
    else:
        scans = [(single_scan(path, to.other if to else None), "")]
    written: list[Path] = []
    for done, (scan, who) in enumerate(scans):
        if progress:
            progress(done, len(scans))
        try:
            written += loaded.synthesize(scan, **options).save(out, who)
        except Exception as error:  # whatever one scan does, the others are synthesised
            if not path.is_dir():
                raise
            refusal = refused(scan, error)
            rejected.append(Rejection(refusal.path, refusal.problem, refusal.remedy))
    if progress:
        progress(len(scans), len(scans))
    if not written:
        first = rejected[0]
        problem = f"holds no scan that can be used; the first refusal: {first.path}: {first.reason}"
        raise InputError(path, problem, first.remedy)
    name = {"Name": f"From SIMULATED scans: {DESCRIPTION['Name']}", "Simulated": True} if simulated else {}
    manifest.write_json(out / "dataset_description.json", DESCRIPTION | name)
    return written, [*unread, *rejected]
