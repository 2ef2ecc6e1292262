"""A trained method on disk: `model.safetensors` holds all tensors, `config.json` the rest. No pickle is read.

Both files may come from an untrusted source. Therefore everything that is used later is checked when a model is loaded.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import safetensors.torch
import torch
from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from torch.nn.modules.module import register_module_parameter_registration_hook

from pdsynth import files, formats
from pdsynth.methods.base import ADDED, Method, create, registry
from pdsynth.schemas import SIDES, Affine, Kind, Real, Shape, Way, first_of, validate
from pdsynth.types import InputError
from pdsynth.weights import model_path

MOST = 1_000_000  # largest integer among the settings
LONGEST = 64 << 20  # bytes of config.json, at most; a million digests of scans are 20 MB
FROZEN = 1000  # largest number of tensors that a method creates but does not save, such as those of a feature loss

Shapes = dict[str, tuple[int, ...]]


class _Calibration(BaseModel):
    n_participants: int
    simulated: bool
    cohort: str
    coverage_90: Annotated[dict[Way, Real | None], Field(min_length=2, max_length=2)]
    scale: dict[Way, float] = {}
    scans_sha256: list[str] = []


class _AtlasFile(BaseModel):
    file: str
    sha256: str


class CardEntries(BaseModel):
    """Entries of the card (record of the training, in config.json).

    All are optional, since a method may be saved by hand; a trained model needs its grid.
    """

    recipe: str = ""
    size: str = ""
    version: str = ""
    intended_use: str = ""
    grid_shape: Shape = []
    grid_affine: Affine = []
    simulated: bool = False
    n_participants: int = 0
    participants_sha256: str = ""
    scans_sha256: list[str] = []
    cohort: str = ""
    seed: int = 0
    steps: int | None = None
    budget_seconds: float | None = None
    steps_done: int = 0
    seconds: float = 0.0
    init: str | None = None
    loss_features: str = ""
    atlases: dict[Kind, _AtlasFile] = {}
    made_on: str = ""
    training_data: str = ""
    validation_psnr_brain: dict[Way, float | None] = {}
    calibration: _Calibration = Field(default_factory=_Calibration.model_construct)


class _Written(BaseModel):
    format: int
    method: str
    config: dict[str, Any]
    card: CardEntries
    weights_sha256: str = ""


class Card(dict[str, Any]):
    """The record of a model's training in its config.json, by entry, such as the training participants or the grid.

    It is a dict. entries: its content. config: path of config.json, for messages. `card[entry]` raises InputError if
    the entry is missing.
    """

    def __init__(self, entries: Mapping[str, Any], config: Path) -> None:
        super().__init__(entries)
        self.config = config

    def __missing__(self, entry: str) -> Any:
        raise InputError(self.config, f"has a card without {entry}", "train the model again")


def save(method: Method, folder: str | Path, card: dict[str, Any], half: bool = False) -> Path:
    """Write a trained method into a folder: its tensors into model.safetensors, the rest into config.json.

    card: the record of the training (cohort, seed, scores, ...), as JSON values; the method's `notes` are added. half:
    store floating-point tensors in fp16; `load` converts them back to the types of the method. The folder is made, and
    files of these names are replaced. Each file is complete or absent, and config.json holds the SHA-256 of the
    weights. Returns the folder. Raises OSError, with the file's name, if the disk is full.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = {k: v.detach().cpu().contiguous() for k, v in method.state_dict().items()}
    if half:
        state = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    weights = safetensors.torch.save(state)
    written = {
        "format": formats.MODEL.number,
        "method": method.name,
        "config": dataclasses.asdict(method.config),
        "card": method.notes() | card,
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
    }
    files.write_bytes(folder / "model.safetensors", weights)
    files.write_json(folder / "config.json", written)
    return folder


def load(folder: str | Path) -> tuple[Method, Card]:
    """Load a method and its card (record of the training) from a folder; "default" is the model that the package ships.

    The method is in eval mode, on the CPU. Raises InputError if a file is missing, is not in the safetensors format
    (but a pickle, for example), does not fit the other file, or has contents that no model of this version has. Names
    and shapes of the saved tensors are checked before memory for the method's own is allocated.
    """
    folder = model_path(folder)
    weights, config = folder / "model.safetensors", folder / "config.json"
    for path in (weights, config):
        if not path.is_file():
            raise InputError(
                path, "is missing, so the folder is not a model", "name a folder written by `pdsynth train`"
            )
    written = _described(config)
    shapes = _shapes(weights)
    if written.get("weights_sha256", "") not in ("", files.sha256(weights)):
        problem = "is damaged, or not the file that its config.json belongs to"
        raise InputError(weights, problem, "keep the two files of one run together, or copy the model again")
    with _refusing(config):
        empty = _empty(written["method"], written["config"], len(shapes))
        _check_card(written["card"], empty)
    _check_shapes(weights, shapes, empty)
    with _refusing(config):
        method = create(written["method"], written["config"])
    try:
        method.load_state(safetensors.torch.load_file(weights))
    except MemoryError:
        raise
    except Exception as error:  # number types that torch lacks, values that cannot be converted
        raise InputError(weights, "does not fit its config.json", "keep the two files of one run together") from error
    return method.eval(), Card(written["card"], config)


@contextmanager
def _refusing(config: Path) -> Iterator[None]:
    """Convert every error of the block into an InputError that names config.json and gives the reason in one line."""
    try:
        yield
    except (InputError, MemoryError):
        raise
    except ValidationError as error:
        reason = ": ".join(filter(None, first_of(error)))
        raise InputError(config, f"does not describe a model ({reason})", "train the model again") from error
    except Exception as error:  # networks raise different errors for settings from which they cannot be built
        reason = f"{str(error).partition(chr(10))[0][:200] or type(error).__name__}"
        raise InputError(config, f"does not describe a model ({reason})", "train the model again") from error


def _described(config: Path) -> dict[str, Any]:
    """The contents of config.json. Raises InputError if it is too long, of another format, or has an invalid entry."""
    if config.stat().st_size > LONGEST:
        raise InputError(config, "is too long to describe a model", "train the model again")
    text = config.read_bytes()
    with _refusing(config):
        written = json.loads(text)
        if isinstance(written, dict) and "format" in written:
            card = written.get("card")
            formats.MODEL.check(written["format"], config, card.get("version") if isinstance(card, dict) else None)
        validate(written, _Written)
        _check_settings(written["method"], written["config"])
    return written


def _check_settings(name: str, settings: Mapping[str, Any]) -> None:
    """Raise ValueError for a setting that the method does not have, of another type, or out of range."""
    types = get_type_hints(registry()[name].config_type) if name in registry() else {}
    unknown = sorted(settings.keys() - types.keys()) if types else []
    if unknown:
        raise ValueError(f"{name} of this version has no setting {', '.join(unknown)}")
    for setting, value in settings.items():
        given = tuple(value) if isinstance(value, list) else value
        if setting in types:
            try:
                TypeAdapter(types[setting]).validate_python(given, strict=True)
            except ValidationError as error:
                raise ValueError(f"{setting}: {error.errors()[0]['msg']}") from error
        for number in given if isinstance(given, tuple) else (given,):
            if isinstance(number, int) and not 0 <= number <= MOST:
                raise ValueError(f"{setting} is not within 0 and {MOST}")
            if isinstance(number, float) and not math.isfinite(number):
                raise ValueError(f"{setting} is not finite")
    if not all(SIDES[0] <= side <= SIDES[1] for side in settings.get("grid_shape", [])):
        raise ValueError(f"grid_shape has a side that is not within {SIDES[0]} and {SIDES[1]} voxels")


def _empty(name: str, settings: dict[str, Any], saved: int) -> Method:
    """The method without memory for its tensors.

    saved: number of tensors in model.safetensors. Raises ValueError if the method has more than saved + FROZEN.
    """
    created = count()

    def limit(*_: object) -> None:
        if next(created) > saved + FROZEN:
            raise ValueError("its network has more weights than model.safetensors")

    hook = register_module_parameter_registration_hook(limit)  # building a million layers would take minutes
    try:
        with torch.device("meta"):
            return create(name, settings)
    finally:
        hook.remove()


def _check_card(card: Mapping[str, Any], method: Method) -> None:
    """Raise ValueError for a card (record of the training, in config.json) that does not fit the method.

    Such a card has no grid shape or no affine, or another shape than the method. A card with neither recipe nor grid,
    of a method saved by hand, passes.
    """
    if not card.keys() & {"recipe", "grid_shape", "grid_affine"}:
        return
    for entry in ("grid_shape", "grid_affine"):
        if entry not in card:
            raise ValueError(f"its card has no {entry}")
    if tuple(card["grid_shape"]) != tuple(method.config.grid_shape):
        raise ValueError(f"its card has a grid of {card['grid_shape']}, its config of {method.config.grid_shape}")


def _shapes(weights: Path) -> Shapes:
    """The shapes of all saved tensors, read from the header of the file."""
    try:
        with safe_open(weights, framework="pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(weights, "is not a safetensors file", "take the model from a source that you trust") from error


def _check_shapes(weights: Path, shapes: Shapes, method: Method) -> None:
    """Raise InputError unless names and shapes of the saved tensors are those of the method."""
    expected = method.state_dict()
    fitted = {name for name, _ in method.named_buffers()}
    saved = {name: tuple(expected[name].shape) for name in ADDED} | shapes
    for name in sorted(expected.keys() | saved.keys()):
        known = name in expected and name in saved
        if not known or not _may_be(saved[name], tuple(expected[name].shape), name in fitted):
            problem = f"does not fit its config.json ({name})"
            raise InputError(weights, problem, "keep the two files of one run together")


def _may_be(saved: tuple[int, ...], fresh: tuple[int, ...], fitted: bool) -> bool:
    """Whether a saved shape is valid for a tensor that has the shape `fresh` in an untrained method.

    fitted: whether the tensor is a buffer, whose axes of length zero a fit may enlarge. All other lengths must be
    equal.
    """
    return len(saved) == len(fresh) and all(s == f or (fitted and f == 0) for s, f in zip(saved, fresh, strict=True))
