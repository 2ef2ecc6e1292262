"""Fill in the scans that a dataset lacks: which, under which names, by how many processes, and what became of each.

Nothing here needs torch at import: the processes that synthesise load it, and the one that leads them need not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from pdsynth import __version__
from pdsynth.cohorts.cohort import Cohort, Rejection, Scan
from pdsynth.cohorts.detect import read
from pdsynth.cohorts.names import SyntheticPaths, lone_participant, synthetic_paths
from pdsynth.cohorts.scans import digests, place_digest, single_scan
from pdsynth.data.preprocessing import SHELL, recorded_by
from pdsynth.data.sessions import relative
from pdsynth.data.standardise import refused
from pdsynth.files import read_json, write_json, write_table
from pdsynth.imaging.nifti import sidecar_path
from pdsynth.resources import refuse_lost, stops_run
from pdsynth.types import Direction, InputError, Modality
from pdsynth.weights import model_path, weights_sha256
from pdsynth.workers import Workers

if TYPE_CHECKING:
    from pdsynth.synthesis import Model

TABLE = "synthesised.tsv"  # a row for each scan that was found: made, skipped or refused, and why
COLUMNS = ("participant_id", "session_id", "source", "target", "status", "file", "draws", "reason", "remedy")
SAID = {  # in the sidecar of a volume, by the names of `Options.entries`
    "version": "PdsynthVersion",
    "model_sha256": "ModelSHA256",
    "preprocessing": "Preprocessing",
    "samples": "Samples",
    "steps": "SamplingSteps",
    "seed": "Seed",
    "shell": "Shell",
}
OTHER = {"model_sha256": "another model", "preprocessing": "another preprocessing"}
DESCRIPTION = {
    "Name": "SYNTHETIC volumes, not acquired; research only",
    "BIDSVersion": "1.9.0",
    "DatasetType": "derivative",
    "GeneratedBy": [{"Name": "pdsynth", "Version": __version__}],
    "Synthetic": True,
}


@dataclass(frozen=True)
class Options:
    """How volumes are made: number of draws, sampling steps of each, seed, b-value of a synthesised dMRI."""

    samples: int = 0
    steps: int = 8
    seed: int = 0
    shell: float = SHELL

    def entries(self, model: str | Path) -> dict[str, Any]:
        """What decides the bytes of a volume besides its source, as manifest and sidecars name it."""
        card = read_json(model_path(model) / "config.json").get("card")
        preprocessing = recorded_by(card) if isinstance(card, dict) else None  # who loads the model refuses it
        identity = {"model_sha256": weights_sha256(model), "preprocessing": preprocessing}
        return {"version": __version__, **identity, **asdict(self)}


def refuse_other_options(out: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Raise InputError unless a manifest is that of volumes that were made in the same way."""
    if before.get("command") != "synthesize":
        raise InputError(out, f"was written by pdsynth {before.get('command')}", "choose another folder")
    then = before.get("parameters", {}).get("made_as", {})
    differs = [
        OTHER.get(name) or f"{name} {then.get(name)}, not {value}"
        for name, value in now.items()
        if then.get(name) != value
    ]
    if differs:
        problem = f"holds volumes that were made with {'; '.join(differs)}"
        raise InputError(out, problem, "give the same, choose another folder, or replace it with --overwrite")


@dataclass(frozen=True)
class Source:
    """A scan whose counterpart is to be made, and the participant and session under which the cohort found it."""

    scan: Scan
    participant_id: str
    session_id: str

    @property
    def direction(self) -> Direction:
        return Direction.to(self.scan.modality.other)

    def paths(self, out: Path, draws: int = 0) -> SyntheticPaths:
        """Where its volume, uncertainty and draws lie in a folder."""
        return synthetic_paths(out, self.participant_id, self.session_id, self.scan.path, self.direction, draws)

    def row(
        self, root: Path, status: str, file: str = "", draws: int = 0, reason: str = "", remedy: str = ""
    ) -> dict[str, str]:
        """Its row of the table."""
        source, target, drawn = relative(self.scan.path, root), str(self.direction.target), str(draws) if file else ""
        values = (self.participant_id, self.session_id, source, target, status, file, drawn, reason, remedy)
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
    folder where nothing is missing, where every scan is refused, or where two scans would be one file, and a model that
    gives no draws where samples are asked for.
    """
    if samples:
        from pdsynth.synthesis import refuse_without_draws

        refuse_without_draws(model)
    options = Options(samples, steps, seed, shell)
    run = _of_folder(path, out, to) if path.is_dir() else _of_scan(path, out, to)
    _refuse_twins(run)
    made_as = options.entries(model)
    left = [source for source in run.wanted if not _is_made(source, out, made_as)]
    _refuse_of_others(left, out)
    done = len(run.wanted) - len(left)
    if progress:
        progress(done, len(run.wanted))
    work = partial(_synthesise, str(model), device, options, out, path if path.is_dir() else None)
    refusals: dict[Path, Rejection] = {}
    made = Workers(min(jobs, max(1, len(left)))).run(
        work, left, name=lambda source: source.scan.path, start=partial(_loaded, str(model), device)
    )
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
            run.rows.append(source.row(run.root, "refused", reason=refusal.reason, remedy=refusal.remedy))
            continue
        volume, uncertainty, draws = source.paths(out, samples)
        written += [file for file in (volume, uncertainty, *draws) if file.exists()]
        run.rows.append(source.row(run.root, "made", relative(volume, out), samples))
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
        other = seen.setdefault(str(source.paths(run.out).volume).casefold(), source)
        if other is not source:
            paths = [relative(each.scan.path, run.root) for each in (other, source)]
            problem = f"holds two scans that would be one file: {paths[0]} and {paths[1]}"
            raise InputError(run.root, problem, "rename one")


def _refuse_of_others(sources: list[Source], out: Path) -> None:
    """Raise InputError where a volume that would be replaced was made from a scan that lies elsewhere.

    Two datasets may have participants of one name, who are two people.
    """
    for source in sources:
        volume = source.paths(out).volume
        said = read_json(sidecar_path(volume)) if volume.exists() else {}
        if said and said.get("SourcePlace") != place_digest(source.scan):
            problem = f"would replace {volume.name}, which was made from a scan in another place"
            raise InputError(source.scan.path, problem, "choose another folder, or replace it with --overwrite")


def _is_made(source: Source, out: Path, made_as: dict[str, Any]) -> bool:
    """Whether a folder holds the volume of a scan and all its draws, as they would be made now."""
    volume, _, draws = source.paths(out, made_as["samples"])
    if not all(path.exists() for path in (volume, *draws)):
        return False
    said = read_json(sidecar_path(volume))
    alike = all(said.get(SAID[name]) == value for name, value in made_as.items())
    return alike and said.get("SourceSHA256") == digests(source.scan)


def _synthesise(
    model: str, device: str, options: Options, out: Path, root: Path | None, source: Source
) -> Rejection | None:
    """Make one volume; returns why it was refused, where others of the dataset at root are to be made still."""
    try:
        synthesis = _loaded(model, device).synthesize(source.scan, **asdict(options))
    except Exception as error:  # whatever one scan does, the others are synthesised, unless none would fare better
        if root is None or stops_run(error):
            raise
        refuse_lost(root)
        refusal = refused(source.scan, error)
        return Rejection(refusal.path, refusal.problem, refusal.remedy)
    synthesis.save(out, source.participant_id, source.session_id)
    return None


@lru_cache(maxsize=1)
def _loaded(model: str, device: str) -> Model:
    """The model, loaded once per process: before the first scan, so that torch has one thread for this one too."""
    from pdsynth.synthesis import Model

    return Model.load(model, device)


def _write_table(run: _Run) -> None:
    """The table of this run; rows of other scans, from runs before, stay."""
    table = pd.DataFrame(run.rows, columns=list(COLUMNS))
    path = run.out / TABLE
    if path.exists():
        before = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False).reindex(columns=COLUMNS, fill_value="")
        key = list(COLUMNS[:4])
        known = set(map(tuple, table[key].to_numpy().tolist()))
        files = set(filter(None, table["file"]))
        rows = before[[*key, "file"]].to_numpy().tolist()
        stays = [tuple(row[:-1]) not in known and row[-1] not in files for row in rows]
        table = pd.concat([before[stays], table])
    write_table(path, table.sort_values(list(COLUMNS[:4]), ignore_index=True))
