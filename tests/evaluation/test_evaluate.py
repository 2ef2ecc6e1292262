"""The audit tells a reader of the source from a printer of the average, and the results folder holds what it says."""

import json
import tracemalloc
import weakref

import numpy as np
import pandas as pd
import pytest
import torch

from pdsynth import api
from pdsynth.data.pairs import Pairs
from pdsynth.evaluation import metrics, scans, scoring
from pdsynth.evaluation.audit import uncertainty_of_sd
from pdsynth.evaluation.evaluate import evaluate
from pdsynth.evaluation.metrics.intensity import PERFECT_PSNR
from pdsynth.methods.base import Method, MethodConfig, create, registry
from pdsynth.methods.controls import PopulationMean
from pdsynth.results import archive
from pdsynth.results.archive import image_name
from pdsynth.results.folder import read_metrics
from pdsynth.types import Direction, InputError

SCALARS = {"identification_rate", "within_site_r", "within_site_slope"}
PROMISED = {"psnr_brain", "ssim_brain", "psnr_full", "ssim_full", "shuffled_source_psnr_brain"}
HONESTY = {"coverage_50", "coverage_90", "crps", "error_sd_rank_r", "mean_sd"}
SD, SPREAD = 0.05, 0.02


class Knower(Method):
    """Recognises each test participant by the source and answers with the real target."""

    name = "knower"

    def __init__(self, pairs):
        super().__init__(MethodConfig(pairs.grid.shape))
        self.known = [pairs.batch(np.array([row])) for row in range(len(pairs))]
        self.seen = []

    def predict(self, batch, direction):
        self.seen.append((direction, batch))
        source = batch.sources[direction].volume
        errors = [(source - each.sources[direction].volume).square().sum() for each in self.known]
        return self.known[int(torch.stack(errors).argmin())].targets[direction]


class Stating(Knower):
    """Too bright by one SD everywhere, and says so."""

    name = "stating"
    generative = True

    def predict(self, batch, direction):
        return super().predict(batch, direction) + SD

    def estimate(self, batch, direction):
        return self.predict(batch, direction), torch.full_like(batch.sources[direction].volume, SD)

    def draw(self, batch, direction, generator, steps):
        volume = super().predict(batch, direction)
        return volume + SPREAD * torch.randn(volume.shape, generator=generator)


class Broken(Method):
    name = "broken"

    def predict(self, batch, direction):
        return batch.sources[direction].volume / 0


@pytest.fixture(scope="module")
def held_out(prepared):
    return prepared.split("test")


@pytest.fixture(scope="module")
def average(prepared):
    method = PopulationMean(MethodConfig(prepared.grid.shape))
    method.fit(prepared.split("train"), torch.Generator())
    return method


@pytest.fixture(scope="module")
def scored(held_out, average, tmp_path_factory):
    out = tmp_path_factory.mktemp("results")
    methods = {"knower": Knower(held_out), "population-mean": average, "stating": Stating(held_out)}
    return evaluate(methods, held_out, out, seed=3), methods, out


def test_metrics_json_has_the_promised_schema(scored):
    result, _, out = scored
    assert json.loads((out / "metrics.json").read_text()) == result
    assert (result["simulated"], result["split"], result["n_participants"]) == (True, "test", 4)
    assert list(result["methods"]) == ["knower", "population-mean", "stating", "oracle"]
    for name, entry in result["methods"].items():
        assert set(entry) == {"fmri_to_dmri", "dmri_to_fmri"}
        for scores in entry.values():
            assert set(scores) >= PROMISED and set(scores) >= SCALARS
            assert (set(scores) >= HONESTY) == (name == "stating")
            for metric in set(scores) - SCALARS:
                low, high = scores[metric]["ci95"]
                assert low - 1e-9 <= scores[metric]["mean"] <= high + 1e-9, metric
    assert {name: set(entry) for name, entry in result["times"].items()} == {
        name: set(entry) for name, entry in result["methods"].items()
    }
    assert all(time["seconds_per_volume"] > 0 for entry in result["times"].values() for time in entry.values())


@pytest.mark.parametrize("direction", Direction)
def test_who_follows_the_source_is_identified_and_falls_when_it_is_shuffled(scored, direction):
    methods = scored[0]["methods"]
    knower, average, oracle = (methods[n][direction.value] for n in ("knower", "population-mean", "oracle"))
    assert knower["identification_rate"] == 1
    assert knower["psnr_brain"]["mean"] == PERFECT_PSNR
    assert knower["shuffled_source_psnr_brain"]["mean"] < 40
    assert knower["within_site_r"] == pytest.approx(1) and knower["within_site_slope"] == pytest.approx(1)
    assert average["shuffled_source_psnr_brain"] == average["psnr_brain"]
    assert average["identification_rate"] == 0.25
    assert average["within_site_r"] == 0
    assert average["psnr_brain"]["mean"] < oracle["psnr_brain"]["mean"] < knower["psnr_brain"]["mean"]
    assert oracle["shuffled_source_psnr_brain"]["mean"] < oracle["psnr_brain"]["mean"]


def test_a_method_sees_one_source_and_nothing_of_the_target(scored, held_out):
    seen = scored[1]["knower"].seen
    assert len(seen) == len(Direction) * len(held_out) * 2
    for direction, batch in seen:
        assert set(batch.sources) == {direction}
        assert batch.targets == batch.masks == batch.oracle == {}


def test_scores_are_those_of_the_kept_images(scored, held_out):
    _, _, out = scored
    table = pd.read_csv(out / "metrics.tsv", sep="\t")
    assert len(table) == 4 * 2 * 4
    for direction in Direction:
        kept = np.load(out / "predictions" / f"{image_name('population-mean', direction)}.npy").astype(np.float32)
        rows = table[(table["method"] == "population-mean") & (table["direction"] == direction.value)]
        for row, written in enumerate(rows["psnr_brain"]):
            mask = metrics.dilate(held_out.brain(direction.target, row))
            expected = metrics.psnr(kept[row], held_out.volume(direction.target, row), mask)
            assert written == pytest.approx(expected, abs=0.01)
        assert scored[0]["methods"]["population-mean"][direction.value]["psnr_brain"]["mean"] == pytest.approx(
            rows["psnr_brain"].mean(), abs=1e-4
        )


def test_comparisons_are_of_the_first_method_with_each_but_the_oracle(scored):
    rows = scored[0]["comparisons"]
    assert {(r["method"], r["against"]) for r in rows} == {("knower", "population-mean"), ("knower", "stating")}
    assert len(rows) == 4
    for row in rows:
        assert row["psnr_brain_difference"] > 0
        assert row["p"] == 2 / 2**4 and row["p_holm"] == 0.5


@pytest.mark.parametrize("direction", Direction)
def test_stated_uncertainty_is_stored_and_audited(scored, held_out, direction):
    result, _, out = scored
    folder = out / "predictions"
    assert np.all(np.load(folder / f"stating_{direction.value}_std.npy") == np.float16(SD))
    assert not (folder / f"knower_{direction.value}_std.npy").exists()
    scores = result["methods"]["stating"][direction.value]
    expected = uncertainty_of_sd(*(np.full((1, 1, 1), v) for v in (SD, SD, 0.0)), np.ones((1, 1, 1), bool))
    assert scores["coverage_50"]["mean"] == 0  # the error is one SD, beyond 0.67
    assert scores["coverage_90"]["mean"] == 1
    assert scores["crps"]["mean"] == pytest.approx(expected["crps"], rel=1e-3)
    assert scores["mean_sd"]["mean"] == pytest.approx(SD)
    assert result["uncertainty_from_samples"] == []


def test_samples_replace_the_stated_sd_only_from_three_on(held_out, tmp_path):
    def run(samples, out=None):
        return evaluate({"stating": Stating(held_out)}, held_out, out, samples=samples)

    def audit(result):
        return result["methods"]["stating"]["fmri_to_dmri"]

    few, drawn, again = run(2), run(8, tmp_path), run(8)
    assert few["uncertainty_from_samples"] == [] and drawn["uncertainty_from_samples"] == ["stating"]
    assert audit(few)["mean_sd"]["mean"] == pytest.approx(SD)
    assert audit(drawn)["mean_sd"]["mean"] == pytest.approx(SPREAD, rel=0.05)
    assert audit(drawn)["crps"] == audit(again)["crps"]
    spread = np.load(tmp_path / "predictions" / "stating_fmri_to_dmri_std.npy").astype(np.float32)
    assert spread.mean() == pytest.approx(SPREAD, rel=0.05)


def test_a_shuffled_source_brings_its_own_b_value_but_not_its_site(held_out):
    pairs = held_out.where(np.ones(len(held_out), bool))
    pairs.table["dmri_bval"] = [1000.0, 1100.0, 1200.0, 1300.0]
    knower = Knower(pairs)
    evaluate({"knower": knower}, pairs, seed=1)
    for i in range(0, len(knower.seen), 2):
        (direction, own), (_, shuffled) = knower.seen[i], knower.seen[i + 1]
        assert (float(own.bval) == float(shuffled.bval)) == (direction is Direction.FMRI_TO_DMRI)
        assert own.site == shuffled.site
        assert not torch.equal(own.sources[direction].volume, shuffled.sources[direction].volume)


def test_sessions_count_once_for_their_participant(held_out, average):
    pairs = held_out.where(np.ones(len(held_out), bool))
    pairs.table["participant_id"] = ["sub-a", "sub-a", "sub-b", "sub-c"]
    single = evaluate({"population-mean": average}, held_out)["methods"]["population-mean"]["fmri_to_dmri"]
    result = evaluate({"population-mean": average}, pairs)
    assert (result["n_participants"], result["n_scans"]) == (3, 4)
    mask = [metrics.dilate(pairs.brain(Direction.FMRI_TO_DMRI.target, row)) for row in range(4)]
    mean = average.means[1].numpy()
    each = [metrics.psnr(mean, pairs.volume(Direction.FMRI_TO_DMRI.target, r), mask[r]) for r in range(4)]
    found = result["methods"]["population-mean"]["fmri_to_dmri"]["psnr_brain"]["mean"]
    assert found == pytest.approx(np.mean([np.mean(each[:2]), each[2], each[3]]), abs=1e-4)
    assert single["psnr_brain"]["mean"] == pytest.approx(np.mean(each), abs=1e-4)


def test_there_is_no_oracle_without_a_known_truth(held_out, average):
    names = [name for name in held_out.manifest["volumes"] if not name.startswith("oracle")]
    entries = held_out.manifest | {"simulated": False, "volumes": names}
    real = Pairs(held_out.root, held_out.table, entries, held_out.volumes)
    result = evaluate({"population-mean": average}, real)
    assert result["simulated"] is False
    assert list(result["methods"]) == ["population-mean"]


def test_any_name_can_be_kept_and_old_images_go(held_out, average, tmp_path):
    stale = tmp_path / "predictions" / "old_fmri_to_dmri.npy"
    stale.parent.mkdir()
    stale.write_bytes(b"")
    evaluate({"pds (run/../model)": average}, held_out, tmp_path)
    assert not stale.exists()
    assert (tmp_path / "predictions" / f"{image_name('pds (run/../model)', Direction.FMRI_TO_DMRI)}.npy").exists()
    assert not [p for p in tmp_path.rglob("*") if p.name.endswith(".part")]


def test_bad_input_is_named(held_out, average):
    with pytest.raises(ValueError, match="no method"):
        evaluate({}, held_out)
    with pytest.raises(ValueError, match="2 participants"):
        evaluate({"population-mean": average}, held_out.where(np.arange(4) == 0))
    with pytest.raises(ValueError, match=r"broken.*not finite"):
        evaluate({"broken": Broken(MethodConfig(held_out.grid.shape))}, held_out)


def test_a_method_of_another_grid_is_refused(held_out):
    other = PopulationMean(MethodConfig((8, 8, 8)))
    with pytest.raises(InputError, match=r"has a grid of \(24, 28, 24\) voxels, but mine one of \(8, 8, 8\)"):
        api.evaluate({"mine": other}, held_out)


def test_all_but_the_times_is_the_same_in_every_run_and_for_every_block(held_out, average, tmp_path, monkeypatch):
    methods = {"stating": Stating(held_out), "population-mean": average}
    written = []
    for block in (1, 3, 3, 64):
        monkeypatch.setattr(scans, "BLOCK", block)
        out = tmp_path / str(len(written))
        del evaluate(methods, held_out, out, samples=3)["times"]
        metrics_of_run = read_metrics(out)
        assert list(metrics_of_run)[-1] == "times" and metrics_of_run.pop("times")
        files = {p.relative_to(out): p.read_bytes() for p in out.rglob("*") if p.is_file() and p.name != "metrics.json"}
        written.append((metrics_of_run, files))
    assert len(written[0][1]) == 3 + 6 + 6 + 2  # tables; real scans, brains, whose they are; images; their SD
    assert all(each == written[0] for each in written[1:])


def test_all_but_the_times_is_the_same_for_any_number_of_jobs(make_prepared, tmp_path, monkeypatch):
    """A method with a fit, one with an SD and one that draws samples; several sites, and people with two sessions."""
    monkeypatch.setattr(scans, "BLOCK", 3)
    pairs = make_prepared(20, test=10)
    test = pairs.test.where(np.ones(10, bool))
    test.table["participant_id"] = [f"sub-{min(i, 7)}" for i in range(10)]
    methods = api.fit_controls(pairs.train, names=["population-mean", "site-mean", "local-ridge"])
    drawing = create("adm", registry()["adm"].tiny | {"grid_shape": list(pairs.grid.shape)})
    written = {}
    for jobs in (1, 2, 3):
        out = tmp_path / str(jobs)
        evaluate(methods | {"drawing": drawing}, test, out, samples=3, sample_steps=1, jobs=jobs)
        found = read_metrics(out)
        assert all(time["seconds_per_volume"] > 0 for each in found.pop("times").values() for time in each.values())
        assert (found["n_participants"], found["n_scans"]) == (8, 10)
        files = {p.relative_to(out): p.read_bytes() for p in out.rglob("*") if p.is_file() and p.name != "metrics.json"}
        written[jobs] = found, files
    assert "oracle" in written[1][0]["methods"] and written[1][0]["uncertainty_from_samples"] == ["drawing"]
    assert written[1] == written[2] == written[3]


def test_controls_are_counted_while_they_are_fitted(make_prepared):
    shown, names = [], ["zeros", "population-mean"]
    fitted = api.fit_controls(make_prepared(10).train, names=iter(names), progress=lambda *each: shown.append(each))
    assert list(fitted) == names and shown == [(0, 2), (1, 2)]


def test_a_method_that_other_processes_cannot_load_needs_one_job(held_out):
    with pytest.raises(ValueError, match=r"mine is not a method of pdsynth\.methods.* Use one job"):
        evaluate({"mine": Knower(held_out)}, held_out, jobs=2)


def test_the_outline_identifies_nobody(held_out, monkeypatch):
    def brain(pairs, modality, row):
        box = np.zeros(pairs.grid.shape, bool)
        box[4 + row : 16 + row, 6:20, 6:18] = True
        return box

    def volume(pairs, modality, row):
        return metrics.dilate(brain(pairs, modality, row)) * np.float32(0.5)

    class Outline(Method):
        name = "outline"

        def predict(self, batch, direction):
            return torch.from_numpy(volume(held_out, direction.target, int(batch.rows[0])))[None, None]

    monkeypatch.setattr(Pairs, "brain", brain)
    monkeypatch.setattr(Pairs, "volume", volume)
    found = evaluate({"outline": Outline(MethodConfig(held_out.grid.shape))}, held_out)["methods"]["outline"]
    for scores in found.values():
        assert scores["psnr_brain"]["mean"] == PERFECT_PSNR
        assert scores["identification_rate"] == 0.25


def test_memory_does_not_grow_with_the_participants(make_prepared, average, monkeypatch, tmp_path):
    monkeypatch.setattr(scans, "BLOCK", 4)
    monkeypatch.setattr(scoring, "SAVED_SCANS", 4)
    monkeypatch.setattr(archive, "SAVED_SCANS", 4)
    monkeypatch.setattr(scoring, "image_quality", lambda *images: {"psnr_brain": metrics.psnr(*images)})  # quick
    peaks, few, many = {}, 8, 32
    pairs = make_prepared(40, test=many).test
    for number in (few, few, many):  # the first time, what is made once is made
        part = pairs.where(np.arange(len(pairs)) < number)
        tracemalloc.start()
        evaluate({"population-mean": average}, part, tmp_path / str(number), ceiling=False)
        peaks[number] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    volume = 4 * int(np.prod(pairs.grid.shape))
    assert (peaks[many] - peaks[few]) / (many - few) < volume / 2


def test_the_images_of_one_scan_are_in_memory_at_a_time(make_prepared, average, monkeypatch):
    alive = most = 0

    def died():
        nonlocal alive
        alive -= 1

    def counted(tensor, method):
        nonlocal alive, most
        image = convert(tensor, method)
        weakref.finalize(image, died)
        alive += 1
        most = max(most, alive)
        return image

    convert = scoring.volume_of
    monkeypatch.setattr(scoring, "volume_of", counted)
    monkeypatch.setattr(scans, "BLOCK", 4)
    evaluate({"population-mean": average}, make_prepared(20, test=18).test, ceiling=False)
    assert most == 3  # from the own source and from another's, and the one from the own source before
