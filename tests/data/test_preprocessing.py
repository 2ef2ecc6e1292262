"""The preprocessing of a folder and of a model: written, read again, refused where it cannot be rebuilt or differs."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest

import pdsynth
from pdsynth import api
from pdsynth.data.pairs import Pairs
from pdsynth.data.preprocessing import UNRECORDED, VERSION_0_1_0, Preprocessing
from pdsynth.imaging.spatial import mni_grid
from pdsynth.methods import checkpoint, create
from pdsynth.synthesis import Model
from pdsynth.types import InputError

CONFIG = Path("model/config.json")
ODD = Preprocessing(
    grid=mni_grid(5.0), unsteady_seconds=6.0, shell=2500.0, denoise=True, realign=True, mask="computed", margin_mm=4.0
)

EARLIER = Preprocessing(intensity="percentile")


def written(**changes: object) -> dict:
    """The entries of a card with some settings changed; None takes one away."""
    entries = json.loads(json.dumps(Preprocessing().entries()))
    entries["preprocessing"] |= changes
    entries["preprocessing"] = {k: v for k, v in entries["preprocessing"].items() if v is not None}
    return entries | {"version": "7.8.9"}


@pytest.mark.parametrize("preprocessing", [Preprocessing(), ODD, EARLIER.model_copy(update={"percentile": 95.0})])
def test_what_is_written_is_read_again(preprocessing: Preprocessing) -> None:
    entries = json.loads(json.dumps(preprocessing.entries()))
    again = Preprocessing.of(entries, CONFIG)
    assert again == preprocessing and hash(again) == hash(preprocessing)
    assert again.grid == preprocessing.grid
    recorded = set() if preprocessing.intensity == "percentile" else {"intensity"}
    assert entries["preprocessing"].keys() == VERSION_0_1_0.keys() | recorded


def test_a_record_without_the_intensity_setting_is_of_the_percentile_and_keeps_its_bytes() -> None:
    record = written(intensity=None)
    older = Preprocessing.of(record, CONFIG)
    assert older == EARLIER and older.difference(Preprocessing()).keys() == {"intensity"}
    assert json.dumps(older.model_dump()) == json.dumps(record["preprocessing"])
    assert UNRECORDED.keys().isdisjoint(older.model_dump())


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"steps": 2}, "steps is 2"),
        ({"skull_strip": "hd-bet"}, "unknown: skull_strip"),
        ({"grid": 4}, "unknown: grid"),
        ({"margin_mm": None}, "missing: margin_mm"),
        ({"mask": "synthstrip"}, "mask is 'synthstrip'"),
        ({"intensity": "histogram"}, "intensity is 'histogram'"),
        ({"paired_dmri": "nonlinear"}, "paired_dmri is 'nonlinear'"),
        ({"realign": "yes"}, "realign is 'yes'"),
        ({"percentile": float("nan")}, "percentile is nan"),
        ({"shell": -1000.0}, "shell is -1000.0"),
    ],
)
def test_what_cannot_be_rebuilt_is_refused_by_name_with_the_remedy(changes: dict, problem: str) -> None:
    with pytest.raises(InputError) as error:
        Preprocessing.of(written(**changes), CONFIG)
    assert error.value.path == CONFIG and f"cannot rebuild ({problem})" in error.value.problem
    assert error.value.remedy == "use the pdsynth that wrote it (7.8.9), or make it again with this one"


def test_a_record_that_is_no_set_of_settings_is_refused() -> None:
    with pytest.raises(InputError, match="not a set of named settings"):
        Preprocessing.of(written() | {"preprocessing": ["realign"]}, CONFIG)


def test_a_model_that_cannot_be_rebuilt_is_refused_when_it_is_loaded(tmp_path: Path) -> None:
    method = create("zeros", {"grid_shape": list(mni_grid().shape)})
    folder = checkpoint.save(method, tmp_path / "model", written(steps=2))
    with pytest.raises(InputError, match=r"model/config\.json: records a preprocessing that this version cannot"):
        Model.load(folder, "cpu")


def test_what_recorded_none_is_read_as_version_0_1_0(tmp_path: Path) -> None:
    grid = {k: v for k, v in Preprocessing().entries().items() if k != "preprocessing"}
    older = Preprocessing.of(grid, CONFIG)
    assert older.model_dump() == VERSION_0_1_0
    assert older.difference(Preprocessing()) == {
        "mask": ("mask computed", "mask given"),
        "alone": ("alone affine", "alone affine-b0"),
        "intensity": ("intensity percentile", "intensity flat-median"),
    }
    asked = {"parameters": {"denoise": False, "realign": True, "grid_mm": 4.0}}  # as its prepared folders say
    corrected = EARLIER.model_copy(update={"realign": True, "mask": "computed", "alone": "affine"})
    assert Preprocessing.of(grid | asked, CONFIG) == corrected
    archive = Path(__file__).parents[1] / "formats" / "0.1.0.tar.xz"
    with tarfile.open(archive) as opened:
        opened.extractall(tmp_path, filter="data")
    pairs, model = Pairs.open(tmp_path / "prepared"), api.load(tmp_path / "run" / "model", "cpu")
    expected = Preprocessing(grid=mni_grid(8.0), mask="computed", alone="affine", intensity="percentile")
    assert pairs.preprocessing == model.preprocessing == expected


def test_the_shipped_model_says_how_its_scans_were_preprocessed() -> None:
    model = api.load("default", "cpu")
    assert "preprocessing" in model.card
    assert model.preprocessing.model_dump() == model.card["preprocessing"]
    assert model.preprocessing.difference(Preprocessing()).keys() <= {"intensity"}  # it may be older than that of now


def changed(pairs: Pairs, **settings: object) -> Pairs:
    """The same pairs as if they had been preprocessed in another way."""
    preprocessing = Preprocessing(grid=pairs.grid, **settings)  # type: ignore[arg-type]
    return Pairs(pairs.root, pairs.table, pairs.manifest | preprocessing.entries(), pairs.volumes)


@pytest.fixture(scope="module")
def realigned(prepared, tmp_path_factory) -> Path:
    """A model that was trained on realigned scans."""
    run = tmp_path_factory.mktemp("run")
    model = api.fit("population-mean", changed(prepared, realign=True).train, run=run, device="cpu")
    assert model.preprocessing == Preprocessing(grid=prepared.grid, realign=True)
    return run / "model"


def test_training_writes_it_into_the_model(realigned: Path, prepared) -> None:
    card = json.loads((realigned / "config.json").read_text())["card"]
    assert card["preprocessing"] == Preprocessing(grid=prepared.grid, realign=True).model_dump()


def test_pairs_of_another_preprocessing_are_refused(realigned: Path, prepared, tmp_path: Path) -> None:
    match = r"has realign False, but .* realign True\. Remedy: prepare with --realign"
    plain = changed(prepared)
    with pytest.raises(InputError, match=match):
        api.evaluate(api.load(realigned, "cpu"), plain.test)
    with pytest.raises(InputError, match=match):
        pdsynth.calibrate(realigned, plain, tmp_path / "calibrated", "cpu")
    with pytest.raises(InputError, match=match):
        api.fit("population-mean", plain.train, init=realigned, run=tmp_path / "run", device="cpu")
    with pytest.raises(InputError, match=r"denoise True and realign False.*prepare without --denoise, with --realign"):
        api.evaluate(api.load(realigned, "cpu"), changed(prepared, denoise=True).test)
    with pytest.raises(InputError, match=r"has shell 2000.0 and realign False.*train a model on this folder"):
        api.evaluate(api.load(realigned, "cpu"), changed(prepared, shell=2000.0).test)
    same = changed(prepared, realign=True).test
    scores = api.evaluate(api.load(realigned, "cpu"), same, ceiling=False)["methods"]["population-mean"]
    assert all(np.isfinite(score["psnr_brain"]["mean"]) for score in scores.values())


def test_another_intensity_scale_is_named_with_the_way_to_get_the_models(prepared, tmp_path: Path) -> None:
    now, before = changed(prepared), changed(prepared, intensity="percentile")
    models = {}
    for name, pairs in (("now", now), ("before", before)):
        api.fit("population-mean", pairs.train, run=tmp_path / name, device="cpu")
        models[name] = api.load(tmp_path / name / "model", "cpu")
    with pytest.raises(InputError, match=r"but m intensity flat-median\. Remedy: prepare anew with this version\.$"):
        api.refuse_other_preprocessing({"m": models["now"]}, before)
    with pytest.raises(InputError, match=r"flat-median, but m intensity percentile\. Remedy: train a model on this"):
        api.refuse_other_preprocessing({"m": models["before"]}, now)
    api.refuse_other_preprocessing(models | {"before": models["now"]}, now)
    realigned = changed(prepared, intensity="percentile", realign=True)
    with pytest.raises(InputError, match=r"Remedy: prepare without --realign, anew with this version\.$"):
        api.refuse_other_preprocessing({"m": models["now"]}, realigned)


def test_the_rule_for_masks_counts_only_where_a_mask_was_given(prepared) -> None:
    card = Preprocessing(grid=prepared.grid, mask="computed").entries()
    model = Model(create("copy-source", {"grid_shape": list(prepared.grid.shape)}), card, "", "cpu")
    given = changed(prepared)
    api.refuse_other_preprocessing({"m": model}, given)
    with_masks = Pairs(given.root, given.table, given.manifest | {"masks_given": 3}, given.volumes)
    with pytest.raises(InputError, match=r"has mask given, but m mask computed\. Remedy: train a model on this folder"):
        api.refuse_other_preprocessing({"m": model}, with_masks)
