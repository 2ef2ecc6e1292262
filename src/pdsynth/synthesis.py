"""A model and a scan in, a synthesised volume in the scan's own space out, marked as synthetic wherever it is kept."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from pdsynth import __version__
from pdsynth.cohorts.cohort import Scan
from pdsynth.cohorts.names import lone_participant, other_draws, synthetic_paths
from pdsynth.cohorts.scans import digests, place_digest, single_scan
from pdsynth.data.batch import source_batch
from pdsynth.data.preprocessing import SHELL, Preprocessing
from pdsynth.data.standardise import standardise
from pdsynth.files import read_json
from pdsynth.imaging.nifti import SyntheticMark, Volume, write_synthetic
from pdsynth.imaging.spatial import Grid, resample
from pdsynth.methods import checkpoint
from pdsynth.methods.base import Method, registry
from pdsynth.resources import resolve_device
from pdsynth.types import Direction, InputError, Modality
from pdsynth.weights import model_path, weights_sha256

NO_DRAWS = "gives no draws: its prediction is a single estimate"
WITHOUT = "leave out --samples, or name a generative model such as `default`"


@dataclass(frozen=True)
class Synthesis:
    """A synthesised volume on the source scan's own grid, in fractions of the 99.5th percentile inside the brain.

    `uncertainty` is its SD in the same unit: as the method states it, calibrated where the model was, or, of a method
    that states none, the SD of two draws or more; else None. `samples` are draws of the target, each as likely as any
    other. Each file has its own mark.
    """

    volume: Volume
    uncertainty: Volume | None
    mark: SyntheticMark
    uncertainty_mark: SyntheticMark
    source: Path
    samples: list[Volume] = field(default_factory=list)

    def save(self, out: str | Path, participant_id: str = "", session_id: str = "") -> list[Path]:
        """Write the volume, its uncertainty and its draws into a folder as BIDS derivatives, marked; returns the files.

        They are named by participant and session ("sub-1", "ses-2" or ""); where none is given, by those that the
        source's name and folders say. The volume is written last: where it is, all is. Draws that an earlier, longer
        run left there are removed. Raises InputError where name and folders contradict each other.
        """
        if not participant_id:
            participant_id, session_id = lone_participant(self.source)
        direction, total = self.mark.direction, len(self.samples)
        paths = synthetic_paths(Path(out), participant_id, session_id, self.source, direction, total)
        paths.volume.parent.mkdir(parents=True, exist_ok=True)
        paths.volume.unlink(missing_ok=True)  # an old one must not lie beside the new sidecar, whatever happens
        for path in other_draws(paths.volume, paths.draws):
            path.unlink()
        written = [paths.volume]
        if self.uncertainty is not None:
            write_synthetic(self.uncertainty, paths.uncertainty, self.uncertainty_mark)
            written.append(paths.uncertainty)
        for number, (draw, path) in enumerate(zip(self.samples, paths.draws, strict=True), start=1):
            write_synthetic(draw, path, replace(self.mark, statistic={"Statistic": f"draw {number} of {total}"}))
            written.append(path)
        write_synthetic(self.volume, paths.volume, self.mark)
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
        """A folder written by `pdsynth train`, or "default" for the shipped model.

        Raises what `checkpoint.load` raises, and InputError for a preprocessing that this version cannot rebuild.
        """
        method, card = checkpoint.load(model)
        if "grid_shape" in card:  # a method that was saved by hand may have no grid
            Preprocessing.of(card, card.config)  # so that it is refused before any scan is read
        return cls(method, card, weights_sha256(model), device)

    @cached_property
    def preprocessing(self) -> Preprocessing:
        """How the model's training scans were preprocessed, and how every scan is that it is given."""
        return Preprocessing.of(self.card, getattr(self.card, "config", Path("config.json")))

    @property
    def grid(self) -> Grid:
        return self.preprocessing.grid

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
        """Synthesise the other modality of one scan, which is preprocessed as the model's training scans were.

        scan: a 4D file (its bval and bvec beside it), a 3D mean, or a `Scan`; `to` may be left out where the file name
        ends in _bold or _dwi. samples: draws to make beside the estimate, in `steps` sampling steps each. shell:
        b-value in s/mm^2 that a synthesised dMRI volume shows. Raises InputError for a file that cannot be used,
        ValueError for samples of a method that gives no draws.
        """
        if samples and not self.method.generative:
            raise ValueError(f"{self.method.name} {NO_DRAWS}. Leave out samples, or take a generative model.")
        if not isinstance(scan, Scan):
            scan = single_scan(Path(scan), Modality(to).other if to else None)
        direction = Direction.to(scan.modality.other)
        source = standardise(scan, self.preprocessing)
        bval = source.bval if scan.modality is Modality.DMRI and source.bval else shell
        batch = source_batch(source.volume, source.brain, direction, bval).to(self.device)
        with torch.inference_mode():
            estimate, sd = self.method.estimate(batch, direction)
            statistic: dict[str, Any] = {"Statistic": "standard deviation", "Calibration": self._calibrated(direction)}
            generator = torch.Generator(self.device).manual_seed(seed)
            draws = [self.method.sample(batch, direction, generator, steps) for _ in range(samples)]
            if sd is None and samples >= 2:
                sd = torch.stack(draws).std(0)
                statistic = {"Statistic": f"standard deviation of {samples} draws", "Calibration": "none"}
        mark = SyntheticMark(
            direction=direction,
            sources=[scan.path.name],
            model_sha256=self.sha256,
            seed=seed,
            version=__version__,
            source_sha256=digests(scan),
            options={
                "Samples": samples,
                "SamplingSteps": steps,
                "Shell": shell,
                "SourcePlace": place_digest(scan),
                "BrainMask": "computed" if source.mask is None else source.mask.name,
                "Preprocessing": self.preprocessing.model_dump(),
            },
        )
        to_native = source.transform.inverse().matrix

        def native(values: torch.Tensor) -> Volume:
            on_grid = Volume(values[0, 0].float().cpu().numpy(), self.grid.affine)
            return Volume(resample(on_grid, source.native, to_native), source.native.affine)

        spread = None if sd is None else native(sd)
        spread_mark = replace(mark, statistic=statistic)
        return Synthesis(native(estimate), spread, mark, spread_mark, scan.path, [native(draw) for draw in draws])

    def _calibrated(self, direction: Direction) -> str:
        """On whom the SD was calibrated, in words."""
        entry = self.card.get("calibration")
        if not entry:
            return "none"
        simulated = "SIMULATED " if entry["simulated"] else ""
        people = f"{entry['n_participants']} {simulated}participants of {entry['cohort']}"
        held = entry["coverage_90"][direction]
        return f"on {people}" + (f": 90 % intervals held {100 * held:.1f} % of voxels of others" if held else "")


def refuse_without_draws(model: str | Path) -> None:
    """Raise InputError for a model whose method gives no draws, by the name of the method alone."""
    name = str(read_json(model_path(model) / "config.json").get("method"))
    if name in registry() and not registry()[name].generative:
        raise InputError(str(model), f"is a {name} model, which {NO_DRAWS}", WITHOUT)
