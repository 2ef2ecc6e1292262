"""Conformal calibration: what it promises of new participants, and what it changes of a model."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import special

from pdsynth import api
from pdsynth.cli import main
from pdsynth.data.pairs import Pairs
from pdsynth.evaluation.estimates import estimates
from pdsynth.evidence.calibration.compute import calibrate, conformal_scale, fewest, held_out_coverage, interval_ratios
from pdsynth.evidence.calibration.model import calibrate as calibrate_model
from pdsynth.files import read_json, write_json
from pdsynth.methods import checkpoint
from pdsynth.methods.base import Method, MethodConfig
from pdsynth.synthesis import Model
from pdsynth.types import Direction, InputError

RATIOS = st.lists(
    st.lists(st.floats(0, 100, width=32), min_size=1, max_size=6).map(lambda v: np.array(v, np.float32)),
    min_size=9, max_size=25,
)  # fmt: skip


class Unsure(Method):
    """The source, and an SD of a tenth of it and 0.001."""

    name = "unsure"

    def predict(self, batch, direction):
        return batch.sources[direction].volume

    def predict_with_sd(self, batch, direction):
        return self.predict(batch, direction), batch.sources[direction].volume / 10 + 0.001


@pytest.fixture(scope="module")
def unseen(make_prepared):
    """Twenty participants outside the test split, and ten in it."""
    return make_prepared(30, seed=7, test=10)


@given(RATIOS, st.sampled_from([0.5, 0.8, 0.9]))
def test_the_scale_is_the_least_that_keeps_the_risk(ratios, coverage):
    def missed(scale):
        return sum(np.mean(each > scale) for each in ratios) + 1

    allowed = (len(ratios) + 1) * (1 - coverage) + 1e-6
    scale = conformal_scale(ratios, coverage)
    assert missed(scale) <= allowed
    smaller = [value for each in ratios for value in each if value < scale]
    assert not smaller or missed(max(smaller)) > allowed - 2e-6


@pytest.mark.parametrize("n", [12, 40])
def test_new_participants_are_covered_on_average(n):
    """People differ in how far they are missed, voxels within them too: exchangeable people are all that it needs."""
    generator, held = np.random.default_rng(n), []
    for _ in range(600):
        level = generator.lognormal(0, 0.7, (n + 1, 1))
        values = level * np.abs(generator.standard_t(3, (n + 1, 50)))
        held.append(np.mean(values[-1] <= conformal_scale(list(values[:-1]))))
    error = np.std(held) / np.sqrt(len(held))
    assert 0.9 - 3 * error < np.mean(held) < 0.9 + 1 / (n + 1) + 3 * error


def test_too_few_participants_tell_nothing():
    assert fewest(0.9) == 9 and fewest(0.5) == 1
    ratios = [np.array([k + 1.0, 0.5]) for k in range(9)]
    assert conformal_scale(ratios) == 9  # the most that any of them was missed by
    assert np.isnan(held_out_coverage(ratios))
    with pytest.raises(ValueError, match=r"8 participants cannot calibrate 90 % intervals; give 9 or more"):
        conformal_scale(ratios[:8])


def test_no_factor_stretches_a_point():
    certain = [np.array([np.inf, 1.0])] * 20
    with pytest.raises(ValueError, match="no factor is large enough"):
        conformal_scale(certain)


def test_where_the_others_are_too_few_or_too_wrong_nothing_is_told_of_who_is_left_out():
    ratios = [np.linspace(0, 3, 50)] * 19 + [np.full(50, np.inf)]  # one of 20 may be missed everywhere, not one of 18
    assert np.isfinite(conformal_scale(ratios)) and np.isnan(held_out_coverage(ratios))


def test_people_left_out_are_of_every_part_of_the_table():
    ratios = [np.array([1.0])] * 20 + [np.array([3.0])] * 20  # two sites, one after the other
    # of 36 others, 18 at either, (36 + 1) / 10 - 1 = 2.7 may be missed: the scale is 3, and nobody left out is missed
    assert held_out_coverage(ratios) == 1


def test_people_left_out_are_scored_by_the_others():
    ratios = [np.array([float(k)]) for k in range(20)]
    # in pairs, 10 apart: of 18 others (18 + 1) / 10 - 1 = 0.9 of one may be missed, so none, and the largest is the
    # scale: nobody is missed but the last, whose scale is 18
    assert held_out_coverage(ratios) == pytest.approx(19 / 20)


@pytest.mark.parametrize("direction", Direction)
def test_the_interval_of_a_stated_sd_is_a_normal_one(unseen, direction):
    people = unseen.train
    method = Unsure(MethodConfig(people.grid.shape))
    ratios = interval_ratios(method, people, direction)
    assert len(ratios) == people.participants
    mean, sd = next(estimates(method, people, direction))
    error = np.abs(people.volume(direction.target, 0) - mean)
    worst = (error / (special.ndtri(0.95) * sd))[people.brain(direction.target, 0)].max()
    assert ratios[0].max() == pytest.approx(worst, rel=1e-5)
    found = calibrate(method, people, direction)
    assert found.before == pytest.approx(np.mean([np.mean(each <= 1) for each in ratios]))
    method.sd_scale[direction.index] = found.scale
    again = calibrate(method, people, direction)
    assert again.scale == pytest.approx(1, rel=1e-5)
    assert again.before >= 0.9  # of those whom it was learned from


def test_sessions_of_one_participant_are_one(unseen):
    people = unseen.train
    twice = people.where(np.arange(len(people)) < 2)
    twice.table["participant_id"] = "sub-00"
    ratios = interval_ratios(Unsure(MethodConfig(people.grid.shape)), twice, Direction.FMRI_TO_DMRI)
    assert len(ratios) == 1


@pytest.fixture(scope="module")
def model(prepared, tmp_path_factory):
    """A model that states an SD, trained on other participants."""
    run = tmp_path_factory.mktemp("run")
    small = {"width": 4, "patch": 8, "batch_size": 2}
    return api.fit("pds", prepared.train, run=run, steps=2, device="cpu", settings=small) and run / "model"


@pytest.fixture(scope="module")
def calibrated(model, unseen, tmp_path_factory):
    out = tmp_path_factory.mktemp("calibrated") / "model"
    with pytest.raises(SystemExit) as stop:
        main(["calibrate", str(model), str(unseen.root), str(out), "--device", "cpu"])
    assert not stop.value.code
    return out


def test_a_calibrated_model_differs_in_its_sd_alone(model, calibrated, unseen):
    before, after = Model.load(model, "cpu"), Model.load(calibrated, "cpu")
    assert before.sha256 != after.sha256
    assert after.card["calibration"]["n_participants"] == 20
    assert after.card["calibration"]["simulated"] is True
    assert {k: v for k, v in after.card.items() if k != "calibration"} == before.card
    for index, direction in enumerate(Direction):
        mean, sd = next(estimates(before.method, unseen.test, direction))
        same, scaled = next(estimates(after.method, unseen.test, direction))
        np.testing.assert_array_equal(mean, same)
        scale = float(after.method.sd_scale[index])
        assert scale != 1 and scale == pytest.approx(after.card["calibration"]["scale"][direction], abs=1e-4)
        np.testing.assert_allclose(scaled, scale * sd, rtol=1e-6)


def test_whom_it_was_calibrated_on_is_not_scored(model, calibrated, unseen, tmp_path):
    after = Model.load(calibrated, "cpu")
    api.evaluate(after, unseen.test, ceiling=False)
    for split in ("train", "test"):
        root = shutil.copytree(unseen.root, tmp_path / split)
        splits = pd.read_csv(root / "splits.tsv", sep="\t", keep_default_na=False).assign(split=split)
        splits.to_csv(root / "splits.tsv", sep="\t", index=False)
        with pytest.raises(InputError, match="on which pds was calibrated"):
            api.evaluate(after, Pairs.open(root).split(split), ceiling=False)
    told = api.load(model, "cpu")
    api.evaluate(told, unseen.train, ceiling=False)


def test_a_model_is_calibrated_on_nobody_it_was_trained_on(model, prepared, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["calibrate", str(model), str(prepared.root), str(tmp_path / "out"), "--device", "cpu"])
    assert stop.value.code == 2
    err = " ".join(capsys.readouterr().err.split())
    assert "has 0 participants with both scans outside the test split" in err
    trained_on = prepared.train.participants
    assert f"{trained_on} more were used to train or adapt it" in err and "prepare 9 others or more" in err
    assert not list(tmp_path.iterdir())


def test_a_method_without_uncertainty_and_one_that_names_nobody_are_refused(model, unseen, tmp_path):
    copy = shutil.copytree(model, tmp_path / "old")
    written = json.loads((copy / "config.json").read_text())
    del written["card"]["scans_sha256"]
    write_json(copy / "config.json", written)
    with pytest.raises(InputError, match="does not list its training scans"):
        calibrate_model(copy, unseen, tmp_path / "out", "cpu")
    api.fit("voxelwise-ridge", unseen.test, run=tmp_path / "run", device="cpu")
    with pytest.raises(ValueError, match="states no uncertainty"):
        calibrate_model(tmp_path / "run" / "model", unseen, tmp_path / "out", "cpu")
    assert not (tmp_path / "out").exists()


def test_a_second_calibration_tells_the_whole_factor(calibrated, unseen, tmp_path):
    calibrate_model(calibrated, unseen, tmp_path / "again", "cpu")
    again, once = (Model.load(path, "cpu") for path in (tmp_path / "again", calibrated))
    for index, direction in enumerate(Direction):
        scale = again.card["calibration"]["scale"][direction]
        assert scale == pytest.approx(float(again.method.sd_scale[index]), abs=1e-4)
        assert scale == pytest.approx(float(once.method.sd_scale[index]), rel=1e-3)  # it holds already


def test_the_command_audits_what_is_calibrated(model, calibrated, unseen, tmp_path):
    held = []
    for path in (model, calibrated):
        out = tmp_path / str(len(held))
        words = ["evaluate", str(unseen.root), "--model", str(path), "--out", str(out), "--no-controls"]
        with pytest.raises(SystemExit) as stop:
            main([*words, "--device", "cpu"])
        assert not stop.value.code
        (scores,) = (s for n, s in read_json(out / "metrics.json")["methods"].items() if n.endswith("(pds)"))
        held.append(np.mean([scores[d.value]["coverage_90"]["mean"] for d in Direction]))
    assert abs(held[1] - 0.9) < abs(held[0] - 0.9)


def test_training_anew_forgets_the_calibration(calibrated, prepared, tmp_path):
    again = api.fit("pds", prepared.train, run=tmp_path, steps=1, device="cpu", init=calibrated)
    assert torch.equal(again.method.sd_scale, torch.ones(2))
    assert "calibration" not in again.card


def test_a_model_of_before_calibration_is_read(model):
    method, _ = checkpoint.load(model)
    state = {name: value for name, value in method.state_dict().items() if name != "sd_scale"}
    method.load_state(state)
    assert torch.equal(method.sd_scale, torch.ones(2))


def test_the_map_says_whether_it_is_calibrated(model, calibrated):
    def told(path):
        return Model.load(path, "cpu")._calibrated(Direction.FMRI_TO_DMRI)

    assert told(model) == "none"
    assert told(calibrated).startswith("on 20 SIMULATED participants of prepared")
    few = Model.load(calibrated, "cpu")
    few.card["calibration"] = few.card["calibration"] | {"coverage_90": {d.value: None for d in Direction}}
    cohort = few.card["calibration"]["cohort"]
    assert few._calibrated(Direction.FMRI_TO_DMRI) == f"on 20 SIMULATED participants of {cohort}"


def test_half_the_sd_needs_twice_the_scale(unseen):
    method = Unsure(MethodConfig(unseen.grid.shape))
    whole = calibrate(method, unseen.train, Direction.DMRI_TO_FMRI)
    method.sd_scale.fill_(0.5)
    half = calibrate(method, unseen.train, Direction.DMRI_TO_FMRI)
    assert half.scale == pytest.approx(2 * whole.scale, rel=1e-5)
    assert replace(half, scale=0, before=0) == replace(whole, scale=0, before=0)
