"""Synthesise the scans that a dataset lacks, with several processes, and record the outcome of each scan.

This module imports no torch: only the processes that synthesise load it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pdsynth import __version__
from pdsynth.cohorts.bidsignore import write_bidsignore
from pdsynth.cohorts.choice import ANY, Select
from pdsynth.cohorts.cohort import Rejection
from pdsynth.cohorts.detect import read
from pdsynth.cohorts.names import lone_participant, transform_paths
from pdsynth.cohorts.scans import path_digest, refuse_other_space, single_scan
from pdsynth.data.sessions import relative
from pdsynth.data.standardise import refused
from pdsynth.files import read_json, write_json
from pdsynth.freshness import Stamp, renewed, stamp
from pdsynth.imaging.nifti import NOTES, ROUND_TRIP, Sidecar, sidecar_path
from pdsynth.outcomes import AGAIN, COLUMNS, NOT_MADE, TABLE, write_outcomes
from pdsynth.resources import refuse_lost, stops_run
from pdsynth.schemas import read_object
from pdsynth.sources import NOT_MISSING, SIDECAR_FIELDS, UNRECORDED, Options, Source, sources
from pdsynth.types import InputError, Modality, Space
from pdsynth.workers import Workers

if TYPE_CHECKING:
    from pdsynth.synthesis import Model

Stamps = dict[str, list[Stamp | None]]
REPLACE = "Repair the refused scan, or synthesise its modality nevertheless with --replace-refused"
TEXTS = ("*_xfm.txt", "report.html", "methods.md", "references.bib")  # written for some outputs
DESCRIPTION = {
    "Name": "SYNTHETIC volumes, not acquired; research only",
    "BIDSVersion": "1.9.0",
    "DatasetType": "derivative",
    "GeneratedBy": [{"Name": "pdsynth", "Version": __version__}],
    "Synthetic": True,
}


@dataclass
class _Run:
    """One call of `synthesise_scans`: source scans, the rows of synthesised.tsv, and refused scans with the reason."""

    root: Path
    out: Path
    sources: list[Source]
    rows: list[dict[str, str]] = field(default_factory=list)
    rejected: list[Rejection] = field(default_factory=list)
    simulated: bool = False


class Outcome(NamedTuple):
    """The result of a synthesis: files of all volumes, refused scans, and number of scans with a volume from before."""

    files: list[Path]
    refused: list[Rejection]
    finished: int


def synthesise_path(
    model: str | Path,
    path: Path,
    out: Path,
    *,
    to: Modality | None = None,
    samples: int = Options.samples,
    steps: int = Options.steps,
    seed: int = Options.seed,
    shell: float = Options.shell,
    space: Space | str = Options.space,
    layout: str | None = None,
    device: str = "auto",
    jobs: int | Workers = 1,
    replace_refused: bool = False,
    select: Select = ANY,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[Path], list[Rejection]]:
    """Synthesise the scans that a folder lacks, or the other modality of one scan; returns files and refused scans.

    Writes into `out` volumes with their SDs, samples and JSON files, and synthesised.tsv, one row per scan. The
    returned files are all volumes, SDs and samples, also those that an earlier run made. to: the only modality to
    synthesise; for one scan, it is needed if neither name nor .bval file shows the scan's modality. samples: number of
    random samples of a generative model, each in `steps` sampling steps, from `seed`; shell: b-value in s/mm^2 of a
    synthesised dMRI. space: "MNI152NLin6Asym" writes all images in this space too, with the transforms to it and back
    (see `Synthesis.save`). progress(done, scans) is called at the start and after each scan. `jobs` processes, or the
    `Workers` of a cluster, share the scans; their number does not change the bytes. A volume in `out` of the same
    source, model and options is not made again. layout: name of the folder's layout, such as "bids", or None to detect
    it; no table of participants is read. select: rule that leaves out scans by their names. In a folder a scan that
    fails is refused and the others continue, except after a full disk or a lack of memory. A modality that was scanned
    but refused needs `replace_refused`.

    Raises InputError if `path` is one scan and it fails; if a folder lacks no scan, or every scan is refused; if two
    scans would give the same file; if `samples` are requested of a model that cannot draw samples; and if a volume in
    `out` was made from a scan in another place.
    """
    options = Options(samples=samples, steps=steps, seed=seed, shell=shell, space=Space(space))
    outcome = synthesise_scans(
        model,
        path,
        out,
        options,
        to=to,
        layout=layout,
        device=device,
        jobs=jobs,
        replace_refused=replace_refused,
        select=select,
        progress=progress,
    )
    return outcome.files, outcome.refused


def synthesise_scans(
    model: str | Path,
    path: Path,
    out: Path,
    options: Options,
    *,
    to: Modality | None = None,
    layout: str | None = None,
    device: str = "auto",
    jobs: int | Workers = 1,
    replace_refused: bool = False,
    select: Select = ANY,
    participants: Sequence[str] = (),
    progress: Callable[[int, int], None] | None = None,
    stamps: Stamps | None = None,
) -> Outcome:
    """Synthesise as `synthesise_path` does, with samples, steps, seed, shell and space as one object.

    participants: ids such as "sub-01" of those whose scans are synthesised; empty for all. Raises InputError if the
    folder lacks one of them, or if `path` is one scan. stamps: one record (size, times, inode, SHA-256) per source file
    of each volume when it was made, by the path of the volume relative to `out`; None for no record. A source file
    whose size, times and inode are equal is not read again to check its content. The stamps of this call are added to
    the dict.
    """
    if options.samples:
        from pdsynth.synthesis import refuse_without_draws

        refuse_without_draws(model)
    if path.is_dir():
        run = _of_folder(path, out, to, layout, replace_refused, select, participants)
    elif participants:
        raise InputError(path, "is one scan, of which no participant can be chosen", "leave out --participant")
    else:
        run = _of_scan(path, out, to)
    _refuse_twins(run)
    entries = options.entries(model)
    stamps = {} if stamps is None else stamps
    left = [source for source in run.sources if not _is_made(source, out, options, entries, stamps)]
    before = {source: [stamp(path, "") for path in source.scan.files] for source in left}  # the digests follow
    _refuse_other_dataset(left, out)
    finished = len(run.sources) - len(left)
    if progress:
        progress(finished, len(run.sources))
    work = partial(_synthesise, str(model), device, options, out, path if path.is_dir() else None)
    refusals: dict[Path, Rejection] = {}
    workers = Workers.of(jobs)
    if len(left) == 1 and not workers.remote:
        workers = Workers()  # a process of its own would load torch once more
    results = workers.run(work, left, name=lambda source: source.scan.path, start=partial(_loaded, str(model), device))
    for number, (source, refusal) in enumerate(results, start=finished + 1):
        if refusal is not None:
            refusals[source.scan.path] = refusal
        if progress:
            progress(number, len(run.sources))
    written = []
    for source in run.sources:
        refusal = refusals.get(source.scan.path)
        if refusal is not None:
            run.rejected.append(refusal)
            run.rows.append(source.row(run.root, "refused", reason=refusal.reason, remedy=refusal.remedy))
            continue
        images = source.images(out, options)
        written += [file for each in images for file in (each.volume, each.uncertainty, *each.draws) if file.exists()]
        volume = images[0].volume
        sidecar, file = read_object(sidecar_path(volume), Sidecar, AGAIN), relative(volume, out)
        if source in before:
            pairs = zip(before[source], sidecar["SourceSHA256"], strict=True)
            stamps[file] = [each and {**each, "sha256": digest} for each, digest in pairs]
        trust, notes = str(sidecar.get(ROUND_TRIP, "")), "; ".join(sidecar.get(NOTES, []))
        run.rows.append(source.row(run.root, "made", file, options.samples, trust, notes))
    if not written:
        first = run.rejected[0]
        problem = f"holds no scan that can be used; the first refusal: {first.path}: {first.reason}"
        raise InputError(path, problem, first.remedy)
    write_outcomes(out / TABLE, run.rows)
    write_description(out, run.simulated)
    write_bidsignore(out, "manifest.json", TABLE, "*_boldref.*", "*_dwiref.*", "group/", *TEXTS)
    return Outcome(written, run.rejected, finished)


def write_description(out: Path, simulated: bool) -> None:
    """Write dataset_description.json of synthesised scans. simulated: whether their sources are of simulated people."""
    name = {"Name": f"From SIMULATED scans: {DESCRIPTION['Name']}", "Simulated": True} if simulated else {}
    write_json(out / "dataset_description.json", DESCRIPTION | name)


def plan(
    path: Path, to: Modality | None, layout: str | None, replace: bool, select: Select, participants: Sequence[str] = ()
) -> list[tuple[str, str]]:
    """The scans that `synthesise_path` would use, each with the volume to write, as relative paths; writes nothing."""
    out = Path()
    run = _of_folder(path, out, to, layout, replace, select, participants) if path.is_dir() else _of_scan(path, out, to)
    _refuse_twins(run)
    return [(relative(source.scan.path, run.root), source.paths(out).volume.as_posix()) for source in run.sources]


def _of_folder(
    path: Path,
    out: Path,
    to: Modality | None,
    layout: str | None,
    replace_refused: bool,
    select: Select,
    participants: Sequence[str],
) -> _Run:
    cohort = read(path, layout, select=select, tables=False).only(participants)
    run = _Run(path, out, [], rejected=list(cohort.rejected), simulated=cohort.simulated)
    for source, reason in sources(cohort, replace_refused):
        target = source.direction.target
        if reason:
            status = NOT_MADE if reason.startswith(NOT_MISSING) else "skipped"
            run.rows.append(source.row(path, status, reason=reason, remedy=REPLACE if status == NOT_MADE else ""))
        elif to not in (None, target):
            run.rows.append(source.row(path, "skipped", reason=f"only {to} is synthesised (--to)"))
        else:
            run.sources.append(source)
    for refusal in cohort.rejected:
        row = dict.fromkeys(COLUMNS, "") | {"source": relative(refusal.path, path), "status": "refused"}
        run.rows.append(row | {"reason": refusal.reason, "remedy": refusal.remedy})
    if not run.sources:
        problem = "has nothing to synthesise: no session has one scan and lacks the other"
        unmade = next((row for row in run.rows if row["status"] == NOT_MADE), None)
        if unmade is not None:
            raise InputError(path, f"{problem}; of {unmade['participant_id']}, {unmade['reason']}", REPLACE)
        remedy = "name a scan, or --to"
        if run.rejected:
            first = run.rejected[0]
            problem, remedy = f"{problem}; the first refusal: {first.path}: {first.reason}", first.remedy
        raise InputError(path, problem, remedy)
    return run


def _of_scan(path: Path, out: Path, to: Modality | None) -> _Run:
    scan = single_scan(path, to.other if to else None)
    return _Run(path.parent, out, [Source(scan, *lone_participant(path))])


def _refuse_twins(run: _Run) -> None:
    """Raise InputError if two scans would give the same file; upper and lower case count as equal, as on some disks."""
    by_name: dict[str, Source] = {}
    for source in run.sources:
        other = by_name.setdefault(str(source.paths(run.out).volume).casefold(), source)
        if other is not source:
            paths = [relative(each.scan.path, run.root) for each in (other, source)]
            problem = f"holds two scans that would be one file: {paths[0]} and {paths[1]}"
            raise InputError(run.root, problem, "rename one")


def _refuse_other_dataset(sources: list[Source], out: Path) -> None:
    """Raise InputError if a volume that would be replaced was made from a scan in another folder.

    Two datasets may use the same name for two participants.
    """
    for source in sources:
        volume = source.paths(out).volume
        sidecar = read_json(sidecar_path(volume)) if volume.exists() else {}
        if sidecar and sidecar.get("SourcePlace") != path_digest(source.scan):
            problem = f"would replace {volume.name}, which was made from a scan in another place"
            raise InputError(source.scan.path, problem, "choose another folder, or replace it with --overwrite")


def _is_made(source: Source, out: Path, options: Options, entries: dict[str, Any], stamps: Stamps) -> bool:
    """Whether a folder holds the volume and all samples of a scan, from the same source files, model and options.

    entries: see `Options.entries`. The stamps of the source files are renewed, so that the next run does not read an
    unchanged file again.
    """
    images = source.images(out, options)
    volume, needed = images[0].volume, [path for each in images for path in (each.volume, *each.draws)]
    if len(images) > 1:
        needed += transform_paths(out, source.participant_id, source.session_id, source.direction, options.space)
    if not all(path.exists() for path in needed):
        return False
    unrecorded = {SIDECAR_FIELDS[name]: value for name, value in UNRECORDED.items()}
    sidecar = unrecorded | read_json(sidecar_path(volume))
    if not all(sidecar.get(field) == entries[name] for name, field in _sidecar_fields(source).items()):
        return False
    name, files = relative(volume, out), source.scan.files
    known = stamps.get(name) or [None] * len(files)
    now = [renewed(path, before) for path, before in zip(files, known, strict=False)]
    if sidecar.get("SourceSHA256") != [each and each["sha256"] for each in now]:
        return False
    stamps[name] = now
    return True


def _sidecar_fields(source: Source) -> dict[str, str]:
    """SIDECAR_FIELDS of a volume. `shell` is the b-value of a dMRI, or of a dMRI source without b-values."""
    if source.direction.target is Modality.DMRI:
        return SIDECAR_FIELDS
    others = {name: field for name, field in SIDECAR_FIELDS.items() if name != "shell"}
    return others if source.scan.bval is not None else others | {"shell": "SourceShell"}


def _synthesise(
    model: str, device: str, options: Options, out: Path, root: Path | None, source: Source
) -> Rejection | None:
    """Synthesise from one scan and save. Returns the scan's refusal; raises the error of a lone scan (root is None)."""
    try:
        refuse_other_space(source.scan.path, options.space)
        drawn = {name: value for name, value in asdict(options).items() if name != "space"}
        synthesis = _loaded(model, device).synthesize(source.scan, **drawn)
    except Exception as error:  # the error of one scan does not stop the others, unless they would fail too
        if root is None or stops_run(error):
            raise
        refuse_lost(root)
        refusal = refused(source.scan, error)
        return Rejection(refusal.path, refusal.problem, refusal.remedy)
    synthesis.save(out, source.participant_id, source.session_id, options.space)
    return None


@lru_cache(maxsize=1)
def _loaded(model: str, device: str) -> Model:
    """The model, loaded once per process and before the first scan, so that the first scan too has one thread."""
    from pdsynth.synthesis import Model

    return Model.load(model, device)
