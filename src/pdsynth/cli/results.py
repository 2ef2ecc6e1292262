"""Verbs on results: demo, evaluate, benchmark, doctor."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pdsynth import folders, manifest
from pdsynth.cli.console import done, error_line, print_json, table
from pdsynth.cli.following import DATASET, HALVES, to_synthesise
from pdsynth.cli.options import (
    HERE,
    JOBS,
    ONE,
    AsJson,
    Budget,
    Device,
    DeviceOption,
    Jobs,
    Models,
    Out,
    Overwrite,
    PreparedFolder,
    Seed,
    Where,
    scoring_options,
    where_options,
)
from pdsynth.options import EvaluateOptions
from pdsynth.progress import progress, working
from pdsynth.resources import resolve_device, seconds
from pdsynth.types import Available, Direction, InputError, Split, counted

if TYPE_CHECKING:
    from pdsynth import api
    from pdsynth.data.pairs import Pairs
    from pdsynth.workers import Workers


def demo(
    out: Out = Path("demo"),
    train: Annotated[bool, typer.Option("--train", help="Train a model instead of the shipped one.")] = False,
    seed: Seed = 0,
    jobs: Jobs = JOBS,
    device: DeviceOption = Device.auto,
    overwrite: Overwrite = False,
) -> None:
    """Run all steps, from a small SIMULATED cohort with missing scans to a report."""
    folders.refuse_occupied(out, overwrite)
    chosen = resolve_device(device.value)
    typer.echo("A SIMULATED cohort with missing scans: simulate, prepare, synthesise, evaluate, report.")
    from pdsynth import api
    from pdsynth.demo import run

    if not train:
        api.load("default", chosen)  # a model that cannot be loaded must be refused before a folder is removed
    with folders.making(out, overwrite=overwrite) as work:
        run(work.folder, train=train, seed=seed, jobs=jobs, device=chosen)
    print_scores(out)
    done(f"Open {out / 'report.html'} in a browser", *to_synthesise("default", DATASET))


@where_options
@scoring_options
def evaluate(
    prepared: PreparedFolder,
    model: Models,
    out: Out,
    options: EvaluateOptions,
    where: Where = HERE,
    overwrite: Overwrite = False,
) -> None:
    """Score models and audit their use of the source, on people with both scans; writes metrics.json and tables.

    The scores are those of the participants of one split, --split. The first model is the one under test, which is
    compared with the others.
    """
    workers = where.workers(prepared, gpu=where.slurm and resolve_device(options.device) == Device.cuda)
    with scored("evaluate", prepared, model, out, options=options, jobs=workers, overwrite=overwrite):
        pass
    print_scores(out)
    done(f"The metrics are in {out / 'metrics.json'}", "report", out)


@dataclass(frozen=True)
class Scored:
    """A results folder that is being written, as the context manager `scored` yields it.

    folder: its temporary path. models: the scored models by their names in the scores, the one under test first; fitted
    controls are not among them. pairs: all rows of the prepared folder, of every split. notes: sentences for manifest
    and report, to which the block may add.
    """

    folder: Path
    models: dict[str, api.Model]
    pairs: Pairs
    notes: list[str]


@contextmanager
def scored(
    command: str,
    prepared: Path,
    model: list[str],
    out: Path,
    *,
    options: EvaluateOptions,
    jobs: int | Workers,
    overwrite: bool,
) -> Iterator[Scored]:
    """Score models on a prepared folder; yields a `Scored`, to whose results folder the block may add files.

    command: name for the manifest. prepared: the prepared folder. model: folders of the models, or "default" for the
    shipped one; the first is under test. options: split, samples, controls and so on of `pdsynth evaluate`. jobs:
    number of processes that share the scans, or the workers of a cluster. The results folder becomes `out` if the block
    ends without an error. overwrite: whether an existing folder of pdsynth is replaced. Raises InputError if the split
    has no pair, if a model is named twice, if a model was calibrated on a scan to score, or trained on one outside the
    training split (`--split train` is permitted, and the report states it), if it was trained on scans of another
    preprocessing, and if `out` cannot be written.
    """
    from pdsynth.workers import Workers, load_ahead

    workers = Workers.of(jobs)
    if workers.remote:
        prepared = prepared.absolute()  # the workers of a cluster may start in another folder
    elif workers.several:
        load_ahead("pdsynth.evaluation.evaluate")
    from pdsynth import api
    from pdsynth.atlas import read_atlas
    from pdsynth.data.pairs import Pairs
    from pdsynth.evaluation.provenance import provenance
    from pdsynth.results.entries import label

    pairs = Pairs.open(prepared)
    chosen = pairs.split(options.split)
    _refuse_too_few(pairs, options)
    weights = [api.model_folder(name) for name in model]
    if len({each.resolve() for each in weights}) < len(weights):
        raise InputError(", ".join(model), "names a model twice", "name each --model once")
    inputs = [prepared, *weights, *([options.atlas] if options.atlas else [])]
    folders.refuse_occupied(out, overwrite, inputs)
    models: dict[str, api.Model] = {}
    for name in model:
        loaded = api.load(name, options.device)
        recipe = str(loaded.card.get("recipe", loaded.method.name))
        named = label(name, recipe)
        models[named if named not in models else f"{name} ({recipe})"] = loaded
    api.refuse_other_preprocessing(models, chosen)
    api.refuse_leak(models, chosen)
    regions = read_atlas(options.atlas, pairs.grid) if options.atlas else None
    with (
        folders.making(out, overwrite=overwrite, inputs=inputs) as work,
        manifest.recorded(
            work.folder,
            command,
            inputs=inputs,
            seed=options.seed,
            split=options.split,
            samples=options.samples,
            atlas=options.atlas,
        ) as entries,
    ):
        entries |= provenance(models, pairs)
        entries["notes"] = [_origin(name, each) for name, each in models.items()]
        entries["notes"] += [_unchecked(name) for name in api.unchecked(models, chosen)]
        methods: dict[str, api.Model | api.Method] = {**models}
        if options.controls:
            entries["notes"].append(
                "The simple methods for comparison that need a fit (controls) were fitted to the training split of "
                "this cohort."
            )
            with progress("Fitting controls") as update:
                fitted = api.fit_controls(pairs.train, seed=options.seed, progress=update)
            methods |= {name: method for name, method in fitted.items() if name not in methods}
        api.evaluate(
            methods,
            chosen,
            work.folder,
            seed=options.seed,
            samples=options.samples,
            steps=options.steps,
            atlas=regions,
            jobs=workers,
        )
        yield Scored(work.folder, models, pairs, entries["notes"])


def _refuse_too_few(pairs: Pairs, options: EvaluateOptions) -> None:
    """Raise InputError if the split has too few participants with both scans, or the controls no training pair.

    The remedy depends on the number of all participants with both scans, so that it does not lead to the next error.
    """
    from pdsynth.data.splits import FEWEST

    both = pairs.whole_scans()
    both = both.where(both.table["available"] == Available.BOTH)
    everyone, scored, fitted = (
        each.participants for each in (both, both.split(options.split), both.split(Split.TRAIN))
    )
    split, people = repr(options.split.value), counted(everyone, "participant")
    all_of_them = "prepare a new folder with --split 0,0,1, and evaluate with --no-controls"
    if everyone < FEWEST:
        problem = f"has {people} with both scans, and a model is scored by {FEWEST} or more"
        remedy = "add participants with both scans, or synthesise without scores: `pdsynth synthesize` needs none"
    elif scored < FEWEST:
        problem = f"has {people} with both scans, but {scored} in the split {split}, where {FEWEST} are needed"
        remedy = all_of_them if everyone < 2 * FEWEST else f"prepare a new folder with --split {HALVES}"
    elif options.controls and not fitted:
        problem = "has no participant with both scans in the training split, on whom the controls are fitted"
        remedy = "evaluate with --no-controls"
    else:
        return
    raise InputError(pairs.root, problem, remedy)


@where_options
def benchmark(
    prepared: PreparedFolder,
    out: Annotated[Path, typer.Argument(help="Folder to write; an unfinished one is resumed.", metavar="OUT")],
    recipes: Annotated[
        str, typer.Option(help="Recipes with commas, such as pds,unet,pds-paper:small; or all, the rows of the tables.")
    ] = "all",
    budget: Budget = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Number of steps, instead of a budget.")] = None,
    seed: Seed = 0,
    where: Where = ONE,
    device: DeviceOption = Device.auto,
) -> None:
    """Train and score recipes on an equal budget; writes the tables and figures of the paper, with controls.

    The budget of each recipe is --budget or --steps, one of which is needed. Scores are those of the test participants.
    """
    limit = seconds(budget) if budget else None
    chosen = resolve_device(device.value)
    workers = where.workers(prepared, gpu=chosen == Device.cuda)
    from pdsynth.benchmark import benchmark as run

    entries = None if recipes == "all" else [entry.strip() for entry in recipes.split(",")]
    with progress("Recipes") as update:
        page = run(
            prepared.absolute(),
            out,
            entries,
            budget=limit,
            steps=steps,
            seed=seed,
            jobs=workers,
            device=chosen,
            progress=update,
        )
    done(f"The tables and figures are in {page}", "diagnose", out)


def doctor(
    device: DeviceOption = Device.auto,
    privacy: Annotated[
        Path | None,
        typer.Option("--privacy", metavar="DIR", help="Search this folder instead, before you share it."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check the installation: device, template, data range, schedule ends, one-batch overfit, shipped model.

    The exit status is 1 if a check fails. With --privacy, a folder is searched for paths, names of this machine and
    user, e-mail addresses and DICOM identifiers, with status 2 if something is found. Ids of participants, names of
    files, free text and images are not searched.
    """
    if privacy is not None:
        from pdsynth.privacy import files, findings

        leaks = findings(privacy)
        if as_json:
            print_json([asdict(found) for found in leaks])
            raise typer.Exit(2 if leaks else 0)
        if leaks:
            table("Identifiers and paths", ("file", "kind", "text"), [(f.file, f.kind, f.text) for f in leaks])
            problem = f"holds {counted(len(leaks), 'finding')} of identifiers or paths of a machine"
            raise InputError(privacy, problem, "remove them from the files before you share the folder")
        done(
            "No path, no name of this machine or user, no e-mail address and no DICOM identifier was found in "
            f"{counted(len(files(privacy)), 'file')} of {privacy}. "
            "Ids of participants, names of files, free text and images were not searched"
        )
        return
    from pdsynth.cli.checks import run_checks

    with working("Checking"):
        found = list(run_checks(device.value))
    if as_json:
        print_json([asdict(check) for check in found])
        raise typer.Exit(0 if all(check.ok for check in found) else 1)
    table("Checks", ("check", "", "finding"), [(c.name, "ok" if c.ok else "FAILED", c.finding) for c in found])
    failed = [c for c in found if not c.ok]
    if failed:
        for check in failed:
            error_line(check.finding, kind=check.name)
        raise typer.Exit(1)
    done("All checks passed", "demo")


def _origin(name: str, model: api.Model) -> str:
    """A sentence on the training participants of a model, from its card."""
    kind = "SIMULATED participants" if model.card.get("simulated") else "participants"
    number, cohort = model.card.get("n_participants", "an unknown number of"), model.card.get("cohort", "?")
    return f"{name} was trained on {number} {kind} (cohort {cohort})."


def _unchecked(name: str) -> str:
    return f"It is unknown whether {name} was trained on any of these participants: it does not record its scans."


def print_scores(out: Path) -> None:
    """Print the kind of every method and its PSNR in the brain (dB, mean over participants), from metrics.json.

    out: the results folder. A cell is empty if a method was not scored in a direction. Raises InputError if
    metrics.json or metrics.tsv is missing.
    """
    from pdsynth.evaluation.metrics import PRIMARY
    from pdsynth.report.words import GROUP, group_of
    from pdsynth.results.folder import Results

    results = Results.read(out)
    metrics, directions = results.metrics, tuple(Direction)
    rows, groups = [], {name: group_of(name, results.tested) for name in results.methods}
    for name, scores in results.methods.items():
        cells = [f"{scores[d][PRIMARY]['mean']:.2f} dB" if d in scores else "" for d in directions]
        rows.append((name, GROUP[groups[name]], *cells))
    simulated = "SIMULATED " if metrics["simulated"] else ""
    people = counted(metrics["n_participants"], f"{simulated}participant")
    table(f"PSNR in the brain, {people}", ("method", "kind", *directions), rows)
    if "control" not in groups.values():
        done("No control was scored, so these numbers do not show whether the model is better than a simple method")
