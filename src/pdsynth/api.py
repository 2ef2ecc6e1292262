"""The Python interface: fit, load and evaluate, as the command line does them."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pdsynth
from pdsynth import files, training
from pdsynth.atlas import Atlas, read_atlas
from pdsynth.data.pairs import Pairs
from pdsynth.evaluation import evaluate as scoring
from pdsynth.methods import checkpoint
from pdsynth.methods.base import Method
from pdsynth.methods.recipe import Role
from pdsynth.recipes import RECIPES, build
from pdsynth.resources import resolve_device, seconds
from pdsynth.synthesis import Model
from pdsynth.types import InputError, Modality
from pdsynth.weights import model_folder as model_folder

CLOSED_FORM = tuple(name for name, each in RECIPES.items() if each.role is Role.CONTROL and each.steps == 0)


def fit(
    recipe: str,
    train: Pairs,
    *,
    val: Pairs | None = None,
    run: str | Path = "run",
    budget: str | float | None = None,
    steps: int | None = None,
    seed: int = 0,
    device: str = "auto",
    resume: bool = False,
    init: str | Path | None = None,
    size: str = "full",
    settings: Mapping[str, Any] | None = None,
    precision: str | None = None,
    devices: int = 1,
    atlases: Mapping[Modality, str | Path] | None = None,
) -> Model:
    """Train a recipe on the training participants and save it in run/model.

    budget is wall time of the training steps (seconds, or text such as "10m"), closed-form fits and cached estimates
    come on top; without it and without `steps` the recipe's own number of steps or epochs is taken. Scores on `val`,
    where it holds two participants or more, enter the model's card. `init` names a model of the same method to begin
    with; `resume` goes on from the checkpoints in `run`, which must be of the same recipe, seed and training rows.
    size is "full" or, where the recipe has one, "small"; `settings` change the recipe's by name; `precision` is
    Lightning's word, by default the fast one of the device (`resolve_precision`), and the card names it. `devices`
    processes or GPUs train together. `atlases` are label images in MNI space that replace the default regions A_f and
    A_d; the card names them too. Raises ValueError for an unknown budget or a device that is not here, and what
    `untrained` raises.
    """
    method = untrained(recipe, train, seed, init, size, settings, atlases)
    limit = seconds(budget) if isinstance(budget, str) else budget
    if limit is None and steps is None:
        steps = method.default_steps(len(train)) or RECIPES[recipe].steps or None
    run, default = Path(run), RECIPES[recipe].precision
    precision = training.chosen_precision(run, precision, resolve_device(device), resume, default)
    begun_with = load(init, "cpu").card if init is not None else None
    method = training.train(
        method,
        train,
        run,
        seed=seed,
        steps=steps,
        budget=limit,
        device=device,
        resume=resume,
        precision=precision,
        devices=devices,
    )
    card = _card(recipe, train) | {
        "seed": seed,
        "steps": steps,
        "budget_seconds": limit,
        "precision": precision,
        "devices": devices,
        "init": init and str(init),
        "size": size,
    }
    if atlases:
        named = {modality.value: Path(path) for modality, path in atlases.items()}
        card["atlases"] = {name: {"file": path.name, "sha256": files.sha256(path)} for name, path in named.items()}
    if begun_with is not None:
        card["scans_sha256"] = _seen_by_both(begun_with, card)
    checkpoint.save(method, run / "model", card)  # before it is scored: a failure there must lose nothing
    if val is not None and val.whole_scans().table["participant_id"].nunique() >= 2:
        scores = scoring.evaluate({recipe: method.to(resolve_device(device))}, val, seed=seed)["methods"][recipe]
        card["validation_psnr_brain"] = {direction: score["psnr_brain"]["mean"] for direction, score in scores.items()}
        checkpoint.save(method, run / "model", card)
    return load(run / "model", device)


def untrained(
    recipe: str,
    train: Pairs,
    seed: int,
    init: str | Path | None = None,
    size: str = "full",
    settings: Mapping[str, Any] | None = None,
    atlases: Mapping[Modality, str | Path] | None = None,
) -> Method:
    """What `fit` begins with: a fresh method for the pairs' grid, of weights drawn from the seed, or the model `init`.

    Raises ValueError for an unknown recipe, size or setting, for atlases that the recipe does not use, for the oracle,
    and where there is no training pair; InputError for an `init` of another method or preprocessing, or with settings
    of its own beside it, and for an atlas that can't be used.
    """
    method = _untrained(recipe, train, seed, init, size, settings)
    if atlases and not method.regional:
        raise ValueError(f"the recipe {recipe} uses no atlas. Leave out --atlas-fmri and --atlas-dmri.")
    for modality, path in (atlases or {}).items():
        atlas = read_atlas(path, train.grid)
        if len(atlas) < 2:
            raise InputError(path, "has one region on the grid, so no pattern", "give an atlas of two regions or more")
        method.atlases[modality] = atlas
    return method


def _untrained(
    recipe: str,
    train: Pairs,
    seed: int,
    init: str | Path | None,
    size: str,
    settings: Mapping[str, Any] | None,
) -> Method:
    if recipe not in RECIPES:
        raise ValueError(f"there is no recipe {recipe!r}. Choose from {', '.join(RECIPES)}.")
    if recipe == scoring.ORACLE:
        raise ValueError("the oracle reads a simulated cohort's truth and can't be trained. `evaluate` adds it itself.")
    if len(train) == 0:
        raise ValueError(f"{train.root} holds no training pair. Prepare it with a larger first fraction in --split.")
    if init is None:
        method = build(recipe, train, seed, size, settings)
        method.feature_loss()  # an unknown layer, or a file that does not fit, is told now and not after the first fits
        return method
    if settings or size != "full":
        raise InputError(init, "has its own settings", "leave out --set and --size, or --init")
    model, wanted = load(init, "cpu"), RECIPES[recipe].method
    if model.method.name != wanted:
        raise InputError(init, f"is a {model.method.name} model, not {wanted}", f"name a {wanted} model in --init")
    refuse_other_preprocessing({str(init): model}, train)
    return model.method


def load(model: str | Path, device: str = "auto") -> Model:
    """A folder written by `fit` or `pdsynth train`, or "default" for the shipped model."""
    return Model.load(model, device)


def evaluate(
    models: Model | Mapping[str, Model | Method],
    pairs: Pairs,
    out: str | Path | None = None,
    *,
    seed: int = 0,
    samples: int = 0,
    steps: int = 8,
    ceiling: bool = True,
    atlas: Atlas | None = None,
) -> dict[str, Any]:
    """Metrics and audit of one model, or of several by name, on whole scans; the content of metrics.json.

    With three `samples` or more, a generative method's uncertainty is audited too, each drawn in `steps` steps. On
    simulated data the `ceiling`, the oracle, is added; `atlas` names the regions whose means are kept. Raises
    InputError for a model of another preprocessing than the pairs', and for one that was trained on a scan to be
    scored.
    """
    named = {models.method.name: models} if isinstance(models, Model) else models
    refuse_other_preprocessing(named, pairs)
    refuse_leak(named, pairs)
    methods = {name: m.method if isinstance(m, Model) else m for name, m in named.items()}
    folder = Path(out) if out else None
    return scoring.evaluate(
        methods, pairs, folder, seed=seed, samples=samples, sample_steps=steps, ceiling=ceiling, atlas=atlas
    )


def fit_controls(
    train: Pairs, *, names: Iterable[str] = CLOSED_FORM, budget: float | None = None, seed: int = 0
) -> dict[str, Method]:
    """The controls of every table, fitted on the training participants; `budget` in seconds for each that trains.

    Their weights are kept in memory only. Raises ValueError where there is no training pair.
    """
    if len(train) == 0:
        raise ValueError(
            f"{train.root} holds no training pair to fit controls on. Use --no-controls, or another --split."
        )
    with tempfile.TemporaryDirectory() as run:
        return {
            name: training.train(build(name, train), train, Path(run) / name, seed=seed, budget=budget, device="cpu")
            for name in names
        }


def refuse_other_preprocessing(models: Mapping[str, Model | Method], pairs: Pairs) -> None:
    """Raise InputError where a model was trained on scans that were preprocessed in another way than the pairs.

    The rule for brain masks counts only where the pairs hold a scan whose mask was given. A bare method knows the shape
    of its grid and nothing else.
    """
    ours = pairs.preprocessing
    for name, model in models.items():
        if isinstance(model, Model):
            theirs = model.preprocessing
            differs = theirs.difference(ours)
            if not pairs.masks_given:
                differs.pop("mask", None)
            if differs:
                here, there = (" and ".join(each[side] for each in differs.values()) for side in (1, 0))
                options = [theirs.option(setting) for setting in differs]
                remedy = (
                    f"prepare {', '.join(filter(None, options))}" if all(options) else "train a model on this folder"
                )
                raise InputError(pairs.root, f"has {here}, but {name} {there}", remedy)
        shape = tuple((model.method if isinstance(model, Model) else model).config.grid_shape)
        if shape != ours.grid.shape:
            problem = f"has a grid of {ours.grid.shape} voxels, but {name} one of {shape}"
            raise InputError(pairs.root, problem, "prepare with the --grid-mm of the method")


def refuse_leak(models: Mapping[str, Model | Method], pairs: Pairs) -> None:
    """Raise InputError where a model was trained or calibrated on a scan that is to be scored, under whatever name.

    Rows of the training split may be scored with what was trained on them: their figures say so. A model that does not
    name its scans (one made by an older version) can't be checked.
    """
    unseen = pairs.where(pairs.table["split"] != "train").scan_digests()
    for name, model in models.items():
        card = model.card if isinstance(model, Model) else {}
        for used, whom, scored in (
            ("trained", card, unseen),
            ("calibrated", card.get("calibration", {}), pairs.scan_digests()),
        ):
            known = scored.keys() & set(whom.get("scans_sha256", []))
            if known:
                person = min(scored[digest] for digest in known)
                problem = f"holds, to be scored, a scan of {person} that {name} was {used} on"
                raise InputError(pairs.root, problem, f"score it on others, or use one not {used} on them")


def unchecked(models: Mapping[str, Model], pairs: Pairs) -> list[str]:
    """The models of which `refuse_leak` can't tell: their card or the prepared folder holds no digests of scans."""
    told = bool(pairs.scan_digests())
    return [name for name, model in models.items() if not (told and model.card.get("scans_sha256"))]


def _seen_by_both(begun_with: Mapping[str, Any], card: Mapping[str, Any]) -> list[str]:
    """The scans that weights were trained on which began as another model's; none where that does not name its own."""
    before = begun_with.get("scans_sha256")
    return sorted({*before, *card["scans_sha256"]}) if before else []


def _card(recipe: str, train: Pairs) -> dict[str, Any]:
    """What a model's reader must know: how scans were preprocessed, and whom it was trained on."""
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
