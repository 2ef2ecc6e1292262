"""Ctrl-C, SIGTERM and SIGHUP of a command: exit status, kept files and the command to resume; messages of errors."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import pdsynth
from pdsynth.cli.ending import describe_error
from pdsynth.data.pairs import Pairs
from pdsynth.types import InputError

STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM", signal.SIGHUP: "SIGHUP"}
TRAIN = """
import os, signal, sys
from pdsynth.cli import main
from pdsynth.stage_training import StageModule
step = StageModule.training_step
def stop(module, batch, index):
    if module.step == 3:
        os.kill(os.getpid(), int(os.environ["SENT"]))
    step(module, batch, index)
StageModule.training_step = stop
main()
"""
EVALUATE = """
import os, signal
from pdsynth import api
from pdsynth.cli import main
real = api.evaluate
def stop(*given, **named):
    os.kill(os.getpid(), int(os.environ["SENT"]))
    return real(*given, **named)
api.evaluate = stop
main()
"""


def started(code: str, sent: int, *words: object) -> subprocess.CompletedProcess:
    """A command that sends itself a signal in the middle of its work."""
    environment = {**os.environ, "SENT": str(int(sent))}
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, words)], check=False, capture_output=True, text=True, env=environment
    )


@pytest.mark.parametrize("sent", STATUS)
def test_stopped_training_prints_how_to_resume_and_can_be_resumed(
    sent: int, prepared: Pairs, tmp_path: Path, capsys
) -> None:
    run = tmp_path / "run"
    words = ["train", prepared.root, run, "--recipe", "voxel-mlp", "--set", "width=16", "--steps", "6"]
    ended = started(TRAIN, sent, *words)
    assert ended.returncode == STATUS[sent], ended.stderr
    (line,) = (line for line in ended.stderr.splitlines() if line.startswith("Stopped"))
    assert line == (
        f"Stopped: by {NAMES[sent]}. The work of this run is kept in {run}.partial; "
        "to resume it, give the same command with --resume."
    )
    assert "Traceback" not in ended.stderr and not run.exists()
    again = started("from pdsynth.cli import main; main()", 0, *words)  # without --resume it is not thrown away
    assert again.returncode == 2
    assert "contains the work of a stopped run. Remedy: give the same command with --resume" in again.stderr
    resumed = started("from pdsynth.cli import main; main()", 0, *words, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert json.loads((run / "manifest.json").read_text())["finished"] and list(tmp_path.iterdir()) == [run]


def test_a_hangup_does_not_stop_a_command_under_nohup(prepared: Pairs, tmp_path: Path) -> None:
    code = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n" + TRAIN
    words = ["train", prepared.root, tmp_path / "run", "--recipe", "voxel-mlp", "--set", "width=16", "--steps", "5"]
    ended = started(code, signal.SIGHUP, *words)
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "run" / "model" / "model.safetensors").exists()


@pytest.mark.parametrize("sent", STATUS)
def test_a_command_that_cannot_be_resumed_says_that_nothing_has_changed(
    sent: int, prepared: Pairs, tmp_path: Path
) -> None:
    out = tmp_path / "results"
    words = ["evaluate", prepared.root, "--model", tmp_path / "run" / "model", "--no-controls", "--out", out]
    for first in (["train", prepared.root, tmp_path / "run", "--recipe", "population-mean"], words):
        assert started("from pdsynth.cli import main; main()", 0, *first).returncode == 0
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    ended = started(EVALUATE, sent, *words, "--overwrite")
    assert ended.returncode == STATUS[sent]
    assert f"Stopped: by {NAMES[sent]}. {out} is unchanged." in ended.stderr
    assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == before
    assert {p.name for p in tmp_path.iterdir()} == {"run", "results"}


def test_an_old_model_stays_until_the_new_one_is_trained(prepared: Pairs, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ["train", prepared.root, run, "--recipe", "voxel-mlp", "--set", "width=16", "--steps", "6"]
    assert started("from pdsynth.cli import main; main()", 0, *words).returncode == 0
    before = (run / "model" / "model.safetensors").read_bytes()
    assert started(TRAIN, signal.SIGINT, *words, "--seed", 1, "--overwrite").returncode == 130
    assert (run / "model" / "model.safetensors").read_bytes() == before


def test_a_second_signal_does_not_interrupt_the_cleanup(tmp_path: Path) -> None:
    code = """
import os, signal, sys, time
from pathlib import Path
from pdsynth import folders
from pdsynth.cli.ending import stop_in_order
stop_in_order()
with folders.making(Path(sys.argv[1])) as work:
    (work.folder / "a").write_text("")
    print("begun", flush=True)
    time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", code, tmp_path / "out"], stdout=subprocess.PIPE, text=True) as begun:
        assert begun.stdout is not None and begun.stdout.readline() == "begun\n"
        begun.send_signal(signal.SIGINT)
        time.sleep(0.01)
        begun.send_signal(signal.SIGTERM)
        assert begun.wait(timeout=600) == 130
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "said", "status"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "out/a"),
            "out/a: No space left on device. Remedy: make room",
            2,
        ),
        (OSError(errno.EDQUOT, "Disk quota exceeded", "out/a"), "make room in your quota", 2),
        (OSError(errno.ESTALE, "Stale file handle", "a"), "check that the network disk is mounted", 2),
        (
            PermissionError(errno.EACCES, "Permission denied", "a"),
            "a: Permission denied. Remedy: ask for permission",
            2,
        ),
        (FileNotFoundError(errno.ENOENT, "No such file", pdsynth.__file__), "Remedy: this file belongs to pdsynth", 2),
        (FileNotFoundError(errno.ENOENT, "No such file", "a"), "Remedy: check that it exists", 2),
        (MemoryError(), "There is not enough memory. Remedy: use fewer processes", 2),
        (InputError("a", "is bad", "mend it"), "a: is bad. Remedy: mend it.", 2),
        (KeyError("shard"), "KeyError: 'shard'. Add --debug for the traceback.", 1),
    ],
)
def test_an_error_names_file_cause_and_remedy(error: Exception, said: str, status: int) -> None:
    message, found = describe_error(error)
    assert said in message and found == status
