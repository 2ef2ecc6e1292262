"""Progress of long work: a plain line now and then in a log, and a bar on a terminal."""

from __future__ import annotations

import re
import time

import pytest
from rich.console import Console

from pdsynth import progress as module
from pdsynth.cli.console import table
from pdsynth.progress import WRITING, progress, working


def test_a_log_gets_a_line_after_some_seconds_and_then_every_so_often(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "FIRST", 0.7)
    monkeypatch.setattr(module, "EVERY", 0.3)
    with progress("Preparing") as update:
        update(5, 20)  # resumed work: 5 were made before
        time.sleep(0.5)
        update(10, 20, "loss 0.5")  # the others are expected to take 1 s
        time.sleep(1.8)
    lines = capsys.readouterr().err.splitlines()
    assert 4 <= len(lines) <= 6
    assert re.fullmatch(r"Preparing: 10 of 20, about [01] s left, loss 0\.5", lines[0])
    assert lines[-1] == "Preparing: 10 of 20, 2 s so far, loss 0.5"  # longer than expected: no guess any more


def test_after_the_last_item_a_log_says_what_is_still_done(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "FIRST", 0.3)
    with progress("Preparing", WRITING) as update:
        update(7, 8)
        update(8, 8)
        time.sleep(0.6)
    assert capsys.readouterr().err == "Preparing: 8 of 8, writing the folder, 0 s so far\n"


def test_after_the_last_item_a_terminal_says_what_is_still_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "Console", lambda stderr: Console(stderr=stderr, force_terminal=True, width=100))
    with progress("Preparing") as update:
        update(7, 8)
        (task,) = module._BARS[0].tasks
        assert "finishing" not in module._Time().render(task).plain
        update(8, 8)
        assert module._Time().render(task).plain == "finishing, 0 s so far"


def test_work_of_less_than_the_first_pause_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with working("Fitting"):
        pass
    assert capsys.readouterr() == ("", "")


def test_work_of_an_unknown_amount_says_since_when(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "FIRST", 0.01)
    with working("Fitting"):
        time.sleep(0.1)
    assert capsys.readouterr().err == "Fitting: 0 s so far\n"


def test_work_inside_other_work_shares_the_bar_of_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "Console", lambda stderr: Console(stderr=stderr, force_terminal=True, width=100))
    with progress("Trainings") as outer:
        outer(1, 5)
        (bars,) = module._BARS
        with progress("Training mean") as inner:
            inner(0.25, 1.0, "loss 0.1")
            assert [task.description for task in bars.tasks] == ["Trainings", "Training mean"]
            assert [task.fields["state"] for task in bars.tasks] == ["1 of 5", "25 %"]
        assert [task.description for task in bars.tasks] == ["Trainings"]
    assert module._BARS == []
    assert "Trainings" in capsys.readouterr().err


def test_a_table_is_never_cut(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    path = "/study/" + "folder/" * 30 + "sub-01_task-rest_bold.nii.gz"
    table("All files", ("file", "verdict"), [(path, "used")])
    assert path in capsys.readouterr().out  # in one line, because the output is not a terminal
    reason = f"is a slab, see {path}; " + "it needs a whole head; " * 20
    table("Refused", ("file", "reason"), [("sub-01_dwi.nii.gz", reason)])
    printed = capsys.readouterr().out
    assert path in printed and max(map(len, printed.splitlines())) <= len(path) + 40
    table("Refused", ("file", "reason"), [("sub-01_dwi.nii.gz", "it needs a whole head; " * 20)])
    assert max(map(len, capsys.readouterr().out.splitlines())) == len("sub-01_dwi.nii.gz") + 40 + 7  # 7 of borders
    monkeypatch.setenv("COLUMNS", "60")
    table("All files", ("file", "verdict"), [(path, "used")])
    folded = capsys.readouterr().out
    assert max(map(len, folded.splitlines())) <= 60
    assert path in "".join(re.findall(r"[\w/.-]+", folded.replace("used", "").replace("verdict", "")))
