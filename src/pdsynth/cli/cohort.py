"""Verbs on cohorts: simulate, inspect, prepare."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pdsynth import folders, manifest
from pdsynth.cli.console import DRY_RUN, LISTED, done, doubtful, error_line, print_json, refusals, table, without
from pdsynth.cli.following import after_cohort, after_prepared, to_prepare
from pdsynth.cli.options import (
    AUTO,
    HERE,
    AsJson,
    DryRun,
    GridMm,
    LayoutOption,
    Overwrite,
    Seed,
    SelectOption,
    Where,
    where_options,
)
from pdsynth.options import PrepareOptions, SimulateOptions
from pdsynth.progress import WRITING, progress, working
from pdsynth.types import NA, Available, Diagnosis, Modality, Split, counted

if TYPE_CHECKING:
    from pdsynth.cohorts.cohort import Cohort

Fraction = Annotated[float, typer.Option(min=0.0, max=0.9, help="Fraction of the participants without this scan.")]
Dataset = Annotated[
    Path,
    typer.Argument(
        help="A BIDS dataset, ADNI or OASIS-3, output of fMRIPrep or QSIPrep, or a folder with pdsynth.yaml.",
        metavar="PATH",
    ),
]
DiagnosisColumn = Annotated[
    str | None, typer.Option(help="Column of the diagnosis in participants.tsv or sessions.tsv.")
]
DiagnosisMap = Annotated[
    str | None,
    typer.Option(help="Further codes of diagnoses, such as 1=NC,2=MCI,3=AD,9=n/a (n/a: none of the groups)."),
]


@where_options
def simulate(
    out: Annotated[Path, typer.Argument(help="Folder to write.", metavar="OUT")],
    subjects: Annotated[int, typer.Option(min=1, help="Number of participants.")] = SimulateOptions.subjects,
    sites: Annotated[
        str, typer.Option(help="Styles of sites among which the participants are divided evenly.")
    ] = ",".join(SimulateOptions.sites),
    missing_fmri: Fraction = SimulateOptions.missing_fmri,
    missing_dmri: Fraction = SimulateOptions.missing_dmri,
    grid_mm: GridMm = SimulateOptions.grid_mm,
    quick: Annotated[
        bool, typer.Option("--quick", help="Simulate fewer volumes and directions.")
    ] = SimulateOptions.quick,
    randomise: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Fraction of the participants whose acquisition is random.")
    ] = SimulateOptions.randomise,
    anatomies: Annotated[
        Path | None,
        typer.Option(help="Folder of label maps with FreeSurfer's numbers (aseg), from which people are simulated."),
    ] = SimulateOptions.anatomies,
    anatomies_share: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Fraction of the participants simulated from these label maps.")
    ] = SimulateOptions.anatomies_share,
    seed: Seed = SimulateOptions.seed,
    where: Where = HERE,
    overwrite: Overwrite = False,
) -> None:
    """Write a SIMULATED cohort with fMRI and dMRI as a BIDS dataset; the ground truth is in derivatives/truth."""
    from pdsynth.cohorts.simulated.cohort import simulate_cohort

    workers = where.workers(*([anatomies] if anatomies else []))
    options = SimulateOptions(
        subjects=subjects,
        seed=seed,
        sites=tuple(sites.split(",")),
        missing_fmri=missing_fmri,
        missing_dmri=missing_dmri,
        grid_mm=grid_mm,
        quick=quick,
        randomise=randomise,
        anatomies=anatomies and anatomies.absolute(),  # workers of a cluster may start in another folder
        anatomies_share=anatomies_share,
    )
    entries = manifest.begin(
        "simulate",
        seed=seed,
        subjects=subjects,
        sites=sites,
        missing_fmri=missing_fmri,
        missing_dmri=missing_dmri,
        grid_mm=grid_mm,
        quick=quick,
        randomise=randomise,
        anatomies=anatomies,
        anatomies_share=anatomies_share if anatomies else None,
    )
    with folders.making(out, overwrite=overwrite) as work, progress("Simulating", WRITING) as update:
        simulate_cohort(work.folder, options, workers, update)
        manifest.finish(work.folder, entries)
    done(f"{counted(subjects, 'SIMULATED participant')} in {out}", *to_prepare(out))


def inspect(
    path: Dataset,
    as_json: AsJson = False,
    table1: Annotated[bool, typer.Option("--table1", help="Print a table of the groups instead.")] = False,
    files: Annotated[bool, typer.Option("--files", help="List every file: used, not needed or refused.")] = False,
    layout: LayoutOption = AUTO,
    diagnosis_column: DiagnosisColumn = None,
    diagnosis_map: DiagnosisMap = None,
    select: SelectOption = None,
) -> None:
    """Print the contents of a dataset: participants, scans, missing scans, and refused files. Writes no file."""
    cohort = _cohort(path, layout, diagnosis_column, diagnosis_map, select)
    if table1:
        _print_table1(cohort, as_json)
        if cohort.rejected:
            first = cohort.rejected[0]
            problem = (
                f"{len(cohort.rejected)} of its files and rows cannot be in this table; "
                f"the first: {first.path}: {first.reason}"
            )
            error_line(f"{problem}. `pdsynth inspect` without --table1 lists all.", kind="Warning")
        return
    contents = _contents(cohort, files)
    if as_json:
        print_json(contents)
        return
    if contents["simulated"]:
        typer.echo("This dataset is SIMULATED.")
    counts = [(name.replace("_", " "), str(contents[name])) for name in ("participants", "sessions")]
    counts += [
        (f"{name.replace('_', ' ')}: {value}", str(n))
        for name in ("scans", "brain_masks", "missing", "refused_scans", "diagnoses", "sites", "shapes")
        for value, n in contents[name].items()
    ]
    table(str(path), ("entry", "number"), counts)
    doubtful([(row["path"], row["note"]) for row in contents["doubtful"]])
    if contents["not_needed"]:
        table("Files that are not needed", ("rule", "number"), [(r, str(n)) for r, n in contents["not_needed"].items()])
    if contents["refused"]:
        table("Refused", ("reason", "number"), [(reason, str(n)) for reason, n in contents["refused"].items()])
    refusals([tuple(row.values()) for row in contents["rejected"]], "all: --json")
    _warn_incomplete(cohort)
    if files:
        table("All files", ("file", "verdict", "rule or reason"), [tuple(row.values()) for row in contents["files"]])
    done(*after_cohort(cohort))


def _warn_incomplete(cohort: Cohort) -> None:
    """Warn of sidecars and gradient tables whose image is not there: they show that a scan was acquired."""
    from pdsynth.cohorts.kinds import WITHOUT_IMAGE

    lone = [file.path for file in cohort.not_needed if file.rule == WITHOUT_IMAGE]
    if lone:
        found = f"{lone[0]} is a sidecar or gradient table without its image"
        others = f" (and {len(lone) - 1} more; `pdsynth inspect --files` lists them)" if len(lone) > 1 else ""
        error_line(f"{found}{others}. The download may be incomplete.", kind="Warning")


def _print_table1(cohort: Cohort, as_json: bool) -> None:
    from pdsynth.cohorts.demographics import table1

    content = table1(cohort)
    if as_json:
        typer.echo(content.to_json(indent=2, force_ascii=False))
        return
    rows = [(str(measure), *map(str, row)) for measure, row in zip(content.index, content.to_numpy(), strict=True)]
    table(f"{cohort.root}{' (SIMULATED)' if cohort.simulated else ''}", ("", *content.columns), rows)
    done(*after_cohort(cohort))


@where_options
def prepare(
    path: Dataset,
    out: Annotated[Path, typer.Argument(help="Folder to write.", metavar="OUT")],
    segments: Annotated[
        int,
        typer.Option(min=1, help="Parts of a scan whose means are prepared beside that of the whole scan; 1: none."),
    ] = PrepareOptions.segments,
    grid_mm: GridMm = PrepareOptions.grid_mm,
    split: Annotated[str, typer.Option(help="Fractions of train, val and test.")] = ",".join(
        map(str, PrepareOptions.split)
    ),
    seed: Seed = PrepareOptions.seed,
    where: Where = HERE,
    overwrite: Overwrite = False,
    layout: LayoutOption = AUTO,
    diagnosis_column: DiagnosisColumn = None,
    diagnosis_map: DiagnosisMap = None,
    denoise: Annotated[
        bool, typer.Option("--denoise", help="Denoise dMRI first (minutes per scan; needs dipy).")
    ] = PrepareOptions.denoise,
    realign: Annotated[
        bool, typer.Option("--realign", help="Correct head motion first (minutes per scan).")
    ] = PrepareOptions.realign,
    select: SelectOption = None,
    prune: Annotated[
        bool,
        typer.Option("--prune", help="Drop prepared scans that cannot be read now, and sessions without another scan."),
    ] = False,
    dry_run: DryRun = False,
) -> None:
    """Bring a cohort's scans onto one grid, and split the participants into training, validation and test.

    Finished sessions whose files did not change are not prepared again, and participants keep their split.
    --overwrite makes all sessions and splits again.
    """
    from pdsynth.cohorts.cohort import asks_for_action
    from pdsynth.data.prepare import plan, prepare_cohort
    from pdsynth.data.splits import FEWEST
    from pdsynth.report.quality import write_quality

    options = PrepareOptions(
        grid_mm=grid_mm,
        segments=segments,
        split=_fractions(split),
        seed=seed,
        denoise=denoise,
        realign=realign,
    )
    workers = where.workers(path)
    folders.refuse_occupied(out, True, [path])
    path, out = path.absolute(), out.absolute()  # the workers of a cluster start in another folder
    cohort = _cohort(path, layout, diagnosis_column, diagnosis_map, select)
    _warn_incomplete(cohort)
    if dry_run:
        with working("Looking for finished sessions"):
            to_make, finished = plan(cohort, out, options, overwrite)
        complete = sum(len(session.scans) == len(Modality) for _, session in cohort)
        rejected_now = counted(sum(asks_for_action(each.remedy) for each in cohort.rejected), "file")
        done(
            f"Nothing was written. To prepare: {counted(to_make, 'session')}, with {finished} finished before. "
            f"Both scans: {counted(complete, 'session')}. Refused before a scan is read: {rejected_now}",
            *without(DRY_RUN),
        )
        return
    with progress("Preparing", WRITING) as update:
        pairs = prepare_cohort(
            cohort,
            out,
            options,
            workers,
            overwrite=overwrite,
            prune=prune,
            progress=update,
            page=write_quality,
        )
    n_refused = refusals(_cells(out / "rejected.tsv", "path", "reason", "remedy"), "all: rejected.tsv")
    doubtful([row for row in _cells(out / "quality.tsv", "path", "flag") if row[1]], "; see quality.tsv")
    sizes = {name: pairs.split(name).participants for name in Split}
    both = pairs.whole_scans().table["available"] == Available.BOTH
    paired, people = int(both.sum()), pairs.whole_scans().table["participant_id"][both].nunique()
    listed = ", ".join(f"{size} {name}" for name, size in sizes.items())
    refused = f"; refused, see rejected.tsv: {counted(n_refused, 'file')}" if n_refused else ""
    done(f"{counted(paired, 'pair')} in {out} (participants with both scans: {listed}){refused}")
    if unread := pairs.manifest["kept"]:
        error_line(
            f"{counted(len(unread), 'session')} with scans that cannot be read now; the earlier preparation remains "
            f"({', '.join(unread[:LISTED])}). --prune drops these scans, and sessions without another scan.",
            kind="Warning",
        )
    done(f"Open {out / 'quality.html'} to check the registration of the scans")
    empty = [name for name, fraction in zip(Split, options.split, strict=True) if fraction and not sizes[name]]
    if people < FEWEST:
        _warn_few(people)
    elif empty:
        names = " and ".join(empty)
        error_line(f"no participant with both scans is in {names}. Increase this fraction in --split.", kind="Warning")
    done(*after_prepared(pairs, path))


def _warn_few(people: int) -> None:
    """Warn that a model cannot be measured, and name the alternative. people: the number with both scans, 0 or 1."""
    from pdsynth.adaptation.adapt import FEWEST_SINGLE
    from pdsynth.data.splits import FEWEST

    found = "only one participant has both scans" if people else "no participant has both scans"
    needs = f"evaluate needs {FEWEST} of them, and train one or more"
    single = f"adapt can also learn from single scans, {FEWEST_SINGLE} or more of each modality outside the test split"
    error_line(f"{found}: {needs}; {single}.", kind="Warning")


def _cells(path: Path, *columns: str) -> list[tuple[str, ...]]:
    """The rows of a table (TSV), as the texts of these columns."""
    import pandas as pd

    cells = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)[list(columns)]
    return [tuple(map(str, row)) for row in cells.to_numpy().tolist()]


def _cohort(
    path: Path, layout: str, diagnosis_column: str | None, diagnosis_map: str | None, select: str | None
) -> Cohort:
    from pdsynth.cohorts.choice import Select
    from pdsynth.cohorts.detect import read

    chosen = None if layout == AUTO else layout
    codes = _diagnoses(diagnosis_map) if diagnosis_map else None
    with working(f"Reading {path}"):
        return read(path, chosen, diagnosis_column, codes, Select.parse(select))


def _diagnoses(text: str) -> dict[str, Diagnosis | None]:
    """The diagnosis of each code, from a text such as code=NC,code=MCI; None for n/a.

    >>> _diagnoses("1=NC,9=n/a")
    {'1': <Diagnosis.NC: 'NC'>, '9': None}
    """
    try:
        parts = [[word.strip() for word in part.rsplit("=", 1)] for part in text.split(",")]
        return {code: None if name.lower() == NA else Diagnosis(name.upper()) for code, name in parts}
    except ValueError:
        raise ValueError(f"{text!r} is not a map of diagnoses. Write it as 1=NC,2=MCI,3=AD,9=n/a.") from None


def _fractions(text: str) -> tuple[float, float, float]:
    """Three fractions that sum to 1, from a text with commas.

    >>> _fractions("0.8,0.1,0.1")
    (0.8, 0.1, 0.1)
    """
    from pdsynth.data.splits import check_fractions

    try:
        train, val, test = (float(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"{text!r} is not a split. Write three fractions such as 0.8,0.1,0.1.") from None
    check_fractions((train, val, test))
    return train, val, test


def _contents(cohort: Cohort, files: bool) -> dict[str, Any]:
    from pdsynth.cohorts.cohort import asks_for_action, by_reason
    from pdsynth.data.means import scan_notes
    from pdsynth.imaging.nifti import read_header

    visits = list(cohort)
    scans = [(session.scans[m], m) for _, session in visits for m in Modality if m in session.scans]
    headers = [read_header(scan.path) for scan, _ in scans]
    shapes = Counter(f"{m} {'x'.join(map(str, h.shape))}" for (_, m), h in zip(scans, headers, strict=True))
    notes = [(s.path, "; ".join(scan_notes(s, h))) for (s, _), h in zip(scans, headers, strict=True)]
    contents = {
        "path": str(cohort.root),
        "simulated": cohort.simulated,
        "participants": len(cohort.subjects),
        "sessions": len(visits),
        "scans": dict(Counter(m.value for _, m in scans)),
        "brain_masks": dict(Counter(m.value for scan, m in scans if scan.mask is not None)),
        "missing": dict(Counter(m.value for _, session in visits for m in session.missing)),
        "refused_scans": dict(Counter(m.value for _, session in visits for m in session.refused)),
        "diagnoses": dict(Counter(str(session.diagnosis or "unknown") for _, session in visits)),
        "sites": dict(Counter(subject.site or "unknown" for subject in cohort.subjects)),
        "shapes": dict(shapes.most_common()),
        "doubtful": [{"path": str(path), "note": note} for path, note in notes if note],
        "refused": by_reason(r.reason for r in cohort.rejected if asks_for_action(r.remedy)),
        "rejected": [{"path": str(r.path), "reason": r.reason, "remedy": r.remedy} for r in cohort.rejected],
        "used": len(cohort.used),
        "not_needed": dict(Counter(file.rule for file in cohort.not_needed).most_common()),
    }
    return contents | ({"files": _all_files(cohort)} if files else {})


def _all_files(cohort: Cohort) -> list[dict[str, str]]:
    """The verdict on every file, sorted by path: dicts of path, verdict, and the rule, reason or note."""
    from pdsynth.cohorts.cohort import asks_for_action

    verdicts = [(str(path), "used", "") for path in cohort.used]
    verdicts += [(str(file.path), "not needed", file.rule) for file in cohort.not_needed]
    for each in cohort.rejected:
        verdicts.append((str(each.path), "refused" if asks_for_action(each.remedy) else "used", each.reason))
    return [{"path": path, "verdict": verdict, "rule": rule} for path, verdict, rule in sorted(verdicts)]
