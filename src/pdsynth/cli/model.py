"""Verbs on models: recipes, train, calibrate, synthesize."""

from __future__ import annotations

from math import isnan
from pathlib import Path
from typing import Annotated

import typer

from pdsynth import manifest
from pdsynth.cli.console import done, progress, table
from pdsynth.cli.options import Budget, Device, DeviceOption, Overwrite, Precision, PreparedFolder, Seed, Size
from pdsynth.resources import resolve_device, seconds
from pdsynth.types import InputError, Modality

ModelFolder = Annotated[str, typer.Argument(help="A folder written by train, or `default`.", metavar="MODEL")]


def recipes() -> None:
    """List the named runs."""
    from pdsynth.recipes import RECIPES

    rows = [(r.name, r.method, "full, small" if r.small else "full", r.summary) for r in RECIPES.values()]
    table("Recipes", ("name", "method", "sizes", "what it is"), rows)
    done("Take one of them", "train", "prepared", "run", "--recipe", "pds")


def train(
    prepared: PreparedFolder,
    run: Annotated[Path, typer.Argument(help="Folder to write.", metavar="RUN")],
    recipe: Annotated[str, typer.Option(help="Name of a recipe (`pdsynth recipes` lists them).")] = "pds",
    budget: Budget = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Number of steps, instead of a budget.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoints in RUN.")] = False,
    size: Annotated[Size, typer.Option(help="Small: the same wiring for a CPU's budget.")] = Size.full,
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="Change a setting of the recipe.", metavar="NAME=VALUE")
    ] = None,
    init: Annotated[str | None, typer.Option(help="Begin with the weights of this model.", metavar="MODEL")] = None,
    precision: Annotated[
        Precision | None, typer.Option(help="Arithmetic of training (default: the fast one of this device).")
    ] = None,
    seed: Seed = 0,
    device: DeviceOption = Device.auto,
    overwrite: Overwrite = False,
) -> None:
    """Train a recipe on the training participants; writes RUN/model and RUN/metrics.csv."""
    limit = seconds(budget) if budget else None
    chosen = resolve_device(device.value)
    from pdsynth import api
    from pdsynth.data.pairs import Pairs, content

    pairs = Pairs.open(prepared)
    inputs = [prepared, *([api.model_folder(init)] if init else [])]
    digests = content(prepared)
    settings = dict(_setting(change) for change in changes or [])
    # whatever is wrong with them is said before anything is removed
    api.untrained(recipe, pairs.train, seed, init, size.value, settings)
    if resume:
        _refuse_other_run(run, recipe, seed, size.value, settings, digests)
    else:
        manifest.clear(run, overwrite, inputs)
    with manifest.recorded(
        run,
        "train",
        inputs=inputs,
        seed=seed,
        recipe=recipe,
        prepared=digests,
        budget=budget,
        steps=steps,
        resume=resume,
        init=init,
        size=size.value,
        settings=settings,
    ):
        fitted = api.fit(
            recipe,
            pairs.train,
            val=pairs.val,
            run=run,
            budget=limit,
            steps=steps,
            seed=seed,
            device=chosen,
            resume=resume,
            init=init,
            size=size.value,
            settings=settings,
            precision=precision and precision.value,
        )
    done(
        f"The model, trained in {fitted.card['precision']}, is in {run / 'model'}",
        "evaluate",
        prepared,
        "--model",
        run / "model",
        "--out",
        "results",
    )


def _setting(change: str) -> tuple[str, str]:
    name, equals, value = change.partition("=")
    if not equals:
        raise ValueError(f"--set {change} says no value. Write it as NAME=VALUE.")
    return name, value


def _refuse_other_run(
    run: Path, recipe: str, seed: int, size: str, settings: dict[str, str], prepared: dict[str, str]
) -> None:
    """Raise InputError unless `run` was begun by train, as this run would be: checkpoints don't say whom they saw."""
    begun = manifest.read(run)
    if begun.get("command") != "train":
        raise InputError(run, "holds no run of `pdsynth train` to go on with", "leave out --resume to begin one")
    parameters = begun["parameters"]
    for what, before, now in (("recipe", parameters["recipe"], recipe), ("seed", begun["seed"], seed)):
        if before != now:
            raise InputError(
                run, f"was begun with {what} {before}, not {now}", f"give --{what} {before}, or another RUN"
            )
    if (parameters.get("size", "full"), parameters.get("settings", {})) != (size, settings):
        raise InputError(run, "was begun with another --size or --set", "give the same ones, or another RUN")
    if parameters.get("prepared") != prepared:
        problem = "was begun on other pairs or splits than PREPARED holds, so people could leak between splits"
        raise InputError(run, problem, "name the folder that it was begun on, or another RUN without --resume")


def calibrate(
    model: ModelFolder,
    prepared: PreparedFolder,
    out: Annotated[Path, typer.Argument(help="Folder to write: the model, calibrated.", metavar="OUT")],
    device: DeviceOption = Device.auto,
    overwrite: Overwrite = False,
) -> None:
    """Scale a model's uncertainty until it holds on your scans, on people outside the test split whom it never saw."""
    chosen = resolve_device(device.value)
    from pdsynth import api
    from pdsynth.data.pairs import Pairs
    from pdsynth.report.words import DIRECTIONS

    pairs = Pairs.open(prepared)
    inputs = [prepared, api.model_folder(model)]
    manifest.refuse_occupied(out, overwrite, inputs)
    with (
        manifest.complete_folder(out, overwrite) as folder,
        manifest.recorded(folder, "calibrate", inputs=inputs, model=model),
        progress("Calibrating") as told,
    ):
        found = api.calibrate(model, pairs, folder, chosen, told)
    rows = [
        (
            DIRECTIONS[direction],
            f"{each.participants}",
            f"{100 * each.before:.1f} %",
            f"{each.scale:.2f}",
            "too few to tell" if isnan(each.after) else f"{100 * each.after:.1f} %",
        )
        for direction, each in found.items()
    ]
    columns = ("direction", "participants", "90 % intervals held", "SD times", "held then, of people left out")
    table(f"{'SIMULATED. ' if pairs.simulated else ''}Calibration", columns, rows)
    done(f"The model is in {out}", "evaluate", prepared, "--model", out, "--out", "results")


def synthesize(
    model: ModelFolder,
    path: Annotated[Path, typer.Argument(help="A BIDS dataset, or one scan.", metavar="PATH")],
    out: Annotated[Path, typer.Argument(help="Folder to write.", metavar="OUT")],
    to: Annotated[Modality | None, typer.Option(help="Modality to make (default: what is missing).")] = None,
    samples: Annotated[
        int, typer.Option(min=0, help="Draws for the uncertainty map; 0: the SD that the model states.")
    ] = 0,
    steps: Annotated[int, typer.Option(min=1, help="Sampling steps of each draw.")] = 8,
    shell: Annotated[float, typer.Option(min=100, help="b-value, s/mm^2, that a synthesised dMRI shows.")] = 1000,
    seed: Seed = 0,
    device: DeviceOption = Device.auto,
    overwrite: Overwrite = False,
) -> None:
    """Synthesise the missing scans of a dataset, or the other scan of one; every file is marked synthetic."""
    manifest.refuse_occupied(out, overwrite, [path])
    chosen = resolve_device(device.value)
    from pdsynth import api
    from pdsynth.synthesis import synthesise_path

    inputs = [api.model_folder(model), path]
    manifest.refuse_occupied(out, overwrite, inputs)
    with (
        manifest.complete_folder(out, overwrite) as folder,  # what is there stays until the new volumes are made
        manifest.recorded(
            folder, "synthesize", inputs=inputs, seed=seed, to=to, samples=samples, steps=steps, shell=shell
        ),
        progress("Synthesising") as told,
    ):
        written, refused = synthesise_path(
            model,
            path,
            folder,
            to=to,
            samples=samples,
            steps=steps,
            seed=seed,
            device=chosen,
            shell=shell,
            progress=told,
        )
    if refused:
        table("Refused", ("file", "reason", "remedy"), [(str(r.path), r.reason, r.remedy) for r in refused])
    done(f"{len(written)} files, SYNTHETIC, research only, are in {out}")
    done(
        "Score the model on real pairs before you use them",
        "evaluate",
        "prepared",
        "--model",
        model,
        "--out",
        "results",
    )
