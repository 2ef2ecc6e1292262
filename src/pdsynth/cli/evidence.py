"""Verbs on evidence beyond image quality: effects, roi, diagnose, evidence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pdsynth import folders, manifest
from pdsynth.cli.console import done, search_before_sharing, table
from pdsynth.cli.options import (
    JOBS,
    ONE,
    AtlasFile,
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
from pdsynth.cli.report import report
from pdsynth.cli.results import print_scores, scored
from pdsynth.options import EvaluateOptions
from pdsynth.progress import progress, working
from pdsynth.resources import resolve_device, seconds
from pdsynth.types import Diagnosis, InputError, Split

if TYPE_CHECKING:
    from pdsynth.data.pairs import Pairs
    from pdsynth.evidence.group_effects.files import TargetSummary

ResultsFolder = Annotated[Path, typer.Argument(help="A folder written by evaluate or benchmark.", metavar="DIR")]
MethodNames = Annotated[
    list[str] | None,
    typer.Option("--method", help="A method whose scans are used; may be repeated (default: the method under test).",
                 metavar="NAME"),
]  # fmt: skip


@where_options
def effects(
    prepared: PreparedFolder,
    out: Out,
    recipe: Annotated[str, typer.Option(help="Recipe that synthesises, trained without each fold.")] = "local-ridge",
    model: Annotated[
        str | None, typer.Option(help="A model, trained on other participants, instead of a recipe.", metavar="MODEL")
    ] = None,
    groups: Annotated[str, typer.Option(help="Two diagnoses; the effect is the first minus the second.")] = "AD,NC",
    folds: Annotated[int, typer.Option(min=2, help="Folds; no scan is synthesised after training on its fold.")] = 5,
    budget: Budget = None,
    atlas: AtlasFile = None,
    seed: Seed = 0,
    where: Where = ONE,
    device: DeviceOption = Device.auto,
    overwrite: Overwrite = False,
) -> None:
    """Estimate the difference of two diagnostic groups from real scans, and from synthesised ones for missing scans.

    Differences are those of the mean signal of each region, within sites. The estimates from synthesised scans are
    corrected by participants with both scans. Tables and figures of the estimates with and without synthesised scans
    are written into a new folder.
    """
    contrast = _two_diagnoses(groups)
    limit, chosen = seconds(budget) if budget else None, resolve_device(device.value)
    workers = where.workers(prepared, gpu=chosen == Device.cuda)
    prepared = prepared.absolute()  # the workers of a cluster may start in another folder
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
        raise ValueError("--model names a trained model; leave out --recipe and --budget, or --model.")
    loaded = api.load(model, chosen) if model else None
    if loaded is not None:
        api.refuse_other_preprocessing({str(model): loaded}, pairs)
        if api.unchecked({str(model): loaded}, pairs):
            raise InputError(str(model), "does not name the scans that it was trained on", "leave out --model")
    inputs = [prepared, *([api.model_folder(model)] if model else []), *([atlas] if atlas else [])]
    method = {"model": model} if model else {"recipe": recipe, "folds": folds, "budget": budget}
    with (
        folders.making(out, overwrite=overwrite, inputs=inputs) as work,
        manifest.recorded(work.folder, "effects", inputs=inputs, seed=seed, groups=groups, **method) as entries,
        progress("Trainings") as update,
    ):
        if loaded is not None:
            predicted = by_model(loaded, pairs, people, regions)
        else:
            predicted = cross_fitted(recipe, pairs, people, folds=folds, budget=limit, atlas=regions, seed=seed,
                                     device=chosen, jobs=workers, progress=update)  # fmt: skip
        estimates = group_effects(people, predicted, contrast, regions)
        estimates.write(work.folder)
        draw(work.folder, estimates, contrast, pairs.simulated)
        entries["simulated"] = pairs.simulated
    _print_effects(estimates.summary, pairs, people, contrast)
    done(f"Effects by region and figures are in {out}")
    search_before_sharing(out)


def _refuse_untrainable(recipe: str, limit: float | None) -> None:
    from pdsynth.recipes import RECIPES

    if recipe not in RECIPES:
        raise ValueError(f"there is no recipe {recipe!r}. `pdsynth recipes` lists them.")
    if RECIPES[recipe].steps and limit is None:
        raise ValueError(f"{recipe} needs training steps in each fold. Give the time per fold, such as --budget 10m.")


def _two_diagnoses(text: str) -> tuple[Diagnosis, Diagnosis]:
    names = [name.strip() for name in text.split(",")]
    if len(set(names)) != 2 or not set(names) <= set(Diagnosis):
        raise ValueError(f"--groups {text} must name two diagnoses of {', '.join(Diagnosis)}, such as AD,NC.")
    return Diagnosis(names[0]), Diagnosis(names[1])


def _print_effects(
    found: Sequence[TargetSummary], pairs: Pairs, people: Pairs, contrast: tuple[Diagnosis, Diagnosis]
) -> None:
    first, second = contrast
    everyone = pairs.participants
    numbers = " and ".join(f"{int((people.table['diagnosis'] == g).sum())} {g}" for g in contrast)
    typer.echo(f"{numbers} of {everyone} participants are compared; the others are excluded.")
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
    columns = ("scan", "real", "synthesised", "worth of one synthesised scan, in real scans",
               "interval width, of that of real scans", "regions found by real scans",
               "regions found by both")  # fmt: skip
    title = f"{'SIMULATED. ' if pairs.simulated else ''}{first} minus {second}; found: false discovery rate below .05"
    table(title, columns, rows)
    for row in found:
        if row.n_synthesised and not row.used:
            typer.echo(
                f"The synthesised {row.target} scans are not used: they carry no information about individuals, or too "
                "few participants have both scans."
            )


def roi(results: ResultsFolder, seed: Seed = 0) -> None:
    """Compare region means and group effects of real and synthesised scans; writes tables and Figs. 5 and 6.

    The files are written into the results folder.
    """
    from pdsynth.evidence.verbs import write_roi

    with (
        folders.adding(results) as folder,
        manifest.addition(folder, "roi", seed=seed),
        working("Comparing regions"),
    ):
        write_roi(folder, seed)
    done(f"Effects, agreement and Figs. 5 and 6 are in {results}", "report", results)


def diagnose(results: ResultsFolder, method: MethodNames = None, seed: Seed = 0) -> None:
    """Classify diagnoses from real and synthesised scans, with controls; writes Tables V and IX and Fig. 7.

    The files are written into the results folder. Table IX needs both of its recipes among the scored methods.
    """
    from pdsynth.evidence.verbs import write_diagnosis

    with (
        folders.adding(results) as folder,
        manifest.addition(folder, "diagnose", seed=seed, method=method),
        working("Classifying"),
    ):
        write_diagnosis(folder, method, seed)
    done(f"Tables V and IX and Fig. 7 are in {results}", "report", results)


@scoring_options
def evidence(
    prepared: PreparedFolder,
    model: Models,
    out: Out,
    options: EvaluateOptions,
    leave_site_out: Annotated[
        bool,
        typer.Option("--leave-site-out", help="Train without each site, for --budget each; two trainings per site."),
    ] = False,
    budget: Budget = None,
    jobs: Jobs = JOBS,
    overwrite: Overwrite = False,
) -> None:
    """Run evaluate, roi and diagnose, and probes of the first model; write checklists, cards and the report.

    The probes test its memory of training participants, and whether it shows lesions and changes of a person. A part
    that these participants do not permit is left out, and the report gives the reason.
    """
    from pdsynth.data.pairs import Pairs
    from pdsynth.evidence.probes.compute import probe
    from pdsynth.evidence.sites.compute import sites_to_leave_out
    from pdsynth.evidence.verbs import write_diagnosis, write_roi, write_sites

    limit = seconds(budget) if budget else None
    if options.split is Split.TRAIN:
        raise ValueError("--split train holds the participants whom models are trained on. Choose val or test.")
    if leave_site_out:
        sites_to_leave_out(Pairs.open(prepared))  # an error must come before hours of work
    seed = options.seed
    with scored("evidence", prepared, model, out, options=options, jobs=jobs, overwrite=overwrite) as results:
        tested = next(iter(results.models.values()))
        parts: dict[str, Callable[[], object]] = {
            "Effects and patterns": lambda: write_roi(results.folder, seed),
            "Diagnosis": lambda: write_diagnosis(results.folder, None, seed),
            "Probes": lambda: probe(tested, results.pairs, options.split, seed, jobs=jobs).write(results.folder),
        }
        if leave_site_out:
            parts["A site left out"] = lambda: write_sites(
                results.folder, tested, results.pairs, budget=limit, seed=seed, device=options.device
            )
        for name, write in parts.items():
            try:
                with working(name):
                    write()
            except ValueError as error:  # such as a class that is too small for the folds: the other parts remain
                results.notes.append(f"{name}: not done. {error}")
    print_scores(out)
    report(out)
