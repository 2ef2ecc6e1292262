"""Verbs on models: recipes, train, calibrate, synthesize."""

from __future__ import annotations

from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pdsynth import files, folders, manifest
from pdsynth.cli.console import DRY_RUN, done, doubtful, error_line, print_json, table, without
from pdsynth.cli.options import (
    AUTO,
    HERE,
    AsJson,
    Budget,
    Device,
    DeviceOption,
    DryRun,
    LayoutOption,
    Overwrite,
    Precision,
    PreparedFolder,
    Seed,
    SelectOption,
    Steps,
    Where,
    where_options,
)
from pdsynth.options import FitOptions
from pdsynth.progress import progress, working
from pdsynth.resources import refuse_more_devices, resolve_device, seconds
from pdsynth.types import Available, InputError, Modality, Size, Space, counted

NO_RUN, NEW_RUN = "holds no run of `pdsynth train` that can be resumed", "leave out --resume to start a run"
if TYPE_CHECKING:
    from pdsynth.adaptation import Adaptation
    from pdsynth.data.pairs import Pairs
    from pdsynth.methods.base import Method

TABLE = "synthesised.tsv"
ModelFolder = Annotated[str, typer.Argument(help="A folder that train wrote, or `default`.", metavar="MODEL")]


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
    done("Train one of them", *("train", "prepared", "run", "--recipe", "pds"))


def train(
    prepared: PreparedFolder,
    run: Annotated[Path, typer.Argument(help="Folder to write.", metavar="RUN")],
    recipe: Annotated[str, typer.Option(help="Name of a recipe (`pdsynth recipes` lists them).")] = "pds",
    budget: Budget = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Number of steps, instead of a budget.")] = FitOptions.steps,
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
        int, typer.Option(min=1, help="GPUs, or processes on a CPU, that train together, each on its own batches.")
    ] = FitOptions.devices,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
) -> None:
    """Train a recipe on the training participants; writes RUN/model and RUN/metrics.csv.

    metrics.csv has the losses of the training steps; a recipe that is fitted without such steps writes none.
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
        precision=precision and precision.value,
        resume=resume,
        size=size,
        settings=dict(_setting(change) for change in changes or []),
        atlases=atlases,
        init=init,
    )
    from pdsynth import api
    from pdsynth.data.pairs import Pairs, content

    pairs = Pairs.open(prepared)
    if not (pairs.table["available"] == Available.BOTH).any():
        remedy = "add such participants, or synthesise with the shipped model"
        raise InputError(prepared, "has no participant with both scans, on whom a model is trained", remedy)
    inputs = [prepared, *([api.model_folder(init)] if init else []), *atlases.values()]
    digests = content(prepared)
    method = api.untrained(recipe, pairs.train, options)  # an error of the options must come before a file is written
    parameters = {
        "recipe": recipe,
        "prepared": digests,
        "budget": budget,
        "steps": steps,
        "resume": resume,
        "size": size,
        "settings": options.settings,
        "devices": devices,
        "atlases": {modality.value: files.sha256(path) for modality, path in atlases.items()},
    }
    if resume and not (folders.output_path(run).exists() or folders.stopped(run)):
        raise InputError(run, NO_RUN, NEW_RUN)
    if dry_run:
        folders.refuse_occupied(run, overwrite or resume, inputs)
        done(f"Nothing was written. {_described(method, recipe, pairs, options)}", *without(DRY_RUN))
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
    how = (
        f", trained in {fitted.card['precision']}," if fitted.method.stages() else ""
    )  # others are fitted without steps
    done(
        f"The model{how} is in {model}",
        *("evaluate", prepared, "--model", model, "--out", "results"),
    )


def _described(method: Method, recipe: str, pairs: Pairs, options: FitOptions) -> str:
    """The training of `train` in words: the pairs, the device, the parameters and the limit of the training steps."""
    from pdsynth.recipes import RECIPES

    people = counted(pairs.train.table["participant_id"].nunique(), "participant")
    words = f"To train: {recipe} on {counted(len(pairs.train), 'pair')} of {people}"
    if not (stages := method.stages()):
        return f"{words}, in closed form"
    steps = options.steps or method.default_steps(len(pairs.train)) or RECIPES[recipe].steps
    limit = f"{options.budget:g} s of training steps" if options.budget else counted(steps, "step")
    names = " and ".join(stage.name for stage in stages)
    number = sum(weight.numel() for weight in method.parameters())
    return f"{words}, on {options.device}: {names}, {number:,} parameters, {limit}, then fits in closed form"


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
    done(f"The model is in {out}", *("evaluate", prepared, "--model", out, "--out", "results"))


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
    done(f"The model is in {out}", *("evaluate", prepared, "--model", out, "--out", "results"))


def _learnt_from(each: Adaptation) -> str:
    if each.sources:
        return f"{each.sources} source and {counted(each.targets, 'target scan')}"
    return f"{counted(each.participants, 'participant')} with both scans"


def _gain(each: Adaptation) -> str:
    if each.sources:
        return f"{100 * each.removed:.0f} +- {100 * each.removed_error:.0f} % of the mean error removed"
    return "too few to judge" if isnan(each.gain_db) else f"{each.gain_db:+.2f} +- {each.error_db:.2f} dB"


@where_options
def synthesize(
    model: ModelFolder,
    path: Annotated[Path, typer.Argument(help="A BIDS dataset, or one scan.", metavar="PATH")],
    out: Annotated[Path, typer.Argument(help="Folder to write, or to extend.", metavar="OUT")],
    to: Annotated[Modality | None, typer.Option(help="Modality to synthesise (default: the missing one).")] = None,
    samples: Annotated[
        int, typer.Option(min=0, help="Draws to write besides the estimate and its SD; for a generative model.")
    ] = 0,
    steps: Steps = 8,
    shell: Annotated[float, typer.Option(min=100, help="b-value of a synthesised dMRI, s/mm^2.")] = 1000,
    space: Annotated[
        Space, typer.Option(help="Write all images in this standard space too, with transforms as files of ITK.")
    ] = Space.NATIVE,
    seed: Seed = 0,
    where: Where = HERE,
    layout: LayoutOption = AUTO,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with status 2 if a scan is refused.")] = False,
    replace_refused: Annotated[
        bool, typer.Option("--replace-refused", help="Synthesise also the scans that exist but were refused.")
    ] = False,
    select: SelectOption = None,
    device: DeviceOption = Device.auto,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
) -> None:
    """Synthesise the missing scans of a dataset, or the other modality of one scan; all files are marked synthetic.

    Volumes that the same model made with the same options are not made again. No table of participants is read: the
    diagnosis does not enter synthesis.
    """
    workers = where.workers(path, gpu=device is Device.cuda)
    if workers.remote:
        path = path.absolute()  # the workers of a cluster may start in another folder
    elif device is Device.cuda:
        resolve_device(device.value)  # a missing GPU is an error at once; auto is resolved when torch is loaded
    elif workers.several and not dry_run:
        from pdsynth.workers import load_ahead

        load_ahead("pdsynth.synthesis")
    from pdsynth.cohorts.choice import Select
    from pdsynth.missing import REPLACE, Options, plan, refuse_other_options, synthesise_scans
    from pdsynth.outcomes import doubts, not_made
    from pdsynth.report.boilerplate import of_synthesis
    from pdsynth.weights import model_folder, model_record

    folder = model_folder(model).absolute()
    selection = Select.parse(select)
    options = Options(samples=samples, steps=steps, seed=seed, shell=shell, space=space)
    made_as = options.entries(folder)
    if dry_run:
        folders.refuse_occupied(out, True, [folder, path])
        if not overwrite and manifest.read(out):
            refuse_other_options(out, manifest.read(out), made_as)
        scans = plan(path, to, None if layout == AUTO else layout, replace_refused, selection)
        table("To synthesise", ("source", "file"), scans)
        done(
            f"Nothing was written. To synthesise, unless made before: {counted(len(scans), 'scan')}", *without(DRY_RUN)
        )
        return
    with folders.making(
        out,
        overwrite=overwrite,
        update=True,
        resume="give the same command again",
        check_manifest=lambda before: refuse_other_options(out, before, made_as),
        inputs=[folder, path],
    ) as work:
        stamps = manifest.read(work.folder).get("stamps", {})
        with (
            manifest.recorded(
                work.folder, "synthesize", inputs=[folder, path], seed=seed, to=to, made_as=made_as
            ) as entries,
            progress("Synthesising") as update,
        ):
            written, refused = synthesise_scans(
                folder,
                path,
                work.folder,
                options,
                to=to,
                layout=None if layout == AUTO else layout,
                device=device.value,
                jobs=workers,
                replace_refused=replace_refused,
                select=selection,
                progress=update,
                stamps=stamps,
            )
            simulated = bool(files.read_json(work.folder / "dataset_description.json").get("Simulated"))
            entries |= {"stamps": stamps, "model": model_record(folder), "simulated": simulated}
            of_synthesis(work.folder, entries).write(work.folder, simulated)
    if refused:
        table("Refused", ("file", "reason", "remedy"), [(str(r.path), r.reason, r.remedy) for r in refused])
    doubtful(doubts(out / TABLE), f"; see {TABLE}")
    files_written = counted(len(written), "SYNTHETIC file")
    done(f"{files_written}, research only, in {out}; {TABLE} lists the outcome of each scan")
    if number := not_made(out):
        error_line(f"Not synthesised: {counted(number, 'refused scan')}. {REPLACE}.", kind="Warning")
    if strict and refused:
        raise InputError(
            path, f"holds {counted(len(refused), 'refused scan')}", f"repair them; {out / TABLE} lists each"
        )
    pairs = ("prepare", path, "prepared", "--split", "0.5,0,0.5")
    measure = pairs if path.is_dir() else ("evaluate", "prepared", "--model", model, "--out", "results")
    done("Measure the model on participants who have both scans before you use these files", *measure)
