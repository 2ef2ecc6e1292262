"""Location and digest of a model's weights, without torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pdsynth.files import read_json, sha256
from pdsynth.types import InputError

WEIGHTS = "model.safetensors"
LONG = "scans_sha256"  # one digest per scan, which only the model's own card contains
DEFAULT = Path(__file__).parent / "models" / "default"


def model_path(model: str | Path) -> Path:
    """The folder of a model, which need not exist; "default" stands for the model that the package ships.

    >>> model_path("runs/model").as_posix(), model_path("default").name
    ('runs/model', 'default')
    """
    return DEFAULT if str(model) == "default" else Path(model)


def model_folder(model: str | Path) -> Path:
    """The folder of a trained model, checked; "default" stands for the model that the package ships.

    Raises InputError if the folder does not contain the file model.safetensors.
    """
    folder = model_path(model)
    if not (folder / WEIGHTS).is_file():
        raise InputError(folder, f"is not a model (no {WEIGHTS})", "name a folder written by `pdsynth train`")
    return folder


def weights_sha256(model: str | Path) -> str:
    """Hexadecimal SHA-256 of the weights file of a model, which identifies the model in the files that it synthesised.

    model: folder of the model, or "default" for the shipped one. Raises InputError if there is no weights file.
    """
    return sha256(model_path(model) / WEIGHTS)


def without_scans(card: Mapping[str, Any]) -> dict[str, Any]:
    """A card (record of a training) without the digests of single scans, which are many; for a manifest."""
    short = {key: value for key, value in card.items() if key != LONG}
    return {key: without_scans(value) if isinstance(value, Mapping) else value for key, value in short.items()}


def model_record(model: str | Path) -> dict[str, Any]:
    """A record of a model for a manifest: digest of its weights (sha256), method, and card without digests of scans.

    model: folder of the model, or "default" for the shipped one. Raises InputError if there is no weights file.
    """
    written = read_json(model_path(model) / "config.json")
    return {
        "sha256": weights_sha256(model),
        "method": written.get("method"),
        "card": without_scans(written.get("card", {})),
    }
