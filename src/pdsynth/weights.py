"""Location and digest of a model's weights, without torch."""

from __future__ import annotations

from pathlib import Path

from pdsynth.files import sha256
from pdsynth.types import InputError

WEIGHTS = "model.safetensors"
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
