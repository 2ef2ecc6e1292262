"""A config.json or weights from anybody: bad input in one line, before any memory is taken for it, and nothing else."""

from __future__ import annotations

import json
import pickle
import time

import pytest
import torch
from safetensors.torch import load_file, save_file

from pdsynth.methods import checkpoint, create, registry
from pdsynth.synthesis import Model
from pdsynth.types import Direction, InputError

AFFINE = [[8.0, 0, 0, -94], [0, 8.0, 0, -132], [0, 0, 8.0, -78], [0, 0, 0, 1]]
CALIBRATION = {
    "cohort": "simulated",
    "simulated": True,
    "n_participants": 30,
    "scale": {"fmri_to_dmri": 1.2, "dmri_to_fmri": 0.9},
    "coverage_90": {"fmri_to_dmri": 0.897, "dmri_to_fmri": None},
    "scans_sha256": ["00ff"],
}
CARD = {
    "recipe": "unet",
    "grid_shape": [8, 16, 8],
    "grid_affine": AFFINE,
    "simulated": True,
    "n_participants": 3,
    "scans_sha256": ["00ff", "01ff"],
    "budget_seconds": 60,
    "steps": None,
    "validation_psnr_brain": {"fmri_to_dmri": 20.5},
    "calibration": CALIBRATION,
}
GONE = object()


@pytest.fixture
def model(tmp_path):
    method = create("unet", {"width": 8, "grid_shape": [8, 16, 8]})
    return checkpoint.save(method, tmp_path / "model", CARD)


def edit(folder, part, **entries):
    """Change entries of config.json, or of one of its parts; GONE takes one away."""
    config = folder / "config.json"
    written = json.loads(config.read_text())
    target = written[part] if part else written
    target |= entries
    for name in [name for name, value in entries.items() if value is GONE]:
        del target[name]
    config.write_text(json.dumps(written))


def refused(folder, name="config.json"):
    """The one line that names the file."""
    with pytest.raises(InputError) as raised:
        checkpoint.load(folder)
    assert raised.value.path == folder / name
    assert raised.value.remedy
    assert "\n" not in str(raised.value)
    return raised.value.problem


def test_the_model_itself_is_read(model):
    method, card = checkpoint.load(model)
    assert (method.config.width, card) == (8, CARD)
    assert Model.load(model, "cpu").grid.affine.tolist() == AFFINE


@pytest.mark.parametrize("name", sorted(registry()))
def test_every_method_of_its_usual_size_is_read(name, tmp_path):
    if name == "pds-paper":
        return  # 400 MB; its small one is read in test_conformance
    folder = checkpoint.save(create(name, {"grid_shape": [24, 28, 24]}), tmp_path, {})
    assert checkpoint.load(folder)[0].name == name


@pytest.mark.parametrize(
    ("setting", "value", "problem"),
    [
        ("width", 1_000_000_000, "width is not within 0 and 1000000"),
        ("width", -1, "width is not within 0 and 1000000"),
        ("width", "8", "width: Input should be a valid integer"),
        ("width", True, "width: Input should be a valid integer"),
        ("width", 8.5, "width: Input should be a valid integer"),
        ("width", [8], "width: Input should be a valid integer"),
        ("width", None, "width: Input should be a valid integer"),
        ("blocks", 1_000_000, "its network has more weights than model.safetensors"),
        ("levels", 1_000_000, "its network has more weights than model.safetensors"),
        ("levels", 0, "needs levels and blocks; got 0 and 2"),
        ("grid_shape", [100_000] * 3, "grid_shape has a side that is not within 8 and 512 voxels"),
        ("grid_shape", [-8, 16, 8], "grid_shape is not within 0 and 1000000"),
        ("grid_shape", [4, 16, 8], "grid_shape has a side that is not within 8 and 512 voxels"),
        ("grid_shape", [8, 16], "grid_shape: Field required"),
        ("grid_shape", "8x8", "grid_shape: Input should be a valid tuple"),
        ("grid_shape", 8, "grid_shape: Input should be a valid tuple"),
        ("depth_of_field", 2, "depth_of_field"),
    ],
)
def test_a_setting_that_no_method_has(model, setting, value, problem):
    began = time.monotonic()
    edit(model, "config", **{setting: value})
    assert problem in refused(model)
    assert time.monotonic() - began < 20  # a million blocks would take minutes


@pytest.mark.parametrize(
    ("method", "setting", "value"),
    [
        ("adm", "eta", float("nan")),
        ("adm", "sd", float("inf")),
        ("dit", "heads", 0),
        ("dit", "patch", 0),
        ("unet", "heads", 3),
    ],
)
def test_a_setting_of_which_no_network_can_be_built(tmp_path, method, setting, value):
    small = {"width": 8, "heads": 2, "grid_shape": [8, 8, 8]}
    folder = checkpoint.save(create(method, small), tmp_path, {})
    edit(folder, "config", **{setting: value})
    assert refused(folder).startswith("does not describe a model (")


@pytest.mark.parametrize("width", [16, 100_000])  # of which one layer would take a terabyte
def test_a_network_of_another_size_than_its_weights(model, width):
    edit(model, "config", width=width)
    assert refused(model, "model.safetensors").startswith("does not fit its config.json (unet.network.")


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("method", "no such method"),
        ("method", 5),
        ("method", ["unet"]),
        ("config", []),
        ("config", None),
        ("card", []),
        ("card", "a card"),
        ("card", None),
        ("weights_sha256", 5),
        ("weights_sha256", None),
    ],
)
def test_an_entry_of_another_kind(model, entry, value):
    edit(model, "", **{entry: value})
    assert refused(model).startswith("does not describe a model (")


@pytest.mark.parametrize("text", ["", "[]", "5", "null", '"format"', "{", "\xff\xfe", "[" * 100_000, '{"a":' * 100_000])
def test_what_is_no_description_at_all(model, text):
    (model / "config.json").write_text(text, encoding="latin-1")
    assert refused(model).startswith("does not describe a model (")


def test_a_config_that_would_fill_the_memory(model):
    with (model / "config.json").open("r+b") as file:
        file.truncate(checkpoint.LONGEST + 1)
    assert refused(model) == "is too long to describe a model"


def tilted(row, column, value):
    """The affine with one entry changed."""
    return [[value if (i, j) == (row, column) else x for j, x in enumerate(line)] for i, line in enumerate(AFFINE)]


@pytest.mark.parametrize(
    ("entry", "value", "problem"),
    [
        ("grid_shape", GONE, "its card has no grid_shape"),
        ("grid_affine", GONE, "its card has no grid_affine"),
        ("grid_shape", [16, 16, 8], "its card has a grid of [16, 16, 8], its config of (8, 16, 8)"),
        ("grid_shape", [100_000] * 3, "card.grid_shape.0"),
        ("grid_shape", [8, 16], "card.grid_shape"),
        ("grid_shape", 8, "card.grid_shape"),
        ("grid_shape", [8.0, 16.0, 8.0], "card.grid_shape.0"),
        ("grid_affine", [row[:3] for row in AFFINE[:3]], "card.grid_affine"),
        ("grid_affine", tilted(0, 0, 0), "card.grid_affine: it can't be inverted"),
        ("grid_affine", tilted(0, 1, 1e-300), None),
        ("grid_affine", tilted(0, 0, 1e-300), "card.grid_affine: it can't be inverted"),
        ("grid_affine", tilted(0, 1, 1e17), "card.grid_affine.0.1"),
        ("grid_affine", tilted(0, 0, float("nan")), "card.grid_affine.0.0"),
        ("grid_affine", tilted(0, 3, float("inf")), "card.grid_affine.0.3"),
        ("grid_affine", tilted(3, 0, 1), "card.grid_affine: it can't be inverted"),
        ("grid_affine", tilted(1, 1, "8"), "card.grid_affine.1.1"),
        ("grid_affine", None, "card.grid_affine"),
        ("recipe", 5, "card.recipe"),
        ("recipe", None, "card.recipe"),
        ("simulated", "yes", "card.simulated"),
        ("n_participants", "three", "card.n_participants"),
        ("cohort", ["a"], "card.cohort"),
        ("budget_seconds", "1h", "card.budget_seconds"),
        ("scans_sha256", 5, "card.scans_sha256"),
        ("scans_sha256", "00ff", "card.scans_sha256"),
        ("scans_sha256", [["00ff"]], "card.scans_sha256.0"),
        ("validation_psnr_brain", {"up": 20.5}, "card.validation_psnr_brain.up"),
        ("calibration", None, "card.calibration"),
        ("calibration", [], "card.calibration"),
        ("calibration", {}, "card.calibration.n_participants"),
        ("calibration", CALIBRATION | {"n_participants": None}, "card.calibration.n_participants"),
        ("calibration", CALIBRATION | {"simulated": 2}, "card.calibration.simulated"),
        ("calibration", CALIBRATION | {"cohort": {}}, "card.calibration.cohort"),
        ("calibration", CALIBRATION | {"coverage_90": 0.9}, "card.calibration.coverage_90"),
        ("calibration", CALIBRATION | {"coverage_90": {"fmri_to_dmri": 0.9}}, "card.calibration.coverage_90"),
        (
            "calibration",
            CALIBRATION | {"coverage_90": {"fmri_to_dmri": 0.9, "up": 1}},
            "card.calibration.coverage_90.up",
        ),
        (
            "calibration",
            CALIBRATION | {"coverage_90": {"fmri_to_dmri": "most", "dmri_to_fmri": 0.9}},
            "card.calibration.coverage_90.fmri_to_dmri",
        ),
        ("calibration", CALIBRATION | {"scans_sha256": 7}, "card.calibration.scans_sha256"),
        ("calibration", CALIBRATION | {"scale": [1, 1]}, "card.calibration.scale"),
    ],
)
def test_a_card_that_would_fail_where_it_is_used(model, entry, value, problem):
    edit(model, "card", **{entry: value})
    if problem is None:
        assert checkpoint.load(model)[1][entry] == value
    else:
        assert problem in refused(model)


def test_a_card_with_entries_of_its_own_is_read(model):
    edit(model, "card", scanner={"coil": [1, 2]}, seed=GONE, calibration=GONE)
    method, card = checkpoint.load(model)
    assert card["scanner"] == {"coil": [1, 2]}
    assert Model(method, card, "", "cpu")._calibrated(Direction.FMRI_TO_DMRI) == "none"


def test_an_entry_that_a_card_lacks_is_named_where_it_is_needed(tmp_path):
    folder = checkpoint.save(create("copy-source", {"grid_shape": [8, 8, 8]}), tmp_path / "model", {})
    loaded = Model.load(folder, "cpu")
    with pytest.raises(InputError, match=r"config\.json: has a card without grid_shape\. Remedy: train"):
        _ = loaded.grid
    again = pickle.loads(pickle.dumps(loaded.card))  # as it comes from another process
    with pytest.raises(InputError, match=r"config\.json: has a card without recipe"):
        again["recipe"]


@pytest.mark.parametrize("change", ["wide", "more", "fewer", "flat", "grown"])
def test_weights_that_are_not_the_methods(tmp_path, change):
    method = create("population-mean", {"grid_shape": [8, 8, 8]})
    folder = checkpoint.save(method, tmp_path, {})
    edit(folder, "", weights_sha256=GONE)
    state = load_file(folder / "model.safetensors")
    state |= {
        "wide": {"means": torch.zeros(2, 16, 8, 8)},
        "more": {"sd": torch.zeros(2)},
        "fewer": {},
        "flat": {"means": torch.zeros(2 * 8**3)},
        "grown": {"sd_scale": torch.ones(3)},
    }[change]
    if change == "fewer":
        del state["means"]
    save_file(state, folder / "model.safetensors")
    name = {"more": "sd", "grown": "sd_scale"}.get(change, "means")
    assert refused(folder, "model.safetensors") == f"does not fit its config.json ({name})"


@pytest.mark.parametrize("content", [b"", b"\xff" * 8, b"\x00" * 64, b"\x02\x00\x00\x00\x00\x00\x00\x00{}garbage"])
def test_weights_that_are_no_safetensors(model, content):
    (model / "model.safetensors").write_bytes(content)
    assert refused(model, "model.safetensors") == "is not a safetensors file"
