"""The Python interface: fit, load and evaluate, as the command line does them."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pdsynth
from pdsynth import training
from pdsynth.data.pairs import Pairs
from pdsynth.evaluation import evaluate as scoring
from pdsynth.methods import checkpoint
from pdsynth.methods.base import Method
from pdsynth.recipes import CONTROLS, RECIPES, build
from pdsynth.resources import seconds
from pdsynth.synthesis import Model
from pdsynth.types import InputError

CLOSED_FORM = tuple(name for name in CONTROLS if name != scoring.ORACLE and RECIPES[name].steps == 0)


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
) -> Model:
    """Train a recipe on the training participants and save it in run/model.

    budget is wall time (seconds, or text such as "10m"); without it and without `steps` the recipe's own number of
    steps is taken. Scores on `val`, where it holds two participants or more, enter the model's card. `init` names a
    model of the same method to begin with; `resume` goes on from the checkpoints in `run`. Raises ValueError for an
    unknown recipe or budget, and where there is no training pair; InputError for an `init` that does not fit.
    """
    if recipe not in RECIPES:
        raise ValueError(f"there is no recipe {recipe!r}. Choose from {', '.join(RECIPES)}.")
    if len(train) == 0:
        raise ValueError(f"{train.root} holds no training pair. Prepare it with a larger first fraction in --split.")
    limit = seconds(budget) if isinstance(budget, str) else budget
    if limit is None and steps is None:
        steps = RECIPES[recipe].steps or None
    method = _initial(init, recipe, train) if init else build(recipe, train)
    run = Path(run)
    method = training.train(
        method,
        train,
        run,
        seed=seed,
        steps=steps,
        budget=limit,
        device=device,
        resume=resume,
        precision=RECIPES[recipe].precision,
    )
    card = _card(recipe, train) | {"seed": seed, "steps": steps, "budget_seconds": limit, "init": init and str(init)}
    if val is not None and val.whole_scans().table["participant_id"].nunique() >= 2:
        scores = scoring.evaluate({recipe: method}, val, seed=seed)["methods"][recipe]
        card["validation_psnr_brain"] = {direction: score["psnr_brain"]["mean"] for direction, score in scores.items()}
    checkpoint.save(method, run / "model", card)
    return load(run / "model", device)


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
) -> dict[str, Any]:
    """Metrics and audit of one model, or of several by name, on whole scans; the content of metrics.json.

    With three `samples` or more, a generative method's uncertainty is audited too, each drawn in `steps` steps.
    """
    named = {models.method.name: models} if isinstance(models, Model) else models
    methods = {name: m.method if isinstance(m, Model) else m for name, m in named.items()}
    return scoring.evaluate(methods, pairs, Path(out) if out else None, seed=seed, samples=samples, sample_steps=steps)


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


def model_folder(model: str | Path) -> Path:
    """The folder of a model, or of the shipped one under the word "default"; InputError where it is none."""
    folder = checkpoint.located(model)
    if not (folder / "model.safetensors").is_file():
        raise InputError(folder, "is no model (no model.safetensors)", "name a folder written by `pdsynth train`")
    return folder


def _initial(init: str | Path, recipe: str, train: Pairs) -> Method:
    """The model to begin with, checked against the recipe and the grid."""
    method, _ = checkpoint.load(init)
    wanted = RECIPES[recipe].method
    if method.name != wanted:
        raise InputError(init, f"is a {method.name} model, not {wanted}", f"name a {wanted} model in --init")
    if tuple(method.config.grid_shape) != train.grid.shape:
        raise InputError(init, f"was made for the grid {method.config.grid_shape}", "prepare with the same --grid-mm")
    return method


def _card(recipe: str, train: Pairs) -> dict[str, Any]:
    """What a model's reader must know: the grid, and whom it was trained on."""
    people = sorted(set(train.table["participant_id"]))
    return {
        "recipe": recipe,
        "version": pdsynth.__version__,
        "intended_use": "research only",
        "grid_shape": list(train.grid.shape),
        "grid_affine": train.grid.affine.tolist(),
        "simulated": train.simulated,
        "n_participants": len(people),
        "participants_sha256": hashlib.sha256("\n".join(people).encode()).hexdigest(),
        "cohort": train.root.name,
    }
