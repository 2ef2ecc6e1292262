"""Where a model lies and which it is, known without torch."""

from __future__ import annotations

from pathlib import Path

from pdsynth.files import sha256
from pdsynth.types import InputError

WEIGHTS = "model.safetensors"
DEFAULT = Path(__file__).parent / "models" / "default"


def located(model: str | Path) -> Path:
    """The folder of a model; the word "default" stands for the one shipped with the package.

    >>> located("runs/model").as_posix(), located("default").name
    ('runs/model', 'default')
    """
    return DEFAULT if str(model) == "default" else Path(model)


def model_folder(model: str | Path) -> Path:
    """The folder of a model, or of the shipped one under the word "default"; InputError where it is none."""
    folder = located(model)
    if not (folder / WEIGHTS).is_file():
        raise InputError(folder, f"is no model (no {WEIGHTS})", "name a folder written by `pdsynth train`")
    return folder


def weights_sha256(model: str | Path) -> str:
    """Hash of the weights: the model's identity in every sidecar."""
    return sha256(located(model) / WEIGHTS)
