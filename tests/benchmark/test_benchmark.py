"""A small benchmark from end to end: what it writes, what it leaves alone, and what it refuses."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, replace
from queue import Queue

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from pdsynth import api, folders, manifest
from pdsynth.atlas import evidence_regions, region_means
from pdsynth.benchmark import ALL, benchmark, jobs, runs
from pdsynth.benchmark.runs import Terms
from pdsynth.clusters.settings import LostTaskError
from pdsynth.evaluation.metrics import dilate, image_quality
from pdsynth.evidence.claims import write_cards, write_report
from pdsynth.evidence.verbs import write_roi
from pdsynth.files import write_json
from pdsynth.recipes import CONTROLS, RECIPES
from pdsynth.results import patterns
from pdsynth.results.archive import image_name
from pdsynth.results.entries import run_folder, scores_folder
from pdsynth.results.folder import Results
from pdsynth.types import Direction, InputError
from pdsynth.workers import Workers

ENTRIES = ["population-mean", "pds:small", "oracle", "unet"]
D = Direction.FMRI_TO_DMRI
TERMS = Terms(budget=None, steps=2, seed=0, device="cpu", threads=1)


@pytest.fixture(scope="module")
def made(prepared, tmp_path_factory):
    out = tmp_path_factory.mktemp("benchmark") / "out"
    page = benchmark(prepared.root, out, ENTRIES, steps=2, jobs=2)
    return out, page


def table(out, number):
    return pd.read_csv(out / f"table{number}.tsv", sep="\t")


def row(content, method, direction=D):
    return content[(content["method"] == method) & (content["direction"] == direction.value)].iloc[0]


def test_every_row_of_the_tables_is_a_recipe():
    assert set(CONTROLS) <= set(ALL) <= set(RECIPES)
    assert {name for name, recipe in RECIPES.items() if recipe.tables} <= set(ALL)


def test_a_table_holds_what_was_measured(made, prepared):
    out, _ = made
    content = table(out, 2)
    assert sorted(set(content["method"])) == sorted(ENTRIES) and set(content["data"]) == {"SIMULATED"}
    test = prepared.test
    mean = np.mean([prepared.train.volume(D.target, i) for i in range(len(prepared.train))], 0)
    brains = [dilate(test.brain(D.target, i)) for i in range(len(test))]
    scored = [image_quality(mean, test.volume(D.target, i), brain) for i, brain in enumerate(brains)]
    found = row(content, "population-mean")
    assert found["psnr_brain"] == pytest.approx(np.mean([each["psnr_brain"] for each in scored]), abs=1e-3)
    assert found["psnr_brain_low"] < found["psnr_brain"] < found["psnr_brain_high"]
    assert found["n_participants"] == 4 and found["shuffled_source_psnr_brain"] == pytest.approx(found["psnr_brain"])


def test_the_others_are_compared_with_pds(made):
    content = table(made[0], 2)
    for direction in Direction:
        own, other = (row(content, name, direction) for name in ("pds:small", "unet"))
        assert other["pds_less_this"] == pytest.approx(own["psnr_brain"] - other["psnr_brain"], abs=1e-4)
        assert other["p"] >= 2 / 2**4 and other["p_holm"] >= other["p"]  # four participants prove nothing
        assert np.isnan(own["pds_less_this"]) and np.isnan(row(content, "oracle", direction)["p"])


def test_costs_are_counted(made):
    out, _ = made
    found = row(table(out, 2), "unet")
    model = api.load(out / "runs" / "unet" / "model", "cpu")
    assert found["parameters"] == sum(p.numel() for p in model.method.parameters())
    assert found["train_steps"] == 2 and found["train_seconds"] > 0 and found["peak_memory_mb"] > 100
    # a step sees 24 patches of 16^3 in both directions, and its backward pass costs about twice the forward one
    voxels = 24 * 16**3 * 2 / (24 * 28 * 24)
    assert found["train_tflop"] * 1e3 / 2 == pytest.approx(3 * voxels * found["gflop_per_volume"], rel=0.1)
    losses = row(table(out, 6), "pds:small")
    assert losses["loss_weights"] == 64 * 27 + 64 + 64**2 * 9 + 64 + 128 * 64 * 9 + 128 + 128**2 * 9 + 128
    assert losses["loss_gflop"] > 0 and losses["loss_seconds"] > 0


def test_a_table_by_site(made):
    content = table(made[0], 3)
    assert sorted(set(content["site"])) == ["a", "b"] and set(content["n_participants"]) == {2}
    whole = row(table(made[0], 2), "unet")["psnr_brain"]
    parts = content[(content["method"] == "unet") & (content["direction"] == D.value)]["psnr_brain"]
    assert parts.mean() == pytest.approx(whole, abs=1e-3)


def test_the_page_shows_tables_and_figures(made):
    out, page = made
    text = page.read_text()
    assert text.startswith("# Benchmark (SIMULATED)") and "2 steps of training" in text
    assert f"| `unet` | {row(table(out, 2), 'unet')['psnr_brain']:.2f} (" in text
    assert "28.98 / 75.35" in text
    assert "trained on 6 participants and scored on 4 others" in " ".join(text.split())
    for number, columns in ((4, 5), (8, 3)):
        for direction in Direction:
            assert f"(figure{number}_{direction}.png)" in text
            image = Image.open(out / f"figure{number}_{direction}.png")
            assert image.width == pytest.approx(100 * (1.25 * columns + 0.4), abs=2)
            assert np.asarray(image.convert("L")).std() > 10


def test_what_is_done_is_left_alone_and_what_was_cut_goes_on(made, prepared):
    out, _ = made
    models = {e: (run_folder(out, e) / "model" / "model.safetensors").stat().st_mtime_ns for e in ("unet", "pds:small")}
    before = table(out, 2)
    folder = run_folder(out, "unet")
    kept = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(kept | {"finished": None}))  # as if killed while it scored
    shutil.rmtree(scores_folder(out, "unet"))
    folders.seal(out)
    benchmark(prepared.root, out, ENTRIES, steps=2, jobs=2)
    for entry, time in models.items():
        assert (run_folder(out, entry) / "model" / "model.safetensors").stat().st_mtime_ns == time
    measured = ["method", *(column for column in before if "psnr" in column or "ssim" in column)]
    pd.testing.assert_frame_equal(table(out, 2)[measured], before[measured])


def test_the_folder_is_a_results_folder_of_all_entries(made, prepared):
    out, _ = made
    results, found = Results.read(out), patterns.read(out)
    assert next(iter(results.methods)) == results.tested == "pds:small"
    assert set(results.methods) == set(found.methods) == set(ENTRIES)
    assert {(c["method"], c["against"]) for c in results.metrics["comparisons"]} == {
        ("pds:small", "population-mean"),
        ("pds:small", "unet"),
    }
    alone = Results.read(scores_folder(out, "unet"))
    assert results.methods["unet"] == alone.methods["unet"]
    own = alone.scan_scores("unet", D)
    pd.testing.assert_frame_equal(results.scan_scores("unet", D)[own.columns], own)
    np.testing.assert_array_equal(results.images(image_name("unet", D)), alone.images(image_name("unet", D)))
    mean = np.mean([prepared.train.volume(D.target, i) for i in range(len(prepared.train))], 0)
    regions = region_means(mean, evidence_regions(prepared.grid))
    np.testing.assert_allclose(found.values[D.target, "population-mean"][0], regions, atol=1e-3)
    with folders.adding(out) as folder:
        write_roi(folder)
        assert "pds:small" in write_report(folder).read_text()
    effects = pd.read_csv(out / "effects.tsv", sep="\t")
    for method in ENTRIES:
        slopes = [row(content, method) for content in (effects, table(out, 2))]
        assert slopes[0]["slope"] == pytest.approx(slopes[1]["effect_slope"], nan_ok=True)


def test_what_other_code_made_is_made_anew(prepared, tmp_path):
    out = tmp_path / "out"
    benchmark(prepared.root, out, ["zeros", "copy-source"], steps=1)
    folder = run_folder(out, "zeros")
    kept = json.loads((folder / "manifest.json").read_text())
    code = kept["parameters"]["begun_as"]["code"]
    shown = row(table(out, 2), "zeros")
    assert [shown["training_code"], shown["scoring_code"]] == [code["training"][:12], code["scoring"][:12]]
    (out / "effects.tsv").write_text("of other entries")
    for part in ("training", "scoring"):
        kept["parameters"]["begun_as"]["code"] = code | {part: "0" * 64}
        (folder / "manifest.json").write_text(json.dumps(kept))
        folders.seal(out)
        trained = (folder / "model" / "model.safetensors").stat().st_mtime_ns
        benchmark(prepared.root, out, ["copy-source"], steps=1)
        assert set(table(out, 2)["method"]) == {"copy-source"} and not (out / "effects.tsv").exists()
        benchmark(prepared.root, out, ["zeros"], steps=1)
        assert json.loads((folder / "manifest.json").read_text())["parameters"]["begun_as"]["code"] == code
        assert set(table(out, 2)["method"]) == {"zeros", "copy-source"}
        again = (folder / "model" / "model.safetensors").stat().st_mtime_ns != trained
        assert again == (part == "training")  # what other code scored is not trained anew


def test_without_pds_a_method_and_no_control_is_under_test(prepared, tmp_path):
    out = tmp_path / "out"
    benchmark(prepared.root, out, ["oracle", "copy-source", "unet"], steps=1, jobs=2)
    results = Results.read(out)
    assert results.tested == "unet" and list(results.methods)[-1] == "oracle"
    assert set(results.manifest["models"]) == {"copy-source", "unet"}  # for the cards
    assert results.manifest["data"]["n_participants"] == prepared.participants
    assert "not addressed" not in (write_cards(out)[2].read_text().split("weights, sha256 |")[1].splitlines()[0])


def test_of_two_sizes_the_one_that_is_asked_stands_in_the_tables(prepared, tmp_path):
    out = tmp_path / "out"
    for entry in ("pds:small", "pds"):
        benchmark(prepared.root, out, [entry], steps=1)
        assert set(table(out, 2)["method"]) == set(Results.read(out).methods) == {entry}
    benchmark(prepared.root, out, ["zeros"], steps=1)
    assert len(table(out, 2)) == 2 * 2


def test_a_benchmark_that_is_cut_leaves_the_one_before_whole(prepared, tmp_path, monkeypatch):
    out = tmp_path / "out"
    benchmark(prepared.root, out, ["zeros"], steps=1)

    def cut(*given):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(jobs, "_run_all", cut)
        with pytest.raises(KeyboardInterrupt):
            benchmark(prepared.root, out, ["zeros", "copy-source"], steps=1)
    assert set(Results.read(out).methods) == {"zeros"} and folders.refuse_foreign(out)
    # the unfinished folder shows no results under its manifest
    with pytest.raises(InputError, match=r"metrics.json: is missing\. Remedy"):
        Results.read(out.with_name("out.partial") / "out")
    benchmark(prepared.root, out, ["zeros", "copy-source"], steps=1)
    assert set(Results.read(out).methods) == {"zeros", "copy-source"}


def test_an_entry_whose_code_changes_while_it_runs_is_named(prepared, tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "_run_all", lambda *given: {})
    with pytest.raises(InputError, match=r"every entry failed \(zeros: the code or the pairs changed while it ran"):
        benchmark(prepared.root, tmp_path / "out", ["zeros"], steps=1)


def test_other_terms_or_pairs_are_refused(made, prepared, tmp_path):
    out, _ = made
    with pytest.raises(InputError, match="was begun with steps 2, not 3"):
        benchmark(prepared.root, out, ENTRIES, steps=3, jobs=2)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    with pytest.raises(InputError, match="was not written by pdsynth"):
        benchmark(prepared.root, tmp_path / "mine", ENTRIES, steps=2)
    assert (tmp_path / "mine" / "notes.txt").read_text() == "keep"
    with pytest.raises(InputError, match="is not a benchmark"):
        benchmark(prepared.root, scores_folder(out, "unet"), ENTRIES, steps=2)


def test_bad_requests_are_answered(prepared, tmp_path):
    with pytest.raises(ValueError, match="no recipe 'pdss'"):
        benchmark(prepared.root, tmp_path / "out", ["pdss"], steps=1)
    with pytest.raises(ValueError, match="has no size 'small'"):
        benchmark(prepared.root, tmp_path / "out", ["unet:small"], steps=1)
    with pytest.raises(ValueError, match="pds is given in two sizes"):
        benchmark(prepared.root, tmp_path / "out", ["pds", "pds:small"], steps=1)
    with pytest.raises(ValueError, match="neither a budget nor steps"):
        benchmark(prepared.root, tmp_path / "out", ["unet"])
    assert not (tmp_path / "out").exists()


def test_an_entry_that_fails_does_not_take_the_others_with_it(prepared, tmp_path):
    out = tmp_path / "out"
    begun = out.with_name("out.partial") / "out"
    with runs._locked(run_folder(begun, "zeros")):  # as if another process were at it
        (begun.parent / folders.MARK).write_text('{"made_by": "pdsynth", "state": "making"}')
        entries = manifest.begin("benchmark", inputs=[prepared.root], terms=asdict(replace(TERMS, steps=1)))
        write_json(begun / manifest.NAME, entries)
        with pytest.raises(InputError, match=r"lacks 1 of 2 entries, which failed \(zeros: InputError: .* by another"):
            benchmark(prepared.root, out, ["zeros", "copy-source"], steps=1)
    assert set(table(out, 2)["method"]) == {"copy-source"}
    assert "These methods failed and are missing: zeros" in (out / "benchmark.md").read_text()
    benchmark(prepared.root, out, ["zeros"], steps=1)
    assert set(table(out, 2)["method"]) == {"copy-source", "zeros"}  # the tables show all that is finished


def test_an_oracle_is_asked_of_simulated_pairs_only(prepared, tmp_path):
    root = tmp_path / "prepared"
    shutil.copytree(prepared.root, root)
    entries = manifest.read(root)
    volumes = [name for name in entries["volumes"] if not name.startswith("oracle")]
    write_json(root / manifest.NAME, entries | {"volumes": volumes})
    with pytest.raises(InputError, match="has no oracle"):
        benchmark(root, tmp_path / "out", ["oracle", "copy-source"], steps=1)


def test_people_without_a_site_stay_in_the_table_by_site(prepared, tmp_path):
    root = tmp_path / "prepared"
    shutil.copytree(prepared.root, root)
    pairs = pd.read_csv(root / "pairs.tsv", sep="\t", keep_default_na=False)
    pairs.assign(site="n/a").to_csv(root / "pairs.tsv", sep="\t", index=False)
    benchmark(root, tmp_path / "out", ["copy-source"], steps=1)
    content = pd.read_csv(tmp_path / "out" / "table3.tsv", sep="\t", keep_default_na=False)
    assert list(content["site"]) == ["n/a"] * 2 and list(content["n_participants"]) == [4, 4]


@pytest.mark.parametrize("entry", ["pds-paper:small", "pds", "ldm", "oracle"])
def test_what_a_run_depends_on_survives_json_and_holds_every_setting(entry, prepared):
    key = runs.begun_as(prepared.root, entry, TERMS)
    assert json.loads(json.dumps(key)) == key
    assert key["settings"]["grid_shape"]
    assert key != runs.begun_as(prepared.root, entry, replace(TERMS, seed=1))
    if entry == "pds-paper:small":
        assert key["settings"]["channels"] == [8, 16, 32, 64] and key["settings"]["eta"] == 1.0


def test_a_cluster_runs_entries_and_one_whose_jobs_are_lost_fails_alone(prepared, tmp_path, monkeypatch):
    here = Workers.run

    def lost_at_unet(self, work, entries, **more):
        if not self.slurm:
            yield from here(self, work, entries, **more)
            return
        assert (self.jobs, self.threads) == (len(entries), 1)  # all at once, one a job
        for entry in entries:
            if entry != "unet":
                yield entry, work(entry)
        raise LostTaskError("unet", "was being processed when its job ended", "give it more memory")

    monkeypatch.setattr(Workers, "run", lost_at_unet)
    out = tmp_path / "out"
    with pytest.raises(InputError, match=r"lacks 1 of 3 entries, which failed \(unet: unet: was being processed"):
        benchmark(prepared.root, out, ["copy-source", "unet", "zeros"], steps=1, jobs=Workers(slurm=True))
    assert set(table(out, 2)["method"]) == {"copy-source", "zeros"}


def test_each_job_has_a_gpu_of_its_own(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    places = jobs._free_gpus(4)
    assert sorted(places.get() for _ in range(4)) == ["0", "0", "1", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")  # what a person was given
    assert jobs._free_gpus(1).get() == "5"
    free: Queue[str] = Queue()
    free.put("1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(jobs, "run_entry", lambda *given: os.environ["CUDA_VISIBLE_DEVICES"])
    assert jobs._here(free, tmp_path, tmp_path, "unet", TERMS) == "1"
    assert free.get_nowait() == "1"  # given back
