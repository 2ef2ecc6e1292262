"""The workspace of an output folder: a kill at any step, edits at the same time, and the next run."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pdsynth import folders, manifest, workspace
from pdsynth.types import InputError
from test_folders import FILES, content, make

KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[4])
from pathlib import Path
from pdsynth import folders, workspace
from test_folders import make
number = 0
def counted(real):
    def call(*given, **named):
        global number
        number += 1
        if number == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*given, **named)
    return call
if sys.argv[5] == "no-exchange":
    workspace.exchange_names = lambda one, other: False
for name in ("rename", "replace", "unlink", "rmdir", "fsync"):
    setattr(os, name, counted(getattr(os, name)))
if sys.argv[3] == "adding":
    with folders.adding(Path(sys.argv[1])) as folder:
        (folder / "new.txt").write_text("4")
        (folder / "a.txt").write_text("changed")
else:
    make(Path(sys.argv[1]), {"new.txt": "4"}, overwrite=True)
print(number)
"""


@pytest.mark.parametrize(("kind", "exchange"), [("making", "exchange"), ("making", "no-exchange"), ("adding", "")])
def test_a_kill_at_any_step_leaves_the_old_folder_or_the_new_one(kind: str, exchange: str, tmp_path: Path) -> None:
    """SIGKILL comes before each rename, removal and sync in turn. The next run completes the work."""
    wanted = FILES | {"new.txt": "4", "a.txt": "changed"} if kind == "adding" else {"new.txt": "4"}
    made = tmp_path / "made"
    make(made)
    number, killed = 1, 0
    while True:
        folder = tmp_path / f"{number}"
        folder.mkdir()
        out = Path(shutil.copytree(made, folder / "out"))
        words = [str(out), str(number), kind, str(Path(__file__).parent), exchange]
        ended = subprocess.run([sys.executable, "-c", KILLED, *words], check=False, capture_output=True, text=True)
        if ended.returncode == 0:
            break
        assert ended.returncode == -9, ended.stderr
        killed += 1
        if out.exists() and kind == "making":
            assert content(out) in (FILES, wanted)
            assert folders.refuse_foreign(out)
        again = subprocess.run(
            [sys.executable, "-c", KILLED, str(out), "0", *words[2:]], check=False, capture_output=True, text=True
        )
        assert again.returncode == 0, again.stderr
        assert content(out) == wanted
        assert folders.refuse_foreign(out)
        assert list(folder.iterdir()) == [out]
        number += 6 if number > 12 else 1  # each step near the beginning, then a part of them
        if number > 80:
            break
    assert killed > 10


def test_files_put_into_a_folder_during_its_replacement_are_kept(tmp_path: Path) -> None:
    out = tmp_path / "out"
    make(out)
    with (
        pytest.raises(InputError, match=r"thesis\.docx: was put into .* while pdsynth replaced it, and is not removed"),
        folders.making(out, overwrite=True) as work,
        manifest.recorded(work.folder, "simulate"),
    ):
        (work.folder / "new.txt").write_text("4")
        (out / "deep" / "thesis.docx").write_text("mine")
    assert content(out) == {"new.txt": "4"}
    (found,) = (tmp_path / "out.partial").rglob("thesis.docx")
    assert found.read_text() == "mine"
    with pytest.raises(InputError, match="is not removed"):  # as long as it lies there
        make(out, overwrite=True)
    found.rename(tmp_path / "thesis.docx")
    make(out, {"newer.txt": "5"}, overwrite=True)
    assert content(out) == {"newer.txt": "5"}
    assert {p.name for p in tmp_path.iterdir()} == {"out", "thesis.docx"}


def test_after_a_kill_during_the_copy_an_update_starts_again(tmp_path: Path, monkeypatch) -> None:
    """An incomplete copy is not resumed, because it has no manifest: that is copied last."""
    out = tmp_path / "out"
    make(out)
    real, count = shutil.copy2, 0

    def cut(source: Path, target: Path) -> None:
        nonlocal count
        count += 1
        if count == 3:
            Path(target).write_text("stu")
            raise SystemExit(9)  # as if killed: nobody tidies
        real(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "copy2", cut)
        patched.setattr(shutil, "rmtree", lambda *_, **__: None)
        with pytest.raises(SystemExit), folders.making(out, update=True, resume="again"):
            pass
    assert (tmp_path / "out.partial" / "out").exists()
    make(out, {"new.txt": "4"}, update=True, resume="again")
    assert content(out) == FILES | {"new.txt": "4"}


def test_a_file_edited_while_a_command_adds_is_kept_and_named(tmp_path: Path) -> None:
    for change, name in ((lambda out: (out / "a.txt").write_text("mine"), "a.txt"),
                         (lambda out: (out / "report.html").write_text("mine"), "report.html"),
                         (lambda out: (out / "deep" / "b.txt").write_text("mine"), "deep/b.txt")):  # fmt: skip
        out = tmp_path / name.replace("/", "-") / "out"
        make(out)
        with (
            pytest.raises(InputError, match="was created or edited while pdsynth added") as refusal,
            folders.adding(out) as folder,
        ):
            (folder / "report.html").write_text("page")
            (folder / "a.txt").write_text("changed")
            (folder / "deep" / "b.txt").unlink()
            change(out)
        assert refusal.value.path == out / name and (out / name).read_text() == "mine"


def test_a_finished_exchange_is_not_applied_to_another_folder_of_that_name(tmp_path: Path, monkeypatch) -> None:
    out = tmp_path / "out"
    make(out)
    make(tmp_path / "other", {"theirs.txt": "5"})

    def killed(one: Path, other: Path) -> bool:
        raise SystemExit(9)

    with monkeypatch.context() as patched:
        patched.setattr(workspace, "exchange_names", killed)
        with pytest.raises(SystemExit):
            make(out, {"new.txt": "4"}, overwrite=True)
    out.rename(tmp_path / "backup")
    (tmp_path / "other").rename(out)
    for how in ({"overwrite": True}, {"update": True}):
        with pytest.raises(InputError, match="was written to replace a folder other than the present out"):
            make(out, {"newer.txt": "6"}, **how)
        assert content(out) == {"theirs.txt": "5"} and content(tmp_path / "backup") == FILES


def test_a_folder_finished_by_another_run_is_not_replaced_without_overwrite(tmp_path: Path, monkeypatch) -> None:
    out = tmp_path / "out"
    real = folders.complete_pending

    def finished(space: Path, there: Path) -> None:
        shutil.copytree(tmp_path / "made", there)
        monkeypatch.setattr(folders, "complete_pending", real)

    make(tmp_path / "made")
    monkeypatch.setattr(folders, "complete_pending", finished)
    with pytest.raises(InputError, match="exists already"):
        make(out, {"new.txt": "4"})
    assert content(out) == FILES


def test_a_desktop_file_in_a_removed_folder_is_ignored(tmp_path: Path) -> None:
    out = tmp_path / "out"
    make(out)
    (out / "deep" / "er" / ".DS_Store").write_text("desktop")
    for number in range(2):
        make(out, {"new.txt": f"{number}"}, overwrite=True)
    assert content(out) == {"new.txt": "1", "deep/er/.DS_Store": "desktop"}


def test_the_message_says_how_to_resume_after_overwrite(tmp_path: Path) -> None:
    out = tmp_path / "out"
    make(out)
    with pytest.raises(KeyboardInterrupt) as stop, folders.making(out, overwrite=True, resume="again") as work:
        (work.folder / "new.txt").write_text("4")
        raise KeyboardInterrupt
    assert "to resume it, again, without --overwrite." in stop.value.__notes__[0]


def test_two_runs_with_equal_manifests_are_each_exchanged_once(tmp_path: Path, monkeypatch) -> None:
    """Two runs within one second write equal manifests. A file that a user removed is present again."""
    out = tmp_path / "out"
    monkeypatch.setattr(manifest, "_finished", lambda entries: entries | {"started": "then", "finished": "then"})
    make(out)
    first = (out / "manifest.json").read_bytes()
    (out / "a.txt").unlink()
    make(out, update=True)
    assert (out / "manifest.json").read_bytes() == first
    assert content(out) == FILES


def test_a_workspace_left_beside_a_complete_folder_goes_with_the_next_run(tmp_path: Path, monkeypatch) -> None:
    """A kill between the exchange and the removal of the workspace; the next run refuses, and clears it away."""
    out = tmp_path / "out"
    with monkeypatch.context() as killed:
        killed.setattr(Path, "rmdir", lambda path: None)
        killed.setattr(Path, "unlink", lambda path, missing_ok=False: None)
        make(out)
    assert workspace.workspace_path(out).exists()
    folders.refuse_occupied(out, replace=False)  # leaves the refusal to the run, which ends the workspace first
    with pytest.raises(InputError, match="exists already"):
        make(out)
    assert content(out) == FILES and list(tmp_path.iterdir()) == [out]
    with pytest.raises(InputError, match="exists already"):
        folders.refuse_occupied(out, replace=False)
