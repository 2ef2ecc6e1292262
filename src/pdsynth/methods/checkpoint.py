"""A trained method on disk: `model.safetensors` for every tensor and `config.json` for the rest. No pickle is read."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from pdsynth import manifest
from pdsynth.methods.base import Method, create
from pdsynth.types import InputError

FORMAT = 3
DEFAULT = Path(__file__).parent.parent / "models" / "default"


def located(model: str | Path) -> Path:
    """The folder of a model; the word "default" stands for the one shipped with the package."""
    return DEFAULT if str(model) == "default" else Path(model)


def save(method: Method, folder: str | Path, card: dict[str, Any], half: bool = False) -> Path:
    """Write a method and its card (training cohort, seed, scores ...); `half` stores weights in fp16."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = {k: v.detach().cpu().contiguous() for k, v in method.state_dict().items()}
    if half:
        state = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    weights, config = folder / "model.safetensors", folder / "config.json"
    save_file(state, weights.with_suffix(".partial"))
    weights.with_suffix(".partial").replace(weights)
    settings = dataclasses.asdict(method.config)
    written = {"format": FORMAT, "method": method.name, "config": settings, "card": method.notes() | card}
    manifest.write_json(config, written)
    return folder


def load(folder: str | Path) -> tuple[Method, dict[str, Any]]:
    """The method and its card; the word "default" is the model shipped with the package.

    Raises InputError where a file is missing, is no safetensors (a pickle, say), or does not fit its config.
    """
    folder = located(folder)
    weights, config = folder / "model.safetensors", folder / "config.json"
    for path in (weights, config):
        if not path.is_file():
            raise InputError(path, "is missing, so the folder is no model", "name a folder written by `pdsynth train`")
    try:
        written = json.loads(config.read_text())
        if written["format"] != FORMAT:
            problem = f"is of format {written['format']}, where this version reads {FORMAT}"
            raise InputError(config, problem, "train the model again with this version")
        method, card = create(written["method"], written["config"]), written["card"]
    except InputError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(config, f"does not describe a model ({error})", "train the model again") from error
    try:
        state = load_file(weights)
    except (SafetensorError, OSError) as error:
        raise InputError(weights, "is no safetensors file", "take the model from a source that you trust") from error
    try:
        method.load_state(state)
    except (RuntimeError, AttributeError) as error:
        raise InputError(weights, "does not fit its config.json", "keep the two files of one run together") from error
    return method.eval(), card


def sha256(folder: str | Path) -> str:
    """Hash of the weights: the model's identity in every sidecar."""
    folder = located(folder)
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
