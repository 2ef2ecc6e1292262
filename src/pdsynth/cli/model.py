"""Verbs on models: recipes, train, calibrate, synthesize."""

from __future__ import annotations

from dataclasses import asdict
from math import isnan
from pathlib import Path
from typing import Annotated, Any

import typer

from pdsynth import files, folders, manifest
from pdsynth.cli.console import done, progress, table
from pdsynth.cli.options import (
    JOBS,
    Budget,
    Device,
    DeviceOption,
    Jobs,
    Overwrite,
    Precision,
    PreparedFolder,
    Seed,
    Size,
)
from pdsynth.resources import refuse_more_devices, resolve_device, seconds
from pdsynth.types import InputError, Modality
from pdsynth.workers import load_ahead

NO_RUN = "holds no run of `pdsynth train` to go on with"
TABLE = "synthesised.tsv"
ModelFolder = Annotated[str, typer.Argument(help="A folder written by train, or `default`.", metavar="MODEL")]


def recipes() -> None:
    """List the named runs."""
    from pdsynth.methods.recipe import Role
    from pdsynth.recipes import RECIPES

    for role in Role:
        found = [recipe for recipe in RECIPES.values() if recipe.role is role]
        rows = [(r.name, r.method, "full, small" if r.small else "full", r.summary) for r in found]
        table(f"Recipes: {role}", ("name", "method", "sizes", "what it is"), rows)
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
    atlas_fmri: Annotated[
        Path | None, typer.Option(help="Label image in MNI space for the pattern loss on fMRI.", metavar="NIFTI")
    ] = None,
    atlas_dmri: Annotated[Path | None, typer.Option(help="The same on dMRI.", metavar="NIFTI")] = None,
    seed: Seed = 0,
    device: DeviceOption = Device.auto,
    devices: Annotated[
        int, typer.Option(min=1, help="GPUs, or processes on a CPU, that train together, each on its own batches.")
    ] = 1,
    overwrite: Overwrite = False,
) -> None:
    """Train a recipe on the training participants; writes RUN/model and RUN/metrics.csv."""
    limit = seconds(budget) if budget else None
    chosen = resolve_device(device.value)
    refuse_more_devices(chosen, devices)
    from pdsynth import api
    from pdsynth.data.pairs import Pairs, content

    pairs = Pairs.open(prepared)
    atlases = {m: path for m, path in zip(Modality, (atlas_fmri, atlas_dmri), strict=True) if path is not None}
    inputs = [prepared, *([api.model_folder(init)] if init else []), *atlases.values()]
    digests = content(prepared)
    settings = dict(_setting(change) for change in changes or [])
    # whatever is wrong with them is said before anything is begun
    api.untrained(recipe, pairs.train, seed, init, size.value, settings, atlases)
    atlas_digests = {modality.value: files.sha256(path) for modality, path in atlases.items()}
    if resume and not (folders.place(run).exists() or folders.stopped(run)):
        raise InputError(run, NO_RUN, "leave out --resume to begin one")
    with (
        folders.making(
            run,
            overwrite=overwrite,
            update=resume,
            resume="give the same command with --resume",
            go_on=resume,
            again=lambda before: _refuse_other_run(
                run, before, recipe, seed, size.value, settings, digests, atlas_digests
            ),
            inputs=inputs,
        ) as work,
        manifest.recorded(
            work.folder,
            "train",
            inputs=inputs,
            seed=seed,
            recipe=recipe,
            prepared=digests,
            budget=budget,
            steps=steps,
            resume=resume,
            size=size.value,
            settings=settings,
            devices=devices,
            atlases=atlas_digests,
        ),
    ):
        fitted = api.fit(
            recipe,
            pairs.train,
            val=pairs.val,
            run=work.folder,
            budget=limit,
            steps=steps,
            seed=seed,
            device=chosen,
            resume=resume,
            init=init,
            size=size.value,
            settings=settings,
            precision=precision and precision.value,
            devices=devices,
            atlases=atlases,
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
    run: Path,
    begun: dict[str, Any],
    recipe: str,
    seed: int,
    size: str,
    settings: dict[str, str],
    prepared: dict[str, str],
    atlases: dict[str, str],
) -> None:
    """Raise InputError unless a run was begun by train, as this one would be: checkpoints do not say whom they saw."""
    if begun.get("command") != "train":
        raise InputError(run, NO_RUN, "leave out --resume to begin one")
    parameters = begun["parameters"]
    for what, before, now in (("recipe", parameters["recipe"], recipe), ("seed", begun["seed"], seed)):
        if before != now:
            raise InputError(
                run, f"was begun with {what} {before}, not {now}", f"give --{what} {before}, or another RUN"
            )
    if (parameters.get("size", "full"), parameters.get("settings", {})) != (size, settings):
        raise InputError(run, "was begun with another --size or --set", "give the same ones, or another RUN")
    if parameters.get("atlases", {}) != atlases:
        problem = "was begun with another --atlas-fmri or --atlas-dmri"
        raise InputError(run, problem, "give the same ones, or another RUN")
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
    from pdsynth.evidence.calibration.model import calibrate as scaled
    from pdsynth.report.words import DIRECTIONS

    pairs = Pairs.open(prepared)
    inputs = [prepared, api.model_folder(model)]
    with (
        folders.making(out, overwrite=overwrite, inputs=inputs) as work,
        manifest.recorded(work.folder, "calibrate", inputs=inputs),
        progress("Calibrating") as told,
    ):
        found = scaled(model, pairs, work.folder, chosen, told)
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
    out: Annotated[Path, typer.Argument(help="Folder to write, or to add to.", metavar="OUT")],
    to: Annotated[Modality | None, typer.Option(help="Modality to make (default: what is missing).")] = None,
    samples: Annotated[
        int, typer.Option(min=0, help="Draws to write beside the estimate and its SD; for a generative model.")
    ] = 0,
    steps: Annotated[int, typer.Option(min=1, help="Sampling steps of each draw.")] = 8,
    shell: Annotated[float, typer.Option(min=100, help="b-value, s/mm^2, that a synthesised dMRI shows.")] = 1000,
    seed: Seed = 0,
    jobs: Jobs = JOBS,
    strict: Annotated[bool, typer.Option("--strict", help="Exit status 2 where a scan was refused.")] = False,
    device: DeviceOption = Device.auto,
    overwrite: Overwrite = False,
) -> None:
    """Synthesise the missing scans of a dataset, or the other scan of one; every file is marked synthetic.

    What is made already, by the same model with the same options, is kept.
    """
    if device is Device.cuda:
        resolve_device(device.value)  # that there is none is said at once; auto is left to whoever loads torch
    if jobs > 1:
        load_ahead("pdsynth.synthesis")
    from pdsynth.missing import Options, refuse_other_options, synthesise_path
    from pdsynth.weights import model_folder

    folder = model_folder(model)
    options = Options(samples, steps, seed, shell)
    made_as = options.entries(folder)
    with (
        folders.making(
            out,
            overwrite=overwrite,
            update=True,
            resume="give the same command again",
            again=lambda before: refuse_other_options(out, before, made_as),
            inputs=[folder, path],
        ) as work,
        manifest.recorded(work.folder, "synthesize", inputs=[folder, path], seed=seed, to=to, made_as=made_as),
        progress("Synthesising") as told,
    ):
        written, refused = synthesise_path(
            folder, path, work.folder, to=to, **asdict(options), device=device.value, jobs=jobs, progress=told
        )
    if refused:
        table("Refused", ("file", "reason", "remedy"), [(str(r.path), r.reason, r.remedy) for r in refused])
    done(f"{len(written)} files, SYNTHETIC, research only, are in {out}; {TABLE} says what became of each scan")
    if strict and refused:
        raise InputError(path, f"holds {len(refused)} scans that were refused", f"mend them; {out / TABLE} names each")
    done(
        "Score the model on real pairs before you use them",
        "evaluate",
        "prepared",
        "--model",
        model,
        "--out",
        "results",
    )
