"""Synthesis of a volume from a scan by a trained model, on the scan's own grid. All files are marked as synthetic."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from skimage.metrics import peak_signal_noise_ratio
from torch import Tensor

from pdsynth import __version__
from pdsynth.cohorts.cohort import Scan
from pdsynth.cohorts.names import SyntheticPaths, lone_participant, outdated_draws, synthetic_paths, transform_paths
from pdsynth.cohorts.scans import (
    digests,
    lacks_space,
    path_digest,
    refuse_other_space,
    refuse_own_modality,
    single_scan,
)
from pdsynth.data.batch import Source, source_batch
from pdsynth.data.preprocessing import SHELL, Preprocessing
from pdsynth.data.standardise import Standardised, standardise
from pdsynth.discovery import Pictured
from pdsynth.files import read_json
from pdsynth.imaging.detail import source_detail
from pdsynth.imaging.nifti import NOTES, ROUND_TRIP, SyntheticMark, Volume, sidecar_path, write_synthetic
from pdsynth.imaging.spatial import Grid, Transform, resample
from pdsynth.imaging.standard import FEAT, TEMPLATE, standard_grid, write_itk
from pdsynth.methods import checkpoint
from pdsynth.methods.base import Method, registry
from pdsynth.resources import resolve_device
from pdsynth.types import Direction, InputError, Modality, Space
from pdsynth.weights import model_path, weights_sha256

NO_DRAWS = "gives no draws: its prediction is a single estimate"
WITHOUT = "leave out --samples, or name a generative model such as `default`"
MOST_DB = 100.0  # of a round trip without any error
log = logging.getLogger(__name__)  # one message per step, for those who show the progress


@dataclass(frozen=True)
class Synthesis(Pictured):
    """A synthesised volume on the source scan's own grid, with its SD, its random samples and its provenance.

    In `volume`, 1 is 2.5 times the median inside the brain of a scan of the target modality. Detail that is finer than
    the model's grid is taken from the source, where both modalities are related (`imaging.detail.source_detail`). Then
    the volume is multiplied by the receive field (uneven sensitivity of the coil) of the source, which the scans of a
    session mostly share. If the model is of an earlier version (its `Preprocessing.intensity` is "percentile"), the
    volume has neither, and 1 is the 99.5th percentile inside the brain.

    `uncertainty` is the SD of the volume per voxel, in the same unit, with the field and without the detail. It is the
    method's SD, times the calibration factor if the model is calibrated. If the method gives no SD, it is the SD of the
    samples, or None for fewer than two samples. `samples` are independent samples of the target, on the same grid.
    `mark` and `uncertainty_mark` are the provenance records that are written with the volume and with the SD. `source`
    is the path of the source scan. `notes` name the doubts about the source, such as entries of its header, and how the
    entries were read. `round_trip_db` is a score of trust, higher for better volumes (see `round_trip_psnr`); None for
    a method that ignores its source. `transform` leads from mm of the source to mm of the MNI152 template.
    `source_mean` is the mean of the source scan (of dMRI, that of its shell) in the unit of the volume, and `brain`
    (X, Y, Z), bool, its brain mask, both on the source scan's own grid.
    """

    volume: Volume
    uncertainty: Volume | None
    mark: SyntheticMark
    uncertainty_mark: SyntheticMark
    source: Path
    samples: list[Volume] = field(default_factory=list)
    notes: tuple[str, ...] = ()
    round_trip_db: float | None = None
    transform: Transform = field(default_factory=Transform)
    source_mean: Volume | None = None
    brain: np.ndarray | None = None

    def in_space(self, space: Space | str) -> Synthesis:
        """The same synthesis in a standard space: all its images resampled once, linearly, on a grid of 2 mm.

        space: "MNI152NLin6Asym". The alignment is the affine registration of the source to the template of pdsynth,
        ICBM 2009a, unless a tool has registered it. Raises InputError for a source in another MNI152 space, and
        ValueError for another name, for "native", and for a source that is in this space already.
        """
        space = Space(space)
        grid, matrix = standard_grid(space), self.transform.matrix
        refuse_other_space(self.source, space)
        if not lacks_space(self.source, space):
            raise ValueError(f"the volumes are in {space} already. Use them as they are.")

        def moved(volume: Volume) -> Volume:
            return Volume(resample(volume, grid, matrix), grid.affine)

        marked = self._marked(
            Space=str(space),
            Resolution="voxels of 2 mm, resampled from the volume in the space of the source",
            AlignedTo=FEAT if "FLIRT to MNI" in self.transform.steps else TEMPLATE,
            NativeToStandard=matrix.tolist(),
        )
        return replace(
            marked,
            volume=moved(self.volume),
            uncertainty=None if self.uncertainty is None else moved(self.uncertainty),
            samples=[moved(draw) for draw in self.samples],
        )

    def _marked(self, **entries: Any) -> Synthesis:
        """The same synthesis with further entries in the marks, and so in the sidecars, of all its images."""
        mark, spread = (replace(m, options={**m.options, **entries}) for m in (self.mark, self.uncertainty_mark))
        return replace(self, mark=mark, uncertainty_mark=spread)

    def save(
        self,
        out: str | Path,
        participant_id: str = "",
        session_id: str = "",
        space: Space | str = Space.NATIVE,
    ) -> list[Path]:
        """Write volume, uncertainty and samples into a folder as BIDS derivatives; returns the paths of these images.

        The images, each with a JSON file, lie in `out`/participant/session/func or dwi, and are named by participant
        and session ("sub-1", "ses-2" or ""). Without a participant_id, both are taken from the source's file name and
        folders, and InputError is raised if these contradict each other. space: "MNI152NLin6Asym" writes the images
        also in this space (see `in_space`), with the transforms between it and the space of the source as text files of
        ITK; not for a source that is in this space. The volume is written last, so that its presence means that all
        files are complete. An SD and samples of an earlier synthesis that this one lacks are removed.
        """
        space = Space(space)
        if not participant_id:
            participant_id, session_id = lone_participant(self.source)
        who, direction, total = (Path(out), participant_id, session_id), self.mark.direction, len(self.samples)
        native = synthetic_paths(*who, self.source, direction, total)
        native.volume.parent.mkdir(parents=True, exist_ok=True)
        if space is Space.NATIVE:
            return self._write(native)
        refuse_other_space(self.source, space)
        marked, written = self._marked(OutputSpace=str(space)), []
        native.volume.unlink(missing_ok=True)
        if lacks_space(self.source, space):
            transforms = transform_paths(*who, direction, space)
            write_itk(self.transform.matrix, transforms.to_standard)
            write_itk(self.transform.inverse().matrix, transforms.to_native)
            written = marked.in_space(space)._write(synthetic_paths(*who, self.source, direction, total, space))
        return marked._write(native) + written

    def _write(self, paths: SyntheticPaths) -> list[Path]:
        """Write the images to these paths; returns the paths that were written."""
        total = len(self.samples)
        paths.volume.unlink(missing_ok=True)  # an old volume must never be next to a new sidecar
        for path in outdated_draws(paths.volume, paths.draws):
            path.unlink()
        written = [paths.volume]
        if self.uncertainty is None:
            for path in (paths.uncertainty, sidecar_path(paths.uncertainty)):
                path.unlink(missing_ok=True)
        else:
            write_synthetic(self.uncertainty, paths.uncertainty, self.uncertainty_mark)
            written.append(paths.uncertainty)
        for number, (draw, path) in enumerate(zip(self.samples, paths.draws, strict=True), start=1):
            write_synthetic(draw, path, replace(self.mark, statistic={"Statistic": f"draw {number} of {total}"}))
            written.append(path)
        write_synthetic(self.volume, paths.volume, self.mark)
        return written


class Model(Pictured):
    """A trained method with its card (the record of its training) and the digest of its weights.

    method: in eval mode, on `device` ("cpu" or "cuda"; "auto" takes CUDA if there is one). sha256: hexadecimal.

    >>> model = Model.load("default")  # doctest: +SKIP
    >>> model.synthesize("sub-01_task-rest_bold.nii.gz", to="dmri", samples=8, seed=0).save("out")  # doctest: +SKIP
    """

    def __init__(self, method: Method, card: dict[str, Any], sha256: str, device: str = "auto") -> None:
        self.device = resolve_device(device)
        self.method, self.card, self.sha256 = method.to(self.device).eval(), card, sha256

    @classmethod
    def load(cls, model: str | Path, device: str = "auto") -> Model:
        """Load a model from a folder that `pdsynth train` wrote; "default" is the shipped model.

        device: "cpu", "cuda", or "auto" for CUDA if there is one. Raises InputError if a file of the model is missing
        or damaged, if config.json does not describe a model of this version or does not fit the weights, and for a
        preprocessing that this version cannot rebuild. Raises ValueError for a device that this machine lacks.
        """
        method, card = checkpoint.load(model)
        if "grid_shape" in card:  # a method that was saved by hand may have no grid
            Preprocessing.of(card, card.config)  # an unknown preprocessing is refused before a scan is read
        return cls(method, card, weights_sha256(model), device)

    @cached_property
    def preprocessing(self) -> Preprocessing:
        """The preprocessing of the model's training scans, which is applied to every source scan too."""
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
        """Synthesise the other modality of one scan. The scan is preprocessed here, as the model's training scans were.

        scan: the source, a 4D file (a dMRI with its bval and bvec files next to it), a 3D mean volume, or a `Scan`. to:
        the modality to synthesise, "fmri" or "dmri", which may be left out for a `Scan`, and if the source's file name
        or a .bval file shows the modality of the source. samples: number of random samples in addition to the estimate,
        with `steps` sampling steps each; a method with a fixed number of steps ignores `steps`. seed: of the samples.
        shell: b-value in s/mm^2 of a synthesised dMRI volume, or of a dMRI source that comes without b-values. Raises
        InputError for a file that cannot be used and for the scan's own modality as `to`. Raises ValueError for an
        unknown modality, for samples of a method that gives none, and for a number of steps that its diffusion does not
        have.
        """
        if samples and not self.method.generative:
            raise ValueError(f"{self.method.name} {NO_DRAWS}. Leave out samples, or take a generative model.")
        if not isinstance(scan, Scan):
            scan = single_scan(Path(scan), Modality(to).other if to else None)
        elif to is not None:
            refuse_own_modality(scan.path, scan.modality, Modality(to), "by its record")
        direction = Direction.to(scan.modality.other)
        source = standardise(scan, self.preprocessing)
        scale = source.scales[0]
        bval = source.bval if scan.modality is Modality.DMRI and source.bval else shell
        batch = source_batch(source.volume, source.brain, direction, bval).to(self.device)
        log.info("Synthesising the volume")
        with torch.inference_mode():
            estimate, sd = self.method.estimate(batch, direction)
            statistic: dict[str, Any] = {"Statistic": "standard deviation", "Calibration": self._calibrated(direction)}
            generator = torch.Generator(self.device).manual_seed(seed)
            draws = [self.method.sample(batch, direction, generator, steps) for _ in range(samples)]
            if sd is None and samples >= 2:
                sd = torch.stack(draws).std(0)
                statistic = {"Statistic": f"standard deviation of {samples} draws", "Calibration": "none"}
            log.info("Synthesising the scan back, as a check")
            round_trip = round_trip_psnr(self.method, batch.sources[direction], estimate, direction, bval)
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
                **({"Shell": shell} if direction.target is Modality.DMRI else {"SourceShell": bval}),
                "SourcePlace": path_digest(scan),
                "BrainMask": "computed" if source.mask is None else source.mask.name,
                "Preprocessing": self.preprocessing.model_dump(),
                "Registration": list(source.transform.steps),
                **({} if scale.field is None else {"ReceiveField": "of the source", "Detail": "of the source"}),
                **({NOTES: list(source.notes)} if source.notes else {}),
                **({} if round_trip is None else {ROUND_TRIP: round(round_trip, 2)}),
            },
        )
        affine = source.transform.inverse().matrix @ self.grid.affine  # of the grid, to mm of the scan

        def on_grid(values: Tensor) -> Volume:
            return Volume(values[0, 0].float().cpu().numpy(), affine)

        log.info("Bringing the volume to the grid of the scan, with its detail")
        field = detail = None  # a model of the earlier intensity scale gives neither
        if scale.field is not None:
            field = resample(Volume(scale.field, affine), source.native)
            detail = self._detail(on_grid(estimate), source)

        def native(values: Tensor, detail: np.ndarray | None = None) -> Volume:
            """Values on the grid, on the source's grid, with the detail and with the receive field of the source."""
            volume = resample(on_grid(values), source.native)
            if detail is not None:
                volume = np.maximum(volume + detail, 0)
            return Volume(volume if field is None else volume * field, source.native.affine)

        spread = None if sd is None else native(sd)
        without_detail = {name: entry for name, entry in mark.options.items() if name != "Detail"}
        spread_mark = replace(mark, statistic=statistic, options=without_detail)
        samples_of = [native(draw, detail) for draw in draws]
        return Synthesis(
            native(estimate, detail),
            spread,
            mark,
            spread_mark,
            scan.path,
            samples_of,
            source.notes,
            round_trip,
            source.transform,
            source_mean=Volume(source.mean.data / scale.unit, source.mean.affine),
            brain=source.native_brain,
        )

    def _detail(self, estimate: Volume, source: Standardised) -> np.ndarray:
        """The detail of its source that an estimate on the grid, in mm of the scan, lacks; on the source's grid."""
        scan, brain = source.mean, source.native_brain
        smooth = Volume(resample(estimate, source.native), source.native.affine)
        detail = source_detail(smooth, scan, brain)
        if self.method.detail is None:
            return detail
        return detail + self.method.detail.added(estimate, scan, brain, Direction.to(source.scan.modality.other))

    def _calibrated(self, direction: Direction) -> str:
        """The participants on whom the SD was calibrated, and the coverage of its 90 % intervals, in words."""
        entry = self.card.get("calibration")
        if not entry:
            return "none"
        simulated = "SIMULATED " if entry["simulated"] else ""
        people = f"{entry['n_participants']} {simulated}participants of {entry['cohort']}"
        coverage = entry["coverage_90"][direction]
        return f"on {people}" + (
            f": 90 % intervals held {100 * coverage:.1f} % of voxels of others" if coverage else ""
        )


@torch.inference_mode()
def round_trip_psnr(
    method: Method, source: Source, estimate: Tensor, direction: Direction, bval: float
) -> float | None:
    """PSNR in dB of a source scan that is synthesised back from its own estimate, in the source's brain; at most 100.

    source: one whole scan; estimate (1, 1, X, Y, Z) in [0, 1]: the volume synthesised from it in `direction`. bval:
    b-value in s/mm^2 of the dMRI, whether source or target. No real target is needed, and the score is high where
    method and scan fit (Zhu et al. 2017 train by this cycle). None for a method that ignores its source.
    """
    if method.blind:
        return None
    brain = source.brain[0, 0].cpu().numpy() > 0
    back = Direction.to(direction.source)
    batch = source_batch(estimate[0, 0].float().cpu().numpy(), brain, back, bval).to(estimate.device)
    returned = method.estimate(batch, back)[0][0, 0].float().cpu().numpy()
    real = source.volume[0, 0].cpu().numpy()
    if np.array_equal(returned[brain], real[brain]):
        return MOST_DB
    return min(float(peak_signal_noise_ratio(real[brain], returned[brain], data_range=1)), MOST_DB)


def refuse_without_draws(model: str | Path) -> None:
    """Raise InputError for a model whose method gives no samples. Only the method's name is read, not the weights.

    model: folder of the model, or "default" for the shipped one. A folder that is not a model is not refused here.
    """
    name = str(read_json(model_path(model) / "config.json").get("method"))
    if name in registry() and not registry()[name].generative:
        raise InputError(str(model), f"is a {name} model, which {NO_DRAWS}", WITHOUT)
