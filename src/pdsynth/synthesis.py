"""A model and a scan in, a synthesised volume in the scan's own space out, marked as synthetic wherever it is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from pdsynth import __version__
from pdsynth.cohorts.cohort import Cohort, Rejection, Scan
from pdsynth.cohorts.detect import read
from pdsynth.cohorts.names import lone_participant, synthetic_name, synthetic_stem
from pdsynth.cohorts.scans import single_scan
from pdsynth.data.batch import source_batch
from pdsynth.data.means import SHELL
from pdsynth.data.sessions import relative
from pdsynth.data.standardise import refused, standardise_scan
from pdsynth.files import read_json, sha256, write_json, write_table
from pdsynth.imaging.nifti import SyntheticMark, Volume, sidecar_path, write_synthetic
from pdsynth.imaging.spatial import Grid, resample
from pdsynth.methods import checkpoint
from pdsynth.methods.base import Method
from pdsynth.resources import resolve_device, stops_run
from pdsynth.types import Direction, InputError, Modality
from pdsynth.workers import Workers

FOLDER = {Modality.FMRI: "func", Modality.DMRI: "dwi"}
TABLE = "synthesised.tsv"  # a row for each scan that was found: made, skipped or refused, and why
COLUMNS = ("participant_id", "session_id", "source", "target", "status", "file", "reason", "remedy")
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
        written = [volume]
        if self.uncertainty is not None:
            write_synthetic(self.uncertainty, uncertainty, self.uncertainty_mark)
            written.append(uncertainty)
        write_synthetic(self.volume, volume, self.mark)
        return written


def synthetic_paths(
    out: Path, participant_id: str, session_id: str, source: Path, direction: Direction
) -> tuple[Path, Path]:
    """Where a synthesised volume and its uncertainty lie in a folder."""
    stem = synthetic_stem(participant_id, session_id, direction.target, source)
    folder = out / participant_id / session_id / FOLDER[direction.target]
    return (
        folder / synthetic_name(stem, "synthetic", direction.target),
        folder / synthetic_name(stem, "syntheticstd", direction.target),
    )


@dataclass(frozen=True)
class Options:
    """How volumes are made: draws of the uncertainty, sampling steps of each, seed, b-value of a synthesised dMRI."""

    samples: int = 0
    steps: int = 8
    seed: int = 0
    shell: float = SHELL

    def entries(self, model: str | Path) -> dict[str, Any]:
        """What decides the bytes of a volume besides its source, as manifest and sidecars name it."""
        return {"version": __version__, "model_sha256": checkpoint.sha256(model), **asdict(self)}


def refuse_other_options(out: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Raise InputError unless a manifest is that of volumes that were made in the same way."""
    if before.get("command") != "synthesize":
        raise InputError(out, f"was written by pdsynth {before.get('command')}", "choose another folder")
    then = before.get("parameters", {}).get("made_as", {})
    differs = [
        "another model" if name == "model_sha256" else f"{name} {then.get(name)}, not {value}"
        for name, value in now.items()
        if then.get(name) != value
    ]
    if differs:
        problem = f"holds volumes that were made with {'; '.join(differs)}"
        raise InputError(out, problem, "give the same, choose another folder, or replace it with --overwrite")


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
            source_sha256=digests(scan),
            options={"Samples": samples, "SamplingSteps": steps, "Shell": shell},
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
        if not told:
            return "none"
        people = f"{told['n_participants']} {'SIMULATED ' if told['simulated'] else ''}participants of {told['cohort']}"
        held = told["coverage_90"][direction]
        return f"on {people}" + (f": 90 % intervals held {100 * held:.1f} % of voxels of others" if held else "")


def digests(scan: Scan) -> list[str]:
    """Of the files that a volume is made from: the image and, for dMRI, its gradient tables."""
    return [sha256(path) for path in (scan.path, scan.bval, scan.bvec) if path is not None]


@dataclass(frozen=True)
class Source:
    """A scan whose counterpart is to be made, and the participant and session under which the cohort found it."""

    scan: Scan
    participant_id: str
    session_id: str

    @property
    def direction(self) -> Direction:
        return Direction.to(self.scan.modality.other)

    def paths(self, out: Path) -> tuple[Path, Path]:
        """Where its volume and uncertainty lie in a folder."""
        return synthetic_paths(out, self.participant_id, self.session_id, self.scan.path, self.direction)

    def row(self, root: Path, status: str, file: str = "", reason: str = "", remedy: str = "") -> dict[str, str]:
        """Its row of the table."""
        source, target = relative(self.scan.path, root), str(self.direction.target)
        values = (self.participant_id, self.session_id, source, target, status, file, reason, remedy)
        return dict(zip(COLUMNS, values, strict=True))


def sources(cohort: Cohort) -> Iterator[tuple[Source, bool]]:
    """Every scan of a cohort, and whether its session lacks the other one."""
    for subject, session in cohort:
        for modality, scan in session.scans.items():
            yield Source(scan, subject.participant_id, session.session_id), modality.other in session.missing


@dataclass
class _Run:
    """What a run makes, and what is known of each scan."""

    root: Path
    out: Path
    wanted: list[Source]
    rows: list[dict[str, str]] = field(default_factory=list)
    rejected: list[Rejection] = field(default_factory=list)
    simulated: bool = False


def synthesise_path(
    model: str | Path,
    path: Path,
    out: Path,
    *,
    to: Modality | None = None,
    samples: int = 0,
    steps: int = 8,
    seed: int = 0,
    shell: float = SHELL,
    device: str = "auto",
    jobs: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[Path], list[Rejection]]:
    """Fill in what a BIDS folder lacks, or synthesise from one scan; returns the files and the scans refused.

    jobs processes share the scans, with one thread each, and do not change the bytes. A volume that `out` holds
    already, of the same source, model and options, is kept: so a run that was cut goes on. In a folder one bad scan
    does not stop the rest; a full disk or lack of memory does. A single bad scan raises InputError, and so does a
    folder where nothing is missing, where every scan is refused, or where two scans would be one file.
    """
    options = Options(samples, steps, seed, shell)
    run = _of_folder(path, out, to) if path.is_dir() else _of_scan(path, out, to)
    _refuse_twins(run)
    made_as = options.entries(model)
    left = [source for source in run.wanted if not _is_made(source, out, made_as)]
    done = len(run.wanted) - len(left)
    if progress:
        progress(done, len(run.wanted))
    work = partial(_synthesise, str(model), device, options, out, path.is_dir())
    refusals: dict[Path, Rejection] = {}
    made = Workers(min(jobs, max(1, len(left)))).run(work, left, name=lambda source: source.scan.path)
    for number, (source, refusal) in enumerate(made, start=done + 1):
        if refusal is not None:
            refusals[source.scan.path] = refusal
        if progress:
            progress(number, len(run.wanted))
    written = []
    for source in run.wanted:
        refusal = refusals.get(source.scan.path)
        if refusal is not None:
            run.rejected.append(refusal)
            run.rows.append(source.row(run.root, "refused", "", refusal.reason, refusal.remedy))
            continue
        files = [file for file in source.paths(out) if file.exists()]
        written += files
        run.rows.append(source.row(run.root, "made", relative(files[0], out)))
    if not written:
        first = run.rejected[0]
        problem = f"holds no scan that can be used; the first refusal: {first.path}: {first.reason}"
        raise InputError(path, problem, first.remedy)
    _write_table(run)
    name = {"Name": f"From SIMULATED scans: {DESCRIPTION['Name']}", "Simulated": True} if run.simulated else {}
    write_json(out / "dataset_description.json", DESCRIPTION | name)
    return written, run.rejected


def _of_folder(path: Path, out: Path, to: Modality | None) -> _Run:
    cohort = read(path)
    run = _Run(path, out, [], rejected=list(cohort.rejected), simulated=cohort.simulated)
    for source, lacks in sources(cohort):
        target = source.direction.target
        if not lacks:
            run.rows.append(source.row(path, "skipped", reason=f"the session has its {target}"))
        elif to not in (None, target):
            run.rows.append(source.row(path, "skipped", reason=f"only {to} was asked for"))
        else:
            run.wanted.append(source)
    for refusal in cohort.rejected:
        row = dict.fromkeys(COLUMNS, "") | {"source": relative(refusal.path, path), "status": "refused"}
        run.rows.append(row | {"reason": refusal.reason, "remedy": refusal.remedy})
    if not run.wanted:
        raise InputError(path, "holds no session that lacks one scan and has the other", "name a scan, or --to")
    return run


def _of_scan(path: Path, out: Path, to: Modality | None) -> _Run:
    scan = single_scan(path, to.other if to else None)
    return _Run(path.parent, out, [Source(scan, *lone_participant(path))])


def _refuse_twins(run: _Run) -> None:
    """Raise InputError, before anything is made, where two scans would be one file, on whatever disk."""
    seen: dict[str, Source] = {}
    for source in run.wanted:
        other = seen.setdefault(str(source.paths(run.out)[0]).casefold(), source)
        if other is not source:
            paths = [relative(each.scan.path, run.root) for each in (other, source)]
            problem = f"holds two scans that would be one file: {paths[0]} and {paths[1]}"
            raise InputError(run.root, problem, "rename one")


def _is_made(source: Source, out: Path, made_as: dict[str, Any]) -> bool:
    """Whether a folder holds the volume of a scan, as it would be made now."""
    volume, _ = source.paths(out)
    if not volume.exists():
        return False
    said = read_json(sidecar_path(volume))
    marks = ("PdsynthVersion", "ModelSHA256", "Samples", "SamplingSteps", "Seed", "Shell")
    return [said.get(mark) for mark in marks] == list(made_as.values()) and (
        said.get("SourceSHA256") == digests(source.scan)
    )


def _synthesise(
    model: str, device: str, options: Options, out: Path, one_of_many: bool, source: Source
) -> Rejection | None:
    """Make one volume; returns why it was refused, where others are to be made still."""
    try:
        synthesis = _loaded(model, device).synthesize(source.scan, **asdict(options))
    except Exception as error:  # whatever one scan does, the others are synthesised, unless none would fare better
        if not one_of_many or stops_run(error):
            raise
        refusal = refused(source.scan, error)
        return Rejection(refusal.path, refusal.problem, refusal.remedy)
    synthesis.save(out, source.participant_id, source.session_id)
    return None


@lru_cache(maxsize=1)
def _loaded(model: str, device: str) -> Model:
    """The model, loaded once per process."""
    return Model.load(model, device)


def _write_table(run: _Run) -> None:
    """The table of this run; rows of other scans, from runs before, stay."""
    table = pd.DataFrame(run.rows, columns=list(COLUMNS))
    path = run.out / TABLE
    if path.exists():
        before = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
        key = list(COLUMNS[:4])
        known = set(map(tuple, table[key].to_numpy().tolist()))
        stays = [tuple(row) not in known for row in before[key].to_numpy().tolist()]
        table = pd.concat([before[stays], table])
    write_table(path, table.sort_values(list(COLUMNS[:4]), ignore_index=True))
