"""Verbs on models: recipes, train, calibrate, synthesize."""

from __future__ import annotations

from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pdsynth import files, folders, manifest
from pdsynth.cli.console import DRY_RUN, done, error_line, print_json, table, without
from pdsynth.cli.following import after_model, to_train
from pdsynth.cli.options import (
    AsJson,
    Budget,
    Device,
    DeviceOption,
    DryRun,
    ModelFolder,
    Overwrite,
    Precision,
    PreparedFolder,
    Seed,
)
from pdsynth.options import FitOptions
from pdsynth.progress import progress, working
from pdsynth.resources import refuse_more_devices, resolve_device, seconds
from pdsynth.types import Available, InputError, Modality, Size, counted

NO_RUN, NEW_RUN = "holds no run of `pdsynth train` that can be resumed", "leave out --resume to start a run"
FEW = 0.02  # of the steps of a full training: below it, a budget trained the networks hardly at all
FEW_REMEDY = (
    "the networks have learnt little, so that the model is nearly its fits in closed form. Give a larger --budget. If "
    "other programs use the processor, set OMP_NUM_THREADS=1"
)
if TYPE_CHECKING:
    from pdsynth.adaptation import Adaptation


def recipes(as_json: AsJson = False) -> None:
    """List the recipes, which are named configurations of methods."""
    from pdsynth.methods.recipe import Role
    from pdsynth.recipes import RECIPES

    if as_json:
        print_json(
            [
                {"name": r.name, "method": r.method, "role": r.role, "small": bool(r.small), "summary": r.summary}
                for r in RECIPES.values()
            ]
        )
        return
    for role in Role:
        found = [recipe for recipe in RECIPES.values() if recipe.role is role]
        rows = [(r.name, r.method, ", ".join(Size) if r.small else Size.FULL, r.summary) for r in found]
        table(f"Recipes: {role}", ("name", "method", "sizes", "summary"), rows)
    done("Train one of them.", *to_train())


def train(
    prepared: PreparedFolder,
    run: Annotated[Path, typer.Argument(help="Folder to write.", metavar="RUN")],
    recipe: Annotated[str, typer.Option(help="Name of a recipe (`pdsynth recipes` lists them).")] = "pds",
    budget: Budget = None,
    steps: Annotated[
        int | None,
        typer.Option(min=1, help="Number of steps, instead of a budget (default: the recipe's; 6000 for pds)."),
    ] = FitOptions.steps,
    resume: Annotated[bool, typer.Option("--resume", help="Resume from the checkpoints in RUN.")] = FitOptions.resume,
    size: Annotated[Size, typer.Option(help="Size of the networks; small suits the budget of a CPU.")] = Size.FULL,
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="Change a setting of the recipe.", metavar="NAME=VALUE")
    ] = None,
    init: Annotated[str | None, typer.Option(help="Start from the weights of this model.", metavar="MODEL")] = None,
    precision: Annotated[
        Precision | None, typer.Option(help="Arithmetic of training (default: the fast one of this device).")
    ] = None,
    atlas_fmri: Annotated[
        Path | None, typer.Option(help="Label image, MNI space, for the loss on region means of fMRI.", metavar="NIFTI")
    ] = None,
    atlas_dmri: Annotated[Path | None, typer.Option(help="The same for dMRI.", metavar="NIFTI")] = None,
    seed: Seed = FitOptions.seed,
    device: DeviceOption = Device.auto,
    devices: Annotated[
        int, typer.Option(min=1, help="GPUs, or processes on a CPU, that divide each batch among them.")
    ] = FitOptions.devices,
    accumulate: Annotated[
        int, typer.Option(min=1, help="Parts of a device's batch, one after the other, to save memory.")
    ] = FitOptions.accumulate,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
) -> None:
    """Train a recipe on the training participants; writes RUN/model and RUN/metrics.csv.

    metrics.csv has the losses of the training steps; a recipe that is fitted without such steps writes none.
    Without --budget and --steps, the recipe's own number of steps is taken. The default recipe, pds, has 6000 steps:
    about 10 minutes on 2 CPU threads with fast bf16 (.097 s per step, SIMULATED), before the fits in closed form.
    Other devices differ much: give --budget if you have a limit.
    """
    chosen = resolve_device(device.value)
    refuse_more_devices(chosen, devices)
    atlases = {m: path for m, path in zip(Modality, (atlas_fmri, atlas_dmri), strict=True) if path is not None}
    options = FitOptions(
        steps=steps,
        budget=seconds(budget) if budget else None,
        seed=seed,
        device=chosen,
        devices=devices,
        accumulate=accumulate,
        precision=precision and precision.value,
        resume=resume,
        size=size,
        settings=dict(_setting(change) for change in changes or []),
        atlases=atlases,
        init=init,
    )
    from pdsynth import api
    from pdsynth.cli.trial import described_steps, described_training
    from pdsynth.data.pairs import Pairs, content
    from pdsynth.recipes import full_steps

    pairs = Pairs.open(prepared)
    if not (pairs.table["available"] == Available.BOTH).any():
        remedy = "add such participants, or synthesise with the shipped model"
        raise InputError(prepared, "has no participant with both scans, on whom a model is trained", remedy)
    inputs = [prepared, *([api.model_folder(init)] if init else []), *atlases.values()]
    digests = content(prepared)
    # made now, because an error of the options must come before a file is written
    described = described_training(api.untrained(recipe, pairs.train, options), recipe, pairs, options)
    parameters = {
        "recipe": recipe,
        "prepared": digests,
        "budget": budget,
        "steps": steps,
        "resume": resume,
        "size": size,
        "settings": options.settings,
        "devices": devices,
        "accumulate": accumulate,
        "atlases": {modality.value: files.sha256(path) for modality, path in atlases.items()},
    }
    if resume and not (folders.output_path(run).exists() or folders.stopped(run)):
        raise InputError(run, NO_RUN, NEW_RUN)
    if dry_run:
        folders.refuse_occupied(run, overwrite or resume, inputs)
        done(f"Nothing was written. {described}", *without(DRY_RUN))
        return
    with (
        folders.making(
            run,
            overwrite=overwrite,
            update=resume,
            resume="give the same command with --resume",
            may_resume=resume,
            check_manifest=lambda before: _refuse_other_run(run, before, seed, parameters),
            inputs=inputs,
        ) as work,
        manifest.recorded(work.folder, "train", inputs=inputs, seed=seed, **parameters),
    ):
        fitted = api.fit_recipe(recipe, pairs.train, work.folder, options, val=pairs.val)
    model = run / "model"
    full = full_steps(fitted.method, recipe, len(pairs.train))
    if options.budget and full and fitted.card["steps_done"] < FEW * full:
        error_line(f"{counted(fitted.card['steps_done'], 'training step')} of {full}: {FEW_REMEDY}", kind="Warning")
    done(f"The model{described_steps(fitted.card, full)} is in {model}", *after_model(model, pairs))


def _setting(change: str) -> tuple[str, str]:
    name, equals, value = change.partition("=")
    if not equals:
        raise ValueError(f"--set {change} has no value. Write it as NAME=VALUE.")
    return name, value


def _refuse_other_run(run: Path, before: dict[str, Any], seed: int, parameters: dict[str, Any]) -> None:
    """Raise InputError unless the manifest `before` is that of a training with this seed and these parameters.

    The checkpoints themselves do not record the participants that they were trained on.
    """
    if before.get("command") != "train":
        raise InputError(run, NO_RUN, NEW_RUN)
    earlier = {"size": Size.FULL, "settings": {}, "atlases": {}, "prepared": None} | before["parameters"]
    for name, old, new in (("recipe", earlier["recipe"], parameters["recipe"]), ("seed", before["seed"], seed)):
        if old != new:
            problem = f"is a run with {name} {old}, not {new}"
            raise InputError(run, problem, f"give --{name} {old}, or another RUN")
    if any(earlier[name] != parameters[name] for name in ("size", "settings")):
        raise InputError(run, "is a run with another --size or --set", "give the same ones, or another RUN")
    if earlier["atlases"] != parameters["atlases"]:
        problem = "is a run with another --atlas-fmri or --atlas-dmri"
        raise InputError(run, problem, "give the same ones, or another RUN")
    if earlier["prepared"] != parameters["prepared"]:
        problem = "is a run on other pairs or splits than those of PREPARED, so people could leak between splits"
        raise InputError(run, problem, "give the PREPARED folder of the run, or another RUN without --resume")


def calibrate(
    model: ModelFolder,
    prepared: PreparedFolder,
    out: Annotated[Path, typer.Argument(help="Folder to write, for the calibrated model.", metavar="OUT")],
    device: DeviceOption = Device.auto,
    overwrite: Overwrite = False,
) -> None:
    """Scale the SD of a model, by one factor per direction, to its errors on participants who are new to it.

    They are the participants with both scans who are not in the test split and were not in the model's training set.
    """
    chosen = resolve_device(device.value)
    from pdsynth import api
    from pdsynth.data.pairs import Pairs
    from pdsynth.evidence.calibration.model import calibrate as calibrate_model
    from pdsynth.report.words import DIRECTIONS

    pairs = Pairs.open(prepared)
    inputs = [prepared, api.model_folder(model)]
    with (
        folders.making(out, overwrite=overwrite, inputs=inputs) as work,
        manifest.recorded(work.folder, "calibrate", inputs=inputs),
        progress("Calibrating") as update,
    ):
        calibrations = calibrate_model(model, pairs, work.folder, device=chosen, progress=update)
    rows = [
        (
            DIRECTIONS[direction],
            f"{each.participants}",
            f"{100 * each.before:.1f} %",
            f"{each.scale:.2f}",
            "too few participants" if isnan(each.after) else f"{100 * each.after:.1f} %",
        )
        for direction, each in calibrations.items()
    ]
    columns = ("direction", "participants", "in 90 % interval", "SD factor", "after it, cross-validated")
    table(f"{'SIMULATED. ' if pairs.simulated else ''}Calibration", columns, rows)
    done(f"The model is in {out}", *after_model(out, pairs))


def adapt(
    model: ModelFolder,
    prepared: PreparedFolder,
    out: Annotated[Path, typer.Argument(help="Folder to write, for the adapted model.", metavar="OUT")],
    unjudged: Annotated[
        bool, typer.Option("--unjudged", help="Keep a correction that too few participants can judge.")
    ] = False,
    device: DeviceOption = Device.auto,
    overwrite: Overwrite = False,
) -> None:
    """Correct a model for a new scanner, in closed form, from three or more participants with both scans.

    With fewer, five or more scans of each modality are enough, which need not be of the same people. A correction is
    kept only if participants who were left out gain; otherwise the model is written as it was. The participants are
    those who are not in the test split and were not in the model's training set.
    """
    chosen = resolve_device(device.value)
    from pdsynth import api
    from pdsynth.adaptation import adapt as adapt_model
    from pdsynth.data.pairs import Pairs
    from pdsynth.report.words import DIRECTIONS

    pairs = Pairs.open(prepared)
    inputs = [prepared, api.model_folder(model)]
    with (
        folders.making(out, overwrite=overwrite, inputs=inputs) as work,
        manifest.recorded(work.folder, "adapt", inputs=inputs),
        working("Adapting"),
    ):
        adapted = adapt_model(model, pairs, work.folder, device=chosen, unjudged=unjudged)
    rows = [
        (
            DIRECTIONS[direction],
            _learnt_from(each),
            _gain(each),
            "corrected" if each.correction else "unchanged",
        )
        for direction, each in adapted.items()
    ]
    columns = ("direction", "learnt from", "gain of those left out", "model")
    table(f"{'SIMULATED. ' if pairs.simulated else ''}Adaptation", columns, rows)
    done(f"The model is in {out}", *after_model(out, pairs))


def _learnt_from(each: Adaptation) -> str:
    if each.sources:
        return f"{each.sources} source and {counted(each.targets, 'target scan')}"
    return f"{counted(each.participants, 'participant')} with both scans"


def _gain(each: Adaptation) -> str:
    if each.sources:
        return f"{100 * each.removed:.0f} +- {100 * each.removed_error:.0f} % of the mean error removed"
    return "too few to judge" if isnan(each.gain_db) else f"{each.gain_db:+.2f} +- {each.error_db:.2f} dB"
