"""A trained method on disk: `model.safetensors` for every tensor and `config.json` for the rest. No pickle is read.

Either file may come from anybody, so whatever is used later is checked when the model is loaded.
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
from typing import Annotated, Any, Literal, get_type_hints

import numpy as np
import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from torch.nn.modules.module import register_module_parameter_registration_hook

from pdsynth import files
from pdsynth.methods.base import Method, create, registry
from pdsynth.types import InputError
from pdsynth.weights import model_path

FORMAT = 3
SIDES = (8, 512)  # voxels of a grid's axis: 16 mm and more to less than .5 mm
MOST = 1_000_000  # of any whole number among the settings
MOST_MM = 1e6  # of any entry of an affine
LEAST_MM = 1e-3  # edge of a voxel
MOST_SKEWED = 1e6  # condition number of an affine
LONGEST = 64 << 20  # bytes of config.json: a million digests of scans are 20 MB
FROZEN = 1000  # weights that a method may make beside those that it saves: networks whose features a loss compares

Shapes = dict[str, tuple[int, ...]]
Way = Literal["fmri_to_dmri", "dmri_to_fmri"]
Side = Annotated[int, Field(ge=SIDES[0], le=SIDES[1])]
Length = Annotated[float, Field(ge=-MOST_MM, le=MOST_MM, allow_inf_nan=False)]
AffineRow = Annotated[list[Length], Field(min_length=4, max_length=4)]


class _Entries(BaseModel):
    """Entries of a config.json that something reads, of these types; others may stand beside them."""

    model_config = ConfigDict(strict=True, extra="allow")


class _Calibration(_Entries):
    n_participants: int
    simulated: bool
    cohort: str
    coverage_90: Annotated[
        dict[Way, Annotated[float, Field(allow_inf_nan=False)] | None], Field(min_length=2, max_length=2)
    ]
    scale: dict[Way, float] = {}
    scans_sha256: list[str] = []


class _AtlasFile(_Entries):
    file: str
    sha256: str


class _CardEntries(_Entries):
    """All may be left out, as they are where a method is saved by hand; the grid only of what was not trained."""

    recipe: str = ""
    size: str = ""
    version: str = ""
    intended_use: str = ""
    grid_shape: Annotated[list[Side], Field(min_length=3, max_length=3)] = []
    grid_affine: Annotated[list[AffineRow], Field(min_length=4, max_length=4)] = []
    simulated: bool = False
    n_participants: int = 0
    participants_sha256: str = ""
    scans_sha256: list[str] = []
    cohort: str = ""
    seed: int = 0
    steps: int | None = None
    budget_seconds: float | None = None
    init: str | None = None
    loss_features: str = ""
    atlases: dict[Literal["fmri", "dmri"], _AtlasFile] = {}
    made_on: str = ""
    training_data: str = ""
    validation_psnr_brain: dict[Way, float | None] = {}
    calibration: _Calibration = Field(default_factory=_Calibration.model_construct)


class _Written(_Entries):
    format: int
    method: str
    config: dict[str, Any]
    card: _CardEntries
    weights_sha256: str = ""


class Card(dict[str, Any]):
    """What config.json says of a model's training. An entry that is needed and not there is bad input."""

    def __init__(self, entries: Mapping[str, Any], config: Path) -> None:
        super().__init__(entries)
        self.config = config

    def __missing__(self, entry: str) -> Any:
        raise InputError(self.config, f"has a card without {entry}", "train the model again")


def save(method: Method, folder: str | Path, card: dict[str, Any], half: bool = False) -> Path:
    """Write a method and its card (training cohort, seed, scores ...); `half` stores weights in fp16.

    Each file is whole or absent, and config.json holds the digest of the weights. Raises OSError, with the file's name,
    where the disk is full.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = {k: v.detach().cpu().contiguous() for k, v in method.state_dict().items()}
    if half:
        state = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    weights = safetensors.torch.save(state)
    written = {
        "format": FORMAT,
        "method": method.name,
        "config": dataclasses.asdict(method.config),
        "card": method.notes() | card,
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
    }
    files.write_bytes(folder / "model.safetensors", weights)
    files.write_json(folder / "config.json", written)
    return folder


def load(folder: str | Path) -> tuple[Method, Card]:
    """The method and its card; the word "default" is the model shipped with the package.

    Raises InputError where a file is missing, is no safetensors (a pickle, say), does not fit the other one, or holds
    what no model of this version would. Nothing is allocated that the file of weights does not hold.
    """
    folder = model_path(folder)
    weights, config = folder / "model.safetensors", folder / "config.json"
    for path in (weights, config):
        if not path.is_file():
            raise InputError(path, "is missing, so the folder is no model", "name a folder written by `pdsynth train`")
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
    except Exception as error:  # types of number that torch lacks, values that do not convert
        raise InputError(weights, "does not fit its config.json", "keep the two files of one run together") from error
    return method.eval(), Card(written["card"], config)


@contextmanager
def _refusing(config: Path) -> Iterator[None]:
    """Whatever goes wrong in the block is the fault of config.json, and is said in one line."""
    try:
        yield
    except (InputError, MemoryError):
        raise
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        reason = f"{'.'.join(map(str, first['loc']))}: {first['msg']}".removeprefix(": ")
        raise InputError(config, f"does not describe a model ({reason})", "train the model again") from error
    except Exception as error:  # a network that can't be built of its settings fails in its own way
        reason = f"{str(error).partition(chr(10))[0][:200] or type(error).__name__}"
        raise InputError(config, f"does not describe a model ({reason})", "train the model again") from error


def _described(config: Path) -> dict[str, Any]:
    """What config.json holds, of the types that are expected."""
    if config.stat().st_size > LONGEST:
        raise InputError(config, "is too long to describe a model", "train the model again")
    text = config.read_bytes()
    with _refusing(config):
        written = json.loads(text)
        if isinstance(written, dict) and written.get("format", FORMAT) != FORMAT:
            problem = f"is of format {written['format']!r:.20}, where this version reads {FORMAT}"
            raise InputError(config, problem, "train the model again with this version")
        _Written.model_validate(written)
        _check_settings(written["method"], written["config"])
    return written


def _check_settings(name: str, settings: Mapping[str, Any]) -> None:
    """Raise ValueError for a setting of another type than the method's, or of a size that none has."""
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
    """The method without memory for its tensors. Raises ValueError where it makes many more than were saved."""
    made = count()

    def limit(*_: object) -> None:
        if next(made) > saved + FROZEN:
            raise ValueError("its network has more weights than model.safetensors")

    hook = register_module_parameter_registration_hook(limit)  # a million layers would take minutes to count
    try:
        with torch.device("meta"):
            return create(name, settings)
    finally:
        hook.remove()


def _check_card(card: Mapping[str, Any], method: Method) -> None:
    """Raise ValueError where the grid of a trained model is left out, is not its method's, or is none."""
    if not card.keys() & {"recipe", "grid_shape", "grid_affine"}:
        return
    for entry in ("grid_shape", "grid_affine"):
        if entry not in card:
            raise ValueError(f"its card has no {entry}")
    if tuple(card["grid_shape"]) != tuple(method.config.grid_shape):
        raise ValueError(f"its card has a grid of {card['grid_shape']}, its config of {method.config.grid_shape}")
    affine = np.array(card["grid_affine"], float)
    edges = np.linalg.norm(affine[:3, :3], axis=0)
    if affine[3].tolist() != [0, 0, 0, 1] or edges.min() < LEAST_MM or np.linalg.cond(affine[:3, :3]) > MOST_SKEWED:
        raise ValueError("its card has a grid_affine that can't be inverted")


def _shapes(weights: Path) -> Shapes:
    """The shapes of all saved tensors, from the header of the file alone."""
    try:
        with safe_open(weights, framework="pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(weights, "is no safetensors file", "take the model from a source that you trust") from error


def _check_shapes(weights: Path, shapes: Shapes, method: Method) -> None:
    """Raise InputError unless the saved tensors are those of the method."""
    expected = method.state_dict()
    fitted = {name for name, _ in method.named_buffers()}
    saved = {"sd_scale": tuple(expected["sd_scale"].shape)} | shapes  # not in models of before calibration
    for name in sorted(expected.keys() | saved.keys()):
        known = name in expected and name in saved
        if not known or not _may_be(saved[name], tuple(expected[name].shape), name in fitted):
            problem = f"does not fit its config.json ({name})"
            raise InputError(weights, problem, "keep the two files of one run together")


def _may_be(saved: tuple[int, ...], fresh: tuple[int, ...], fitted: bool) -> bool:
    """Whether a tensor may have this shape: an axis of no length is one that a fit makes longer, as with voxels."""
    return len(saved) == len(fresh) and all(s == f or (fitted and f == 0) for s, f in zip(saved, fresh, strict=True))
