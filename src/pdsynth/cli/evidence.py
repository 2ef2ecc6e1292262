"""Verbs beyond image quality: effects, roi, diagnose, evidence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pdsynth import folders, manifest
from pdsynth.cli.console import done, progress, table
from pdsynth.cli.options import JOBS, Budget, Device, DeviceOption, Jobs, Out, Overwrite, PreparedFolder, Seed
from pdsynth.cli.results import AtlasFile, Controls, Models, Samples, Split, Steps, print_scores, report, scored
from pdsynth.resources import resolve_device, seconds
from pdsynth.types import Diagnosis, InputError

if TYPE_CHECKING:
    from pdsynth.data.pairs import Pairs
    from pdsynth.evidence.group_effects.files import TargetSummary

ResultsFolder = Annotated[Path, typer.Argument(help="A folder written by evaluate or benchmark.", metavar="DIR")]
MethodNames = Annotated[
    list[str] | None,
    typer.Option("--method", help="A method whose scans are used; may be repeated (default: the one under test).",
                 metavar="NAME"),
]  # fmt: skip


def effects(
    prepared: PreparedFolder,
    out: Out,
    recipe: Annotated[str, typer.Option(help="What synthesises, trained anew without each fold.")] = "local-ridge",
    model: Annotated[
        str | None, typer.Option(help="A model that saw none of them, instead of a recipe.", metavar="MODEL")
    ] = None,
    groups: Annotated[str, typer.Option(help="The two diagnoses, the first less the second.")] = "AD,NC",
    folds: Annotated[int, typer.Option(min=2, help="Trainings, each without its part of the participants.")] = 5,
    budget: Budget = None,
    atlas: AtlasFile = None,
    seed: Seed = 0,
    device: DeviceOption = Device.auto,
    overwrite: Overwrite = False,
) -> None:
    """Difference between two groups where scans are missing: synthesised ones count, put right by real ones."""
    contrast = _two_diagnoses(groups)
    limit, chosen = seconds(budget) if budget else None, resolve_device(device.value)
    from pdsynth import api
    from pdsynth.atlas import read_atlas
    from pdsynth.data.pairs import Pairs
    from pdsynth.evidence.group_effects.charts import draw
    from pdsynth.evidence.group_effects.compute import by_model, cross_fitted, group_effects, one_row_each

    pairs = Pairs.open(prepared)
    people = one_row_each(pairs, contrast)
    regions = read_atlas(atlas, pairs.grid) if atlas else None
    if model is None:
        _refuse_untrainable(recipe, limit)
    elif budget is not None or recipe != "local-ridge":
        raise ValueError("--model is trained already; leave out --recipe and --budget, or --model.")
    loaded = api.load(model, chosen) if model else None
    if loaded is not None:
        api.refuse_other_preprocessing({str(model): loaded}, pairs)
        if api.unchecked({str(model): loaded}, pairs):
            raise InputError(str(model), "does not name the scans that it was trained on", "leave out --model")
    inputs = [prepared, *([api.model_folder(model)] if model else []), *([atlas] if atlas else [])]
    how = {"model": model} if model else {"recipe": recipe, "folds": folds, "budget": budget}
    with (
        folders.making(out, overwrite=overwrite, inputs=inputs) as work,
        manifest.recorded(work.folder, "effects", inputs=inputs, seed=seed, groups=groups, **how) as entries,
        progress("Trainings") as told,
    ):
        if loaded is not None:
            made = by_model(loaded, pairs, people, regions)
        else:
            made = cross_fitted(recipe, pairs, people, folds=folds, budget=limit, atlas=regions, seed=seed,
                                device=chosen, progress=told)  # fmt: skip
        found = group_effects(people, made, contrast, regions)
        found.write(work.folder)
        draw(work.folder, found, contrast, pairs.simulated)
        entries["simulated"] = pairs.simulated
    _print_effects(found.summary, pairs, people, contrast)
    done(f"Effects by region and figures are in {out}")


def _refuse_untrainable(recipe: str, limit: float | None) -> None:
    from pdsynth.recipes import RECIPES

    if recipe not in RECIPES:
        raise ValueError(f"there is no recipe {recipe!r}. `pdsynth recipes` lists them.")
    if RECIPES[recipe].steps and limit is None:
        raise ValueError(f"{recipe} is trained by steps, once a fold. Say for how long each, as in --budget 10m.")


def _two_diagnoses(text: str) -> tuple[Diagnosis, Diagnosis]:
    names = [name.strip() for name in text.split(",")]
    if len(set(names)) != 2 or not set(names) <= set(Diagnosis):
        raise ValueError(f"--groups {text} names no two diagnoses. Write two of {', '.join(Diagnosis)}, as AD,NC.")
    return Diagnosis(names[0]), Diagnosis(names[1])


def _print_effects(
    found: Sequence[TargetSummary], pairs: Pairs, people: Pairs, contrast: tuple[Diagnosis, Diagnosis]
) -> None:
    first, second = contrast
    everyone = pairs.table["participant_id"].nunique()
    numbers = " and ".join(f"{int((people.table['diagnosis'] == g).sum())} {g}" for g in contrast)
    typer.echo(f"Of {everyone} participants {numbers} are compared; the others are left out.")
    rows = [
        (
            row.target.value,
            f"{row.n_real}",
            f"{row.n_synthesised}",
            f"{row.worth:.2f}",
            f"{100 * row.width:.0f} %",
            f"{row.regions_real_alone}",
            f"{row.regions}",
        )
        for row in found
    ]
    columns = ("scan", "real", "synthesised", "one is worth (real scans)", "interval (of real alone's)",
               "regions found by real alone", "regions found by both")  # fmt: skip
    title = f"{'SIMULATED. ' if pairs.simulated else ''}{first} less {second}; found: false discovery rate below .05"
    table(title, columns, rows)
    for row in found:
        if row.n_synthesised and not row.used:
            typer.echo(
                f"The synthesised {row.target} are not used: they carry no information about individuals, or too few "
                "participants have both scans."
            )


def roi(results: ResultsFolder, seed: Seed = 0) -> None:
    """Region patterns, real against synthesised, and the groups' effects; writes tables and Figs. 5 and 6."""
    from pdsynth.evidence.verbs import write_roi

    with folders.adding(results) as folder, manifest.added(folder, "roi", seed=seed):
        write_roi(folder, seed)
    done(f"Effects, agreement and Figs. 5 and 6 are in {results}", "report", results)


def diagnose(results: ResultsFolder, method: MethodNames = None, seed: Seed = 0) -> None:
    """Diagnosis with real and synthesised scans and with all controls; writes Tables V and IX and Fig. 7."""
    from pdsynth.evidence.verbs import write_diagnosis

    with folders.adding(results) as folder, manifest.added(folder, "diagnose", seed=seed, method=method):
        write_diagnosis(folder, method, seed)
    done(f"Tables V and IX and Fig. 7 are in {results}", "report", results)


def evidence(
    prepared: PreparedFolder,
    model: Models,
    out: Out,
    split: Split = "test",
    controls: Controls = True,
    samples: Samples = 0,
    steps: Steps = 8,
    atlas: AtlasFile = None,
    leave_site_out: Annotated[
        bool,
        typer.Option("--leave-site-out", help="Train anew without each site, --budget each; two trainings a site."),
    ] = False,
    budget: Budget = None,
    seed: Seed = 0,
    jobs: Jobs = JOBS,
    device: DeviceOption = Device.auto,
    overwrite: Overwrite = False,
) -> None:
    """Everything at once: evaluate, roi, diagnose, probes of the first model, checklists, cards and the report."""
    from pdsynth.data.pairs import Pairs
    from pdsynth.evidence.probes.compute import probe
    from pdsynth.evidence.sites.compute import sites_to_leave_out
    from pdsynth.evidence.verbs import write_diagnosis, write_roi, write_sites

    limit = seconds(budget) if budget else None
    if split == "train":
        raise ValueError("--split train holds the people whom models are trained on. Take val or test.")
    if leave_site_out:
        sites_to_leave_out(Pairs.open(prepared))  # before hours are spent
    with scored(
        "evidence", prepared, model, out, split, controls, samples, steps, atlas, seed, device, overwrite
    ) as made:
        tested = next(iter(made.models.values()))
        parts: dict[str, Callable[[], object]] = {
            "Effects and patterns": lambda: write_roi(made.folder, seed),
            "Diagnosis": lambda: write_diagnosis(made.folder, None, seed),
            "Probes": lambda: probe(tested, made.pairs, split, seed, jobs).write(made.folder),
        }
        if leave_site_out:
            parts["A site left out"] = lambda: write_sites(made.folder, tested, made.pairs, limit, seed, device.value)
        for name, write in parts.items():
            try:
                write()
            except ValueError as error:  # a class too small for the folds, say: the other parts stand
                made.notes.append(f"{name}: not done. {error}")
    print_scores(out)
    report(out)
