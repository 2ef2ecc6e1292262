"""The Python interface to the verbs: fit, load and evaluate."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pdsynth
from pdsynth import files, training
from pdsynth.atlas import Atlas, read_atlas
from pdsynth.data.pairs import Pairs
from pdsynth.evaluation import evaluate as scoring
from pdsynth.evaluation.metrics import PRIMARY
from pdsynth.journal import read_cost
from pdsynth.methods import checkpoint
from pdsynth.methods.base import Method
from pdsynth.methods.recipe import Role
from pdsynth.options import EvaluateOptions, FitOptions, TrainOptions
from pdsynth.recipes import RECIPES, build, full_steps
from pdsynth.resources import resolve_device, seconds
from pdsynth.synthesis import Model
from pdsynth.types import InputError, Modality, Size, Split
from pdsynth.weights import model_folder as model_folder
from pdsynth.workers import Workers

CLOSED_FORM = tuple(name for name, each in RECIPES.items() if each.role is Role.CONTROL and each.steps == 0)


def fit(
    recipe: str,
    train: Pairs,
    *,
    val: Pairs | None = None,
    run: str | Path = "run",
    budget: str | float | None = FitOptions.budget,
    steps: int | None = FitOptions.steps,
    seed: int = FitOptions.seed,
    device: str = FitOptions.device,
    devices: int = FitOptions.devices,
    accumulate: int = FitOptions.accumulate,
    precision: str | None = FitOptions.precision,
    resume: bool = FitOptions.resume,
    size: str = FitOptions.size,
    settings: Mapping[str, Any] | None = FitOptions.settings,
    atlases: Mapping[Modality, str | Path] | None = FitOptions.atlases,
    init: str | Path | None = FitOptions.init,
) -> Model:
    """Train a recipe (a named configuration of a method) on the training participants; returns the model.

    train: the pairs of fMRI and dMRI to train on. The model is also saved in run/model. `budget` is the wall time of
    the training steps, in seconds or as text such as "10m"; closed-form fits and cached estimates take further time.
    `steps` is the number of training steps. If both are given, training ends at the first of the two; if neither is,
    the recipe's own number of steps or epochs applies. val: participants who are scored after training; if they are two
    or more, the mean PSNR in the brain per direction is written into the model's card (record of the training, in
    config.json). seed: of the first weights and of all random numbers of the training. `resume` continues from the
    checkpoints in `run`. They must come from the same recipe, seed and training scans, which is not checked here.
    Without `resume`, they are removed.

    `init` is the folder of a model of the same method, or "default" for the shipped one. The training starts from its
    weights, with its size and settings. `size` is "full", or "small" for a recipe that has a small size. `settings` are
    new values of settings of the recipe, by name. `precision` is "32-true", "bf16-mixed" or "16-mixed" (names of the
    library Lightning); None means that of the resumed run or of the recipe, or a faster one if the device is slow at
    the recipe's. The card records it. `device` is "auto", "cpu" or "cuda"; `devices` is the number of processes or GPUs
    that divide each batch among them, `accumulate` that of the parts of a device's batch, which it takes one after the
    other; neither changes the result, but for rounding. `atlases` are paths of label images in MNI space, by modality,
    which replace the default regions of a loss on region means.

    Raises ValueError for a budget that cannot be read, a device that this machine lacks, an unknown recipe, size,
    setting or precision, the recipe "oracle", atlases that the recipe does not use, a resumed run of another precision
    or number of devices or parts, batches that these do not divide, and if there is no training pair. Raises InputError
    if `init`, an atlas or a checkpoint cannot be used, and if `init` is given with settings or with a size other than
    "full".
    """
    options = FitOptions(
        steps=steps,
        budget=seconds(budget) if isinstance(budget, str) else budget,
        seed=seed,
        device=device,
        devices=devices,
        accumulate=accumulate,
        precision=precision,
        resume=resume,
        size=size,
        settings=settings,
        atlases=atlases,
        init=init,
    )
    return fit_recipe(recipe, train, Path(run), options, val=val)


def fit_recipe(recipe: str, train: Pairs, run: Path, options: FitOptions, val: Pairs | None = None) -> Model:
    """Train a recipe and save the model in run/model; returns the model. `fit` is the same with single arguments.

    run: folder of the run. options: the other arguments of `fit` (budget in seconds, steps, seed, device, size,
    settings and so on). val: pairs of participants who are scored after training, for the record of the model; None, or
    fewer than two participants, for no scores. Raises the errors of `fit`.
    """
    method = untrained(recipe, train, options)
    device = resolve_device(options.device)
    if options.budget is None and options.steps is None:
        options = replace(options, steps=full_steps(method, recipe, len(train)))
    precision = training.chosen_precision(run, options, device, RECIPES[recipe].precision)
    options = replace(options, precision=precision)
    init_card = load(options.init, "cpu").card if options.init is not None else None
    method = training.train(method, train, run, options)
    card = _card(recipe, train) | {
        "seed": options.seed,
        "steps": options.steps,
        "budget_seconds": options.budget,
        **_spent(run),
        "precision": precision,
        "devices": options.devices,
        "accumulate": options.accumulate,
        "init": options.init and str(options.init),
        "size": options.size,
    }
    if options.atlases:
        named = {modality.value: Path(path) for modality, path in options.atlases.items()}
        card["atlases"] = {name: {"file": path.name, "sha256": files.sha256(path)} for name, path in named.items()}
    if init_card is not None:
        card["scans_sha256"] = _scans_of_both(init_card, card)
    checkpoint.save(method, run / "model", card)  # before the scores: an error there must not lose the model
    if val is not None and val.whole_scans().participants >= 2:
        scores = scoring.evaluate({recipe: method.to(device)}, val, seed=options.seed)["methods"][recipe]
        card["validation_psnr_brain"] = {direction: score[PRIMARY]["mean"] for direction, score in scores.items()}
        checkpoint.save(method, run / "model", card)
    return load(run / "model", options.device)


def _spent(run: Path) -> dict[str, Any]:
    """For a model's card, the training steps of a run and their seconds, over all stages; {} without such steps."""
    stages = read_cost(run).values()
    if not stages:
        return {}
    return {"steps_done": sum(s["steps"] for s in stages), "seconds": round(sum(s["seconds"] for s in stages), 1)}


def untrained(recipe: str, train: Pairs, options: FitOptions) -> Method:
    """The method that `fit` trains, before its first step.

    It is a new method for the grid of the pairs, with random weights from options.seed. If options.init names the
    folder of a model, it is the method of that model with its weights.

    Raises ValueError for an unknown recipe, size or setting, for atlases that the recipe does not use, for the recipe
    "oracle", which cannot be trained, for batches that options.devices and options.accumulate do not divide, and if
    there is no training pair. Raises InputError if the model `init` has
    another method or was trained on scans of another preprocessing, if settings or a size are given together with
    `init`, and if an atlas cannot be read or has fewer than two regions on the grid.
    """
    method = _initial(recipe, train, options)
    training.refuse_uneven(method.stages(), options)
    if options.atlases and not method.regional:
        raise ValueError(f"the recipe {recipe} uses no atlas. Leave out --atlas-fmri and --atlas-dmri.")
    for modality, path in (options.atlases or {}).items():
        atlas = read_atlas(path, train.grid)
        if len(atlas) < 2:
            raise InputError(path, "has one region on the grid, so no pattern", "give an atlas of two regions or more")
        method.atlases[modality] = atlas
    return method


def _initial(recipe: str, train: Pairs, options: FitOptions) -> Method:
    if recipe not in RECIPES:
        raise ValueError(f"there is no recipe {recipe!r}. Choose from {', '.join(RECIPES)}.")
    if recipe == scoring.ORACLE:
        raise ValueError("the oracle reads a simulated cohort's truth and can't be trained. `evaluate` adds it itself.")
    if len(train) == 0:
        raise ValueError(f"{train.root} holds no training pair. Prepare it with a larger first fraction in --split.")
    init = options.init
    if init is None:
        method = build(recipe, train, seed=options.seed, size=options.size, changes=options.settings)
        method.feature_loss()  # an unknown layer, or weights that do not fit, must fail before the closed-form fits
        return method
    if options.settings or options.size != Size.FULL:
        raise InputError(init, "has its own settings", "leave out --set and --size, or --init")
    model, expected = load(init, "cpu"), RECIPES[recipe].method
    if model.method.name != expected:
        raise InputError(init, f"is a {model.method.name} model, not {expected}", f"name a {expected} model in --init")
    refuse_other_preprocessing({str(init): model}, train)
    return model.method


def load(model: str | Path, device: str = "auto") -> Model:
    """Load a trained model from the folder that `fit` or `pdsynth train` wrote; "default" is the shipped model.

    The folder is run/model of a run. device: "cpu", "cuda", or "auto" for CUDA if there is one. Raises InputError if
    the folder is not a model, or is damaged, and ValueError for a device that this machine lacks.
    """
    return Model.load(model, device)


def evaluate(
    models: Model | Mapping[str, Model | Method],
    pairs: Pairs,
    out: str | Path | None = None,
    *,
    seed: int = EvaluateOptions.seed,
    samples: int = EvaluateOptions.samples,
    steps: int = EvaluateOptions.steps,
    ceiling: bool = True,
    atlas: Atlas | None = None,
    jobs: int | Workers = 1,
) -> dict[str, Any]:
    """Score and audit one model, or several by name, on whole scans; returns the content of metrics.json.

    The first model is the one under test, which is compared with all others except the oracle. Scans of `pairs` whose
    session lacks the other modality are left out. If `out` is given, the results are written into this folder. seed: of
    all random numbers. atlas: regions whose mean signal is saved for every scan; None means the regions of the paper
    with hippocampi and amygdalae.

    The audit of uncertainty tests the SD that a method gives with each prediction. For a generative method and
    `samples` of 3 or more, it tests the SD over this number of samples instead, each drawn in `steps` sampling steps.
    If the pairs are simulated and `ceiling` is true, the oracle, which knows the simulated anatomy, is added as an
    upper limit. `jobs` processes of one thread each share the scans; their number changes nothing but the times. In
    place of a number, `Workers` can name a cluster. A program that calls this function with several jobs must guard its
    main module, as Python's multiprocessing requires.

    Raises InputError if the preprocessing of a model differs from that of the pairs, if a model was trained on a scan
    of the pairs that is outside their training split, or if it was calibrated on a scan of the pairs. Raises ValueError
    if there is no model, if fewer than two participants have both scans, if a model returns values that are not finite,
    and, for more than one job, if a method is not one of `pdsynth.methods`.
    """
    named = {models.method.name: models} if isinstance(models, Model) else models
    refuse_other_preprocessing(named, pairs)
    refuse_leak(named, pairs)
    methods = {name: m.method if isinstance(m, Model) else m for name, m in named.items()}
    folder = Path(out) if out else None
    return scoring.evaluate(
        methods, pairs, folder, seed=seed, samples=samples, sample_steps=steps, ceiling=ceiling, atlas=atlas, jobs=jobs
    )


def fit_controls(
    train: Pairs,
    *,
    names: Iterable[str] = CLOSED_FORM,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Method]:
    """Fit controls (simple methods for comparison) on the training participants; returns the fitted methods by name.

    names: recipes without training steps; the default is all such controls. seed: of the fits. progress(fitted,
    controls) is called before each control. The fits leave no file. Raises ValueError if there is no training pair, or
    for a recipe that has training steps, and KeyError for an unknown recipe.
    """
    if len(train) == 0:
        raise ValueError(
            f"{train.root} holds no training pair to fit controls on. Use --no-controls, or another --split."
        )
    options = TrainOptions(seed=seed, device="cpu")
    names, fitted = list(names), dict[str, Method]()
    with tempfile.TemporaryDirectory() as run:
        for number, name in enumerate(names):
            if progress is not None:
                progress(number, len(names))
            fitted[name] = training.train(build(name, train), train, Path(run) / name, options)
    return fitted


def refuse_other_preprocessing(models: Mapping[str, Model | Method], pairs: Pairs) -> None:
    """Raise InputError if a model was trained on scans that were prepared in another way than the pairs.

    models: models or methods, by the name for the message. The settings of the preparation (such as grid and denoising)
    are compared. The rule for brain masks is compared only if a scan of the prepared folder came with a brain mask, and
    the registration of a scan alone only if the folder has a dMRI that was not registered through an fMRI. A method has
    no record of its preparation, so only the shape of its grid is compared.
    """
    ours = pairs.preprocessing
    for name, model in models.items():
        if isinstance(model, Model):
            theirs = model.preprocessing
            differs = theirs.difference(ours)
            if not pairs.masks_given:
                differs.pop("mask", None)
            if "alone" in differs and not pairs.has_dmri_alone():
                differs.pop("alone")
            if differs:
                of_model, of_pairs = (" and ".join(each[side] for each in differs.values()) for side in (0, 1))
                options = [theirs.option(setting) for setting in differs]
                remedy = (
                    f"prepare {', '.join(filter(None, options))}" if all(options) else "train a model on this folder"
                )
                raise InputError(pairs.root, f"has {of_pairs}, but {name} {of_model}", remedy)
        shape = tuple((model.method if isinstance(model, Model) else model).config.grid_shape)
        if shape != ours.grid.shape:
            problem = f"has a grid of {ours.grid.shape} voxels, but {name} one of {shape}"
            raise InputError(pairs.root, problem, "prepare with the --grid-mm of the method")


def refuse_leak(models: Mapping[str, Model | Method], pairs: Pairs) -> None:
    """Raise InputError if a model was calibrated on a scan to score, or trained on one outside the training split.

    models: the models by name; pairs: the scans to score. Scans are recognised by the SHA-256 of their bytes, so the
    names of files and participants do not matter. Scans of the training split of `pairs` may be scored with a model
    that was trained on them, because the report states the split. A model of an older version does not record its scans
    and is not checked; neither is a method without a record. Raises InputError also if the prepared folder of the pairs
    does not record the SHA-256 of its scans.
    """
    outside_training = pairs.where(pairs.table["split"] != Split.TRAIN).scan_digests()
    for name, model in models.items():
        card = model.card if isinstance(model, Model) else {}
        for used, record, scored in (
            ("trained", card, outside_training),
            ("calibrated", card.get("calibration", {}), pairs.scan_digests()),
        ):
            known = scored.keys() & set(record.get("scans_sha256", []))
            if known:
                person = min(scored[digest] for digest in known)
                problem = f"holds a scan of {person}, on which {name} was {used}, among the scans to score"
                raise InputError(pairs.root, problem, f"score it on other scans, or use a model not {used} on these")


def new_people(name: str, model: Model, pairs: Pairs) -> Pairs:
    """The whole scans of participants outside the test split of the pairs who were not in the training set of a model.

    name: of the model, for messages. pairs: of any splits. Participants with one scan are among them. Raises InputError
    if the model has another preprocessing than the pairs, and if its card (record of the training) does not list its
    training scans.
    """
    refuse_other_preprocessing({name: model}, pairs)
    if unchecked({name: model}, pairs):
        problem = "does not list its training scans, so that participants outside its training set are not known"
        raise InputError(name, problem, "train it again with this version")
    training_scans = set(model.card["scans_sha256"])
    known = {person for digest, person in pairs.scan_digests().items() if digest in training_scans}
    return pairs.where((pairs.table["split"] != Split.TEST) & ~pairs.table["participant_id"].isin(known)).whole_scans()


def unchecked(models: Mapping[str, Model], pairs: Pairs) -> list[str]:
    """Names of the models for which a leak of training scans into the scored scans cannot be detected.

    The record of such a model lacks the SHA-256 digests of its training scans. If `pairs` has no scan, all names are
    returned. Raises InputError if the prepared folder of the pairs lacks the digests of its scans.
    """
    has_digests = bool(pairs.scan_digests())
    return [name for name, model in models.items() if not (has_digests and model.card.get("scans_sha256"))]


def _scans_of_both(init: Mapping[str, Any], card: Mapping[str, Any]) -> list[str]:
    """Digests of the scans behind a model and the model `init` that it started from; none if `init` records none."""
    before = init.get("scans_sha256")
    return sorted({*before, *card["scans_sha256"]}) if before else []


def _card(recipe: str, train: Pairs) -> dict[str, Any]:
    """Entries of a model's card (record of the training): recipe, preprocessing, and training participants."""
    people = sorted(set(train.table["participant_id"]))
    return {
        "recipe": recipe,
        "version": pdsynth.__version__,
        "intended_use": "research only",
        **train.preprocessing.entries(),
        "simulated": train.simulated,
        "n_participants": len(people),
        "participants_sha256": hashlib.sha256("\n".join(people).encode()).hexdigest(),
        "scans_sha256": sorted(train.scan_digests()),
        "cohort": train.root.name,
    }
