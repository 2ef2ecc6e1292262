"""Habits of the command line: a log file, trial runs, JSON, settings from the environment, completion, no colours."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from pdsynth.cli import app, main
from pdsynth.data.pairs import Pairs
from pdsynth.data.sessions import Task
from pdsynth.recipes import RECIPES
from test_cli import bids_dataset, run


@pytest.fixture(autouse=True)
def _loud_again() -> Iterator[None]:
    """`main` hushes logging for its process, which here is that of other tests too."""
    yield
    logging.disable(logging.NOTSET)


def test_a_log_holds_the_command_its_output_the_traceback_and_the_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "run.log"
    status, _, err = run(capsys, "inspect", tmp_path / "no where", "--log", log)
    text = log.read_text()
    assert status == 2 and err.count("\n") == 1 and err in text
    lines = text.splitlines()
    assert lines[0].endswith(f": pdsynth inspect '{tmp_path}/no where'")
    assert "Traceback" in text and "Traceback" not in err
    assert " ended with status 2 after " in lines[-1]
    monkeypatch.setenv("PDSYNTH_LOG", str(log))
    status, out, _ = run(capsys, "recipes", "--json")
    assert status == 0 and log.read_text().startswith(text) and out in log.read_text()


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("recipes", "--log"), "--log has no file"),
        (("recipes", "--log={tmp}/none/run.log"), "No such file"),
    ],
)
def test_a_log_that_cannot_be_written_is_one_line(
    words: tuple[str, ...], problem: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = run(capsys, *(word.format(tmp=tmp_path) for word in words))
    assert (status, out) == (2, "") and problem in err and err.count("\n") == 1


def test_a_trial_of_prepare_counts_sessions_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = bids_dataset(tmp_path / "study")
    words = ("prepare", root, tmp_path / "prepared", "--jobs", "1")
    status, out, err = run(capsys, *words, "--dry-run")
    assert status == 0, err
    assert "Nothing was written. To prepare: 1 session, with 0 finished before. Both scans: 0 sessions." in out
    assert f"Next: pdsynth prepare {root} {tmp_path / 'prepared'} --jobs 1\n" in out
    monkeypatch.setattr(Task, "is_made", lambda task, look_only: look_only)
    assert "To prepare: 0 sessions, with 1 finished before" in run(capsys, *words, "--dry-run")[1]
    (tmp_path / "prepared").mkdir()
    (tmp_path / "prepared" / "mine.txt").write_text("mine")
    status, _, err = run(capsys, *words, "--dry-run")
    assert status == 2 and "was not written by pdsynth" in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["prepared", "study"]


def test_a_trial_of_synthesize_names_each_file_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)  # set by pytest-xdist; with it, tables are wrapped
    root = bids_dataset(tmp_path / "study")
    status, out, err = run(capsys, "synthesize", "default", root, tmp_path / "out", "--dry-run")
    assert status == 0, err
    assert "sub-01/func/sub-01_task-rest_bold.nii.gz" in out and "sub-01/dwi/sub-01_desc-synthetic_dwiref.nii.gz" in out
    assert "To synthesise, unless made before: 1 scan\n" in out
    assert [path.name for path in tmp_path.iterdir()] == ["study"]


@pytest.mark.parametrize(
    ("words", "described"),
    [
        (("--recipe", "local-ridge"), "local-ridge on 6 pairs of 6 participants, in closed form"),
        (("--recipe", "voxel-mlp", "--steps", "7", "--device", "cpu"), " parameters, 7 steps, then"),
        (("--recipe", "voxel-mlp", "--budget", "2m", "--device", "cpu"), " parameters, 120 s of training steps, then"),
    ],
)
def test_a_trial_of_train_describes_the_training_and_writes_nothing(
    words: tuple[str, ...], described: str, prepared: Pairs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = run(capsys, "train", prepared.root, tmp_path / "run", *words, "--dry-run")
    assert status == 0, err
    assert described in out and list(tmp_path.iterdir()) == []


def test_json_is_all_that_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = json.loads(run(capsys, "recipes", "--json")[1])
    assert {row["name"] for row in rows} == set(RECIPES)
    (tmp_path / "note.txt").write_text("write to someone@example.org")
    status, out, _ = run(capsys, "doctor", "--privacy", tmp_path, "--json")
    (found,) = json.loads(out)
    assert status == 2 and found["file"] == "note.txt" and "someone@example.org" in found["text"]


def test_settings_of_the_machine_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PDSYNTH_JOBS", "3")
    monkeypatch.setenv("PDSYNTH_DEVICE", "cpu")
    verbs = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    made = verbs["synthesize"].make_context("synthesize", ["default", "study", "out"]).params
    assert made["jobs"] == 3 and made["device"] == "cpu"
    given = verbs["synthesize"].make_context("synthesize", ["default", "study", "out", "--jobs", "2"]).params
    assert given["jobs"] == 2  # an option counts before the environment


def test_a_shell_completes_verbs() -> None:
    asked = {"_PDSYNTH_COMPLETE": "complete_bash", "COMP_WORDS": "pdsynth insp", "COMP_CWORD": "1"}
    shown = subprocess.run(
        [sys.executable, "-c", "from pdsynth.cli import main; main()"],
        check=False, capture_output=True, text=True, env={**os.environ, **asked},
    )  # fmt: skip
    assert shown.stdout.strip() == "inspect", shown.stderr


def test_nothing_is_coloured_where_no_terminal_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["inspect", str(bids_dataset(tmp_path / "study"))])
    out, err = capsys.readouterr()
    assert "Next: pdsynth" in out and "\x1b" not in out + err


def test_a_budget_that_trains_hardly_at_all_is_told(
    prepared: Pairs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    status, _, err = run(capsys, "train", prepared.root, out, "--recipe", "voxel-mlp", "--budget", "0.001s")
    assert status == 0
    assert "Warning: 1 training step of" in err and "OMP_NUM_THREADS=1" in err
    assert json.loads((out / "model" / "config.json").read_text())["card"]["steps_done"] == 1


def test_an_unknown_option_has_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = run(capsys, "report", "--wrong")
    assert status == 2
    assert "No such option" in err
