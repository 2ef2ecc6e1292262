"""Verbs on results: demo, evaluate, report, doctor."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pdsynth import folders, manifest
from pdsynth.cli.console import done, error_line, progress, table
from pdsynth.cli.options import JOBS, Budget, Device, DeviceOption, Jobs, Out, Overwrite, PreparedFolder, Seed
from pdsynth.resources import resolve_device, seconds
from pdsynth.types import InputError

if TYPE_CHECKING:
    from pdsynth import api
    from pdsynth.data.pairs import Pairs


def demo(
    out: Out = Path("demo"),
    train: Annotated[bool, typer.Option("--train", help="Train a model instead of taking the shipped one.")] = False,
    seed: Seed = 0,
    jobs: Jobs = JOBS,
    device: DeviceOption = Device.auto,
    overwrite: Overwrite = False,
) -> None:
    """Run the whole main job on a small SIMULATED cohort with missing scans; ends with a report."""
    folders.refuse_occupied(out, overwrite)
    chosen = resolve_device(device.value)
    typer.echo("A SIMULATED cohort with missing scans: simulate, prepare, synthesise, evaluate, report.")
    from pdsynth import api
    from pdsynth.demo import run

    if not train:
        api.load("default", chosen)  # what is wrong with it is said before anything is removed
    with folders.making(out, overwrite=overwrite) as work:
        run(work.folder, train=train, seed=seed, jobs=jobs, device=chosen)
    print_scores(out)
    done(f"Open {out / 'report.html'} in a browser", "synthesize", "default", "your-bids-folder", "synthesised")


Split = Annotated[str, typer.Option("--split", help="The split to score: train, val or test.")]
Models = Annotated[list[str], typer.Option("--model", help="A model to score; may be repeated.", metavar="MODEL")]
Controls = Annotated[
    bool, typer.Option("--controls/--no-controls", help="Fit the quick controls on the training split, beside it.")
]
Samples = Annotated[int, typer.Option("--samples", min=0, help="Draws a scan for the uncertainty audit; 3 or more.")]
Steps = Annotated[int, typer.Option("--steps", min=1, help="Sampling steps of each draw.")]
AtlasFile = Annotated[
    Path | None, typer.Option("--atlas", help="A label image in MNI space, instead of the paper's regions.")
]


def evaluate(
    prepared: PreparedFolder,
    model: Models,
    out: Out,
    split: Split = "test",
    controls: Controls = True,
    samples: Samples = 0,  # the stated SD is audited, which is what `calibrate` scales
    steps: Steps = 8,
    atlas: AtlasFile = None,
    seed: Seed = 0,
    device: DeviceOption = Device.auto,
    overwrite: Overwrite = False,
) -> None:
    """Metrics and audit of conditioning on paired participants; writes metrics.json, metrics.tsv and patterns.tsv."""
    with scored("evaluate", prepared, model, out, split, controls, samples, steps, atlas, seed, device, overwrite):
        pass
    print_scores(out)
    done(f"The metrics are in {out / 'metrics.json'}", "report", out)


@dataclass(frozen=True)
class Scored:
    """A results folder in the making: the models by the names under which they were scored, and all pairs.

    What is added to `notes` goes into the manifest, and so into the report.
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
    split: str,
    controls: bool,
    samples: int,
    steps: int,
    atlas: Path | None,
    seed: int,
    device: Device,
    overwrite: bool,
) -> Iterator[Scored]:
    """Evaluate models into a folder that becomes `out` when the block, which may add to it, ends well."""
    from pdsynth import api
    from pdsynth.atlas import read_atlas
    from pdsynth.data.pairs import Pairs
    from pdsynth.evaluation.provenance import provenance

    pairs = Pairs.open(prepared)
    chosen = pairs.split(split)
    if len(chosen) == 0:
        raise InputError(prepared, f"has no pair in the split {split!r}", "choose another --split")
    weights = [api.model_folder(name) for name in model]
    if len({each.resolve() for each in weights}) < len(weights):
        raise InputError(", ".join(model), "names a model twice", "name each --model once")
    inputs = [prepared, *weights, *([atlas] if atlas else [])]
    folders.refuse_occupied(out, overwrite, inputs)
    models: dict[str, api.Model] = {}
    for name in model:
        loaded = api.load(name, device.value)
        label = str(loaded.card.get("recipe", loaded.method.name))
        models[label if label not in models else f"{label} ({name})"] = loaded
    api.refuse_other_preprocessing(models, chosen)
    api.refuse_leak(models, chosen)
    regions = read_atlas(atlas, pairs.grid) if atlas else None
    with (
        folders.making(out, overwrite=overwrite, inputs=inputs) as work,
        manifest.recorded(
            work.folder, command, inputs=inputs, seed=seed, split=split, samples=samples, atlas=atlas
        ) as entries,
    ):
        entries |= provenance(models, pairs)
        entries["notes"] = [_origin(name, each) for name, each in models.items()]
        entries["notes"] += [_unchecked(name) for name in api.unchecked(models, chosen)]
        methods: dict[str, api.Model | api.Method] = {**models}
        if controls:
            entries["notes"].append("The fitted controls were trained on the training split of this cohort.")
            fitted = api.fit_controls(pairs.train, seed=seed)
            methods |= {name: method for name, method in fitted.items() if name not in methods}
        api.evaluate(methods, chosen, work.folder, seed=seed, samples=samples, steps=steps, atlas=regions)
        yield Scored(work.folder, models, pairs, entries["notes"])


def benchmark(
    prepared: PreparedFolder,
    out: Annotated[Path, typer.Argument(help="Folder to write; one that is begun goes on.", metavar="OUT")],
    recipes: Annotated[
        str, typer.Option(help="Names with commas between, as pds,unet,pds-paper:small; or all of the tables' rows.")
    ] = "all",
    budget: Budget = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Number of steps, instead of a budget.")] = None,
    seed: Seed = 0,
    jobs: Annotated[int, typer.Option("--jobs", min=1, help="Recipes to run at once.")] = 1,
    cluster: Annotated[str | None, typer.Option(help="Submit to slurm (or local) through submitit.")] = None,
    device: DeviceOption = Device.auto,
) -> None:
    """Train and score recipes on an equal budget; writes the paper's tables and figures, with controls."""
    limit = seconds(budget) if budget else None
    chosen = resolve_device(device.value)
    from pdsynth.benchmark import benchmark as run

    entries = None if recipes == "all" else [entry.strip() for entry in recipes.split(",")]
    with progress("Recipes") as told:
        page = run(
            prepared,
            out,
            entries,
            budget=limit,
            steps=steps,
            seed=seed,
            jobs=jobs,
            device=chosen,
            cluster=cluster,
            progress=told,
        )
    done(f"The tables and figures are in {page}", "diagnose", out)


def report(
    results: Annotated[Path, typer.Argument(help="A folder of evaluate, benchmark, demo or prepare.", metavar="DIR")],
) -> None:
    """Make one HTML file from the results of a folder, or of the quality of prepared scans."""
    from pdsynth.results.archive import METRICS_JSON

    prepared = (results / "pairs.tsv").is_file()
    if not prepared and not (results / METRICS_JSON).is_file():
        raise InputError(results, "holds no results (it has no metrics.json)", "run `pdsynth evaluate` first")
    from pdsynth.evidence.claims import write_cards, write_report
    from pdsynth.report.quality import write_quality

    with folders.adding(results) as folder:
        if prepared:
            page = write_quality(folder)
        else:
            write_cards(folder)
            page = write_report(folder)
    beside = "" if prepared else "; checklists and cards are beside it"
    done(f"Open {results / page.name} in a browser{beside}")


def doctor(
    device: DeviceOption = Device.auto,
    privacy: Annotated[
        Path | None,
        typer.Option("--privacy", metavar="DIR", help="Look for identifiers and paths in a folder's files instead."),
    ] = None,
) -> None:
    """Check the installation: device, template, data range, schedule ends, one-batch overfit, shipped model."""
    if privacy is not None:
        from pdsynth.privacy import files, findings

        if leaks := findings(privacy):
            table("Identifiers and paths", ("file", "kind", "what"), [(f.file, f.kind, f.what) for f in leaks])
            problem = f"holds {len(leaks)} finding{'s'[: len(leaks) > 1]} of identifiers or paths of a machine"
            raise InputError(privacy, problem, "remove them from the files before you share the folder")
        done(f"No identifier and no path of a machine was found in {len(files(privacy))} files of {privacy}")
        return
    from pdsynth.cli.checks import run_checks

    found = list(run_checks(device.value))
    table("Checks", ("check", "", "finding"), [(c.name, "ok" if c.ok else "FAILED", c.finding) for c in found])
    failed = [c.name for c in found if not c.ok]
    if failed:
        error_line(f"these checks failed: {', '.join(failed)}")
        raise typer.Exit(1)
    done("All is well", "demo")


def _origin(name: str, model: api.Model) -> str:
    """Whom a model was trained on, in words, from its card."""
    kind = "SIMULATED participants" if model.card.get("simulated") else "participants"
    number, cohort = model.card.get("n_participants", "an unknown number of"), model.card.get("cohort", "?")
    return f"{name} was trained on {number} {kind} (cohort {cohort})."


def _unchecked(name: str) -> str:
    return f"Whether {name} was trained on any of these participants could not be checked: it does not name its scans."


def print_scores(out: Path) -> None:
    """The primary endpoint of every method, from metrics.json."""
    from pdsynth.results.folder import Results

    metrics = Results.read(out).metrics
    directions = ("fmri_to_dmri", "dmri_to_fmri")
    rows = []
    for name, scores in metrics["methods"].items():
        cells = [f"{scores[d]['psnr_brain']['mean']:.2f} dB" if d in scores else "" for d in directions]
        rows.append((name, *cells))
    simulated = "SIMULATED " if metrics["simulated"] else ""
    table(f"PSNR in the brain, {metrics['n_participants']} {simulated}participants", ("method", *directions), rows)
