"""The command line: verbs, options, start-up time, exit statuses and error lines."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

import pdsynth
from pdsynth import api
from pdsynth.cli import cohort, main
from pdsynth.data.pairs import Pairs

SPLITS = ("train", "val", "test")
VERBS = [
    *("demo", "simulate", "inspect", "prepare", "train", "synthesize"),
    *("evaluate", "benchmark", "report", "recipes", "doctor"),
]


@pytest.fixture(autouse=True)
def _loud_again() -> Iterator[None]:
    """`main` hushes logging for its process, which here is that of other tests too."""
    yield
    logging.disable(logging.NOTSET)


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of a command."""
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    captured = capsys.readouterr()
    return int(stop.value.code or 0), captured.out, captured.err


def bids_dataset(root: Path) -> Path:
    """Two invented participants: one with a 5-volume BOLD scan, one with a truncated file."""
    (root / "dataset_description.json").parent.mkdir(parents=True, exist_ok=True)
    (root / "dataset_description.json").write_text('{"Name": "invented", "BIDSVersion": "1.9.0"}')
    (root / "participants.tsv").write_text("participant_id\tdiagnosis\tsite\nsub-01\tNC\ta\nsub-02\tAD\tb\n")
    for name in ("sub-01", "sub-02"):
        path = root / name / "func" / f"{name}_task-rest_bold.nii.gz"
        path.parent.mkdir(parents=True)
        nib.save(nib.Nifti1Image(np.ones((24, 24, 20, 5), np.float32), np.diag([8.0, 8.0, 8.0, 1.0])), path)
    path.write_bytes(path.read_bytes()[:40])
    return root


def test_help_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "--help")
    assert status == 0
    assert all(f" {verb} " in out for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, verb, "--help")
    assert status == 0
    assert f"pdsynth {verb}" in out


def test_help_takes_less_than_half_a_second_of_cpu() -> None:
    def cpu() -> float:
        before = os.times()
        subprocess.run([sys.executable, "-m", "pdsynth", "--help"], check=True, stdout=subprocess.DEVNULL)
        after = os.times()
        return after.children_user + after.children_system - before.children_user - before.children_system

    assert min(cpu() for _ in range(3)) < 0.5


def test_help_imports_none_of_the_heavy_libraries() -> None:
    code = (
        "import sys, pdsynth.cli; "
        "print([m for m in ('torch', 'monai', 'pytorch_lightning', 'nilearn', 'numpy', 'pandas') if m in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert shown.stdout.strip() == "[]"


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "--version")[:2] == (0, f"pdsynth {pdsynth.__version__}\n")


def test_public_names_are_imported_when_they_are_used() -> None:
    assert {"cohorts", "prepare", "fit", "load", "evaluate", "synthesise"} <= set(dir(pdsynth))
    assert pdsynth.cohorts.__name__ == "pdsynth.cohorts"
    with pytest.raises(AttributeError, match="no attribute 'transmogrify'"):
        _ = pdsynth.transmogrify


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("simulate", "{tmp}/out", "--anatomies", "{tmp}"), "has no label map"),
        (("inspect", "{tmp}/nowhere"), "nowhere"),
        (("prepare", "{tmp}/nowhere", "{tmp}/out"), "nowhere"),
        (("prepare", "{tmp}", "{tmp}/out", "--split", "0.5,0.1"), "is not a split. Write three fractions"),
        (("prepare", "{tmp}", "{tmp}/out", "--split", "0.5,0.1,0.1"), "the split 0.5,0.1,0.1 is not three fractions"),
        (("train", "{tmp}", "{tmp}/run", "--budget", "soon"), "'soon' is not a wall time"),
        (("train", "{tmp}", "{tmp}/run"), "pdsynth prepare"),
        (("benchmark", "{tmp}", "{tmp}/out", "--budget", "1m"), "pdsynth prepare"),
        (("benchmark", "{tmp}", "{tmp}/out", "--recipes", "pds"), "neither a budget nor steps"),
        (("benchmark", "{tmp}", "{tmp}/out", "--budget", "1m", "--recipes", "pds,pdss"), "no recipe 'pdss'"),
        (("synthesize", "{tmp}/model", "{tmp}", "{tmp}/out"), "no model.safetensors"),
        (("evaluate", "{tmp}", "--model", "default", "--out", "{tmp}/out"), "pdsynth prepare"),
        (("report", "{tmp}"), "pdsynth evaluate"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    words: tuple[str, ...], problem: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, err = run(capsys, *(word.format(tmp=tmp_path) for word in words))
    assert status == 2
    assert err.startswith("Error: ")
    assert err.count("\n") == 1
    assert problem in err
    assert list(tmp_path.iterdir()) == []  # nothing half-written


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    for words in (["--debug", "report", str(tmp_path)], ["report", str(tmp_path), "--debug"]):
        with pytest.raises(pdsynth.types.InputError, match="holds no results"):
            main(words)


def test_an_error_of_our_own_has_status_1(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("two\nlines [red]and[/red] brackets")

    monkeypatch.setattr(cohort, "_cohort", broken)
    status, _, err = run(capsys, "inspect", "anything")
    assert status == 1
    assert err == "Error: RuntimeError: two lines [red]and[/red] brackets. Add --debug for the traceback.\n"


def test_what_pdsynth_did_not_write_is_never_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    status, _, err = run(capsys, "demo", "--out", tmp_path, "--overwrite")
    assert status == 2
    assert "was not written by pdsynth" in err
    assert (tmp_path / "thesis.tex").read_text() == "mine"


def test_inspect_counts_scans_and_names_refusals(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "400")  # no path is folded
    root = bids_dataset(tmp_path / "study")
    status, out, _ = run(capsys, "inspect", root, "--json")
    found = json.loads(out)
    assert status == 0 and found["participants"] == 1  # sub-02 has no scan that can be used
    assert found["scans"] == {"fmri": 1} and found["missing"] == {"dmri": 1}
    assert found["shapes"] == {"fmri 24x24x20x5": 1}
    assert found["diagnoses"] == {"NC": 1} and found["sites"] == {"a": 1}
    assert [Path(row["path"]).name for row in found["rejected"]] == ["sub-02_task-rest_bold.nii.gz"]
    (root / "participants.tsv").write_text((root / "participants.tsv").read_text() + "sub-77\tNC\ta\n")
    status, out, _ = run(capsys, "inspect", root)
    refused, noted = out[out.index("Refused files") :].split("Not refused: notes that may need nothing")
    assert "sub-02_task-rest_bold.nii.gz" in refused and "participants.tsv" not in refused
    assert "'sub-77' (line 4)" in noted
    found = json.loads(run(capsys, "inspect", root, "--json", "--files")[1])
    assert sum(found["refused"].values()) == 1 and len(found["rejected"]) == 2
    assert {r["verdict"] for r in found["files"] if r["path"].endswith("participants.tsv")} == {"used"}
    assert "Next: pdsynth synthesize default" in out


def test_recipes_lists_controls_and_pds(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "recipes")
    names = ("population-mean", "copy-source", "voxelwise-ridge", "unet", "pds-refiner-only", "pds ")
    assert status == 0 and [name for name in names if name not in out] == []


def test_simulate_writes_a_marked_dataset_and_a_manifest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "bids"
    words = ("simulate", out, "--subjects", 2, "--quick", "--jobs", 1, "--seed", 5, "--grid-mm", 8)
    started = time.monotonic()
    status, shown, err = run(capsys, *words)
    assert status == 0, err
    assert "SIMULATED" in shown
    assert len(list(out.glob("sub-*/func/*_bold.nii.gz"))) == 2
    kept = json.loads((out / "manifest.json").read_text())
    assert kept["seed"] == 5
    assert kept["parameters"]["subjects"] == 2
    assert 0 <= kept["seconds"] <= time.monotonic() - started + 5  # the clock of a machine may be set meanwhile
    status, _, err = run(capsys, *words)
    assert status == 2
    assert "--overwrite" in err
    words = ("prepare", out, tmp_path / "prepared", "--grid-mm", 8, "--jobs", 1, "--split", "0.4,0.3,0.3")
    status, shown, err = run(capsys, *words)
    assert status == 0, err
    sizes = [Pairs.open(tmp_path / "prepared").split(name).participants for name in SPLITS]
    assert sum(sizes) == 2  # of three parts one has nobody
    assert (
        f"2 pairs in {tmp_path / 'prepared'} (participants with both scans: "
        f"{sizes[0]} train, {sizes[1]} val, {sizes[2]} test)" in shown
    )
    assert "Warning: no participant with both scans is in" in err

    words = ("evaluate", tmp_path / "prepared", "--model", "default", "--out", tmp_path / "results")
    status, _, err = run(capsys, *words)  # one error, whose remedy leads to no other
    assert status == 2
    assert "2 participants with both scans, but" in err and "--split 0,0,1, and evaluate with --no-controls" in err
    words = ("prepare", out, tmp_path / "all", "--grid-mm", 8, "--jobs", 1, "--split", "0,0,1")
    assert run(capsys, *words)[0] == 0
    words = ("evaluate", tmp_path / "all", "--model", "default", "--out", tmp_path / "results")
    status, _, err = run(capsys, *words)
    assert status == 2 and "evaluate with --no-controls" in err


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")
@pytest.mark.parametrize(
    "words",
    [
        ("demo", "--out", "{tmp}/out"),
        ("train", "{prepared}", "{tmp}/out", "--recipe", "zeros"),
        ("synthesize", "default", "{prepared}", "{tmp}/out"),
        ("evaluate", "{prepared}", "--model", "{model}", "--out", "{tmp}/out"),
    ],
)
def test_a_device_that_is_not_here_is_one_line_and_status_2(
    words: tuple[str, ...], prepared: Pairs, run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = {"tmp": tmp_path, "prepared": prepared.root, "model": run_folder / "model"}
    status, _, err = run(capsys, *(word.format(**names) for word in words), "--device", "cuda")
    assert status == 2
    assert err == "Error: torch finds no CUDA device. Use --device cpu, or install a CUDA build of torch.\n"
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def run_folder(prepared: Pairs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of train on the small prepared folder."""
    out = tmp_path_factory.mktemp("trained") / "run"
    with pytest.raises(SystemExit) as stop:
        main(["train", str(prepared.root), str(out), "--recipe", "population-mean"])
    assert stop.value.code == 0
    return out


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("--recipe", "unett"), "there is no recipe 'unett'"),
        (("--recipe", "oracle"), "can't be trained"),
        (("--recipe", "unet", "--size", "small"), "has no size 'small'"),
        (("--recipe", "unet", "--set", "width"), "has no value"),
        (("--recipe", "unet", "--set", "wdth=8"), "has no setting 'wdth'"),
        (("--recipe", "pds", "--set", "feature_layer=conv9_9"), "VGG16 has no layer 'conv9_9'"),
        (("--recipe", "pds", "--set", "vgg_weights={model}/none.pth"), "is missing"),
        (("--recipe", "zeros", "--init", "{model}"), "is a population-mean model, not zeros"),
    ],
)
def test_a_run_is_replaced_only_by_one_that_can_begin(
    words: tuple[str, ...],
    problem: str,
    prepared: Pairs,
    run_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "run"
    shutil.copytree(run_folder, out)
    asked = [word.format(model=run_folder / "model") for word in words]
    status, _, err = run(capsys, "train", prepared.root, out, *asked, "--overwrite")
    assert status == 2
    assert problem in err
    assert files(out) == files(run_folder)


def test_size_and_settings_reach_the_model(prepared: Pairs, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--recipe", "pds-refiner-only", "--size", "small", "--set", "pattern_weight=0.5", "--steps", "1")
    assert run(capsys, "train", prepared.root, tmp_path / "run", *words)[0] == 0
    config = api.load(tmp_path / "run" / "model", "cpu").method.config
    assert (config.width, config.pattern_weight) == (16, 0.5)
    status, _, err = run(capsys, "train", prepared.root, tmp_path / "run", *words[:2], "--steps", "1", "--resume")
    assert status == 2 and "another --size or --set" in err


def test_results_are_replaced_only_by_whole_ones(
    prepared: Pairs,
    run_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out, model = tmp_path / "results", run_folder / "model"
    words = ("evaluate", prepared.root, "--model", model, "--out", out, "--no-controls", "--overwrite")
    status, said, err = run(capsys, *words)
    assert status == 0 and "under test" in said and "No control was scored" in said, err
    before = files(out)
    assert json.loads(before["metrics.json"])["n_participants"] == 4
    assert json.loads(before["manifest.json"])["finished"] is not None

    status, _, err = run(capsys, *words, "--model", f"{model}/")
    assert status == 2
    assert "names a model twice" in err
    (coarse := tmp_path / "coarse").mkdir()
    for name, content in files(model).items():
        (coarse / name).write_bytes(content)
    config = json.loads((coarse / "config.json").read_text())
    for axis in range(3):
        config["card"]["grid_affine"][axis][axis] = 8.2
    (coarse / "config.json").write_text(json.dumps(config))
    status, _, err = run(capsys, *words, "--model", coarse)
    assert status == 2
    assert "a grid of 8 mm" in err and "prepare with --grid-mm 8.2" in err
    monkeypatch.setattr(api, "evaluate", lambda *_, **__: 1 / 0)
    status, _, err = run(capsys, *words)
    assert status == 1
    assert files(out) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["coarse", "results"]


KILLED = """
import os, signal, sys
from pdsynth.cli import main
from pdsynth.stage_training import StageModule
step = StageModule.training_step
def stop(module, batch, index):
    if module.step == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    step(module, batch, index)
StageModule.training_step = stop
main(sys.argv[1:])
"""


def test_a_killed_run_goes_on_with_the_same_recipe_seed_and_pairs_only(
    prepared: Pairs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, other = tmp_path / "run", tmp_path / "prepared"
    words = ["train", str(prepared.root), str(out), "--recipe", "voxel-mlp", "--steps", "4", "--device", "cpu"]
    ended = subprocess.run([sys.executable, "-c", KILLED, *words], check=False, capture_output=True)
    assert ended.returncode == -signal.SIGKILL
    assert not (out / "model").exists()
    before = files(out)
    shutil.copytree(prepared.root, other)
    table = (other / "splits.tsv").read_text()
    (other / "splits.tsv").write_text(table.replace("train", "held").replace("test", "train").replace("held", "test"))
    for asked, problem in (
        ([*words, "--recipe", "unet"], "is a run with recipe voxel-mlp, not unet"),
        ([*words, "--seed", "1"], "is a run with seed 0, not 1"),
        (["train", str(other), *words[2:]], "is a run on other pairs or splits"),
        (["train", words[1], words[1], *words[3:]], "contains an input of this run"),
        (
            ["train", words[1], str(tmp_path / "none"), *words[3:]],
            "holds no run of `pdsynth train` that can be",
        ),
    ):
        status, _, err = run(capsys, *asked, "--resume")
        assert status == 2
        assert problem in err
    assert files(out) == before
    assert prepared.manifest == json.loads((prepared.root / "manifest.json").read_text())

    moved = tmp_path / "moved"
    shutil.copytree(prepared.root, moved)  # the same pairs under another name
    status, said, err = run(capsys, "train", moved, *words[2:], "--resume")
    assert status == 0, err
    assert re.search(r"for 4 of \d+ steps \(\S+ s per step\)", said) and "Warning" not in err
    card = json.loads((out / "model" / "config.json").read_text())["card"]
    assert (card["recipe"], card["seed"], card["steps"], card["steps_done"]) == ("voxel-mlp", 0, 4, 4)
    assert json.loads((out / "manifest.json").read_text())["finished"] is not None


def test_a_terminated_command_leaves_nothing_half_made(tmp_path: Path) -> None:
    words = ["simulate", str(tmp_path / "cohort"), "--subjects", "60", "--quick", "--jobs", "1"]
    code = "import sys; from pdsynth.cli import main; main()"
    with subprocess.Popen([sys.executable, "-c", code, *words], stderr=subprocess.PIPE, text=True) as begun:
        until = time.monotonic() + 600
        while not list(tmp_path.glob("cohort.partial/cohort/*")) and time.monotonic() < until:
            time.sleep(0.1)
        assert list(tmp_path.iterdir())
        begun.terminate()
        err = begun.communicate(timeout=600)[1]
    assert begun.returncode == 128 + signal.SIGTERM
    assert "Stopped: by SIGTERM." in err and "cohort is unchanged" in err
    assert not list(tmp_path.iterdir())
