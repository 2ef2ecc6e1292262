"""A model and a scan in, a synthesised volume in the scan's own space out, marked as synthetic wherever it is kept."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pdsynth import __version__
from pdsynth.cohorts.cohort import Scan
from pdsynth.cohorts.names import lone_participant, synthetic_paths
from pdsynth.cohorts.scans import digests, place_digest, single_scan
from pdsynth.data.batch import source_batch
from pdsynth.data.means import SHELL
from pdsynth.data.standardise import standardise_scan
from pdsynth.imaging.nifti import SyntheticMark, Volume, write_synthetic
from pdsynth.imaging.spatial import Grid, resample
from pdsynth.methods import checkpoint
from pdsynth.methods.base import Method
from pdsynth.resources import resolve_device
from pdsynth.types import Direction, Modality
from pdsynth.weights import weights_sha256


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

    def save(self, out: str | Path, participant_id: str = "", session_id: str = "") -> list[Path]:
        """Write the volume and its uncertainty into a folder as BIDS derivatives, marked; returns the files.

        They are named by participant and session ("sub-1", "ses-2" or ""); where none is given, by those that the
        source's name and folders say. The volume is written last: where it is, all is. Raises InputError where these
        contradict each other.
        """
        if not participant_id:
            participant_id, session_id = lone_participant(self.source)
        volume, uncertainty = synthetic_paths(Path(out), participant_id, session_id, self.source, self.mark.direction)
        volume.parent.mkdir(parents=True, exist_ok=True)
        volume.unlink(missing_ok=True)  # an old one is not to stand beside the new sidecar, whatever happens
        written = [volume]
        if self.uncertainty is not None:
            write_synthetic(self.uncertainty, uncertainty, self.uncertainty_mark)
            written.append(uncertainty)
        write_synthetic(self.volume, volume, self.mark)
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
        return cls(method, card, weights_sha256(model), device)

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
            source_sha256=digests(scan),
            options={"Samples": samples, "SamplingSteps": steps, "Shell": shell, "SourcePlace": place_digest(scan)},
        )
        to_native = source.transform.inverse().matrix

        def native(values: torch.Tensor) -> Volume:
            on_grid = Volume(values[0, 0].float().cpu().numpy(), self.grid.affine)
            return Volume(resample(on_grid, source.native, to_native), source.native.affine)

        spread = None if sd is None else native(sd)
        return Synthesis(native(estimate), spread, mark, replace(mark, statistic=statistic), scan.path)

    def _calibrated(self, direction: Direction) -> str:
        """On whom the SD was calibrated, in words."""
        entry = self.card.get("calibration")
        if not entry:
            return "none"
        simulated = "SIMULATED " if entry["simulated"] else ""
        people = f"{entry['n_participants']} {simulated}participants of {entry['cohort']}"
        held = entry["coverage_90"][direction]
        return f"on {people}" + (f": 90 % intervals held {100 * held:.1f} % of voxels of others" if held else "")
