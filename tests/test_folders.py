"""Output folders are complete or absent, are replaced by their own inventory, and foreign files are never removed."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from pdsynth import folders, manifest
from pdsynth.types import InputError

FILES = {"a.txt": "one", "deep/b.txt": "two", "deep/er/c.txt": "three"}


def make(out: Path, files: dict[str, str] | None = None, command: str = "simulate", **how: object) -> None:
    """Write a folder as a command does."""
    with folders.making(out, **how) as work, manifest.recorded(work.folder, command):  # type: ignore[arg-type]
        for name, text in (FILES if files is None else files).items():
            (work.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (work.folder / name).write_text(text)


def content(folder: Path) -> dict[str, str]:
    """Path -> text of every file and link, without the manifest."""
    return {
        p.relative_to(folder).as_posix(): f"-> {os.readlink(p)}" if p.is_symlink() else p.read_text()
        for p in folder.rglob("*")
        if (p.is_file() or p.is_symlink()) and p != folder / manifest.NAME
    }


def test_a_folder_is_complete_with_an_inventory_or_absent(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    with pytest.raises(RuntimeError), folders.making(out) as work:
        (work.folder / "half").write_text("")
        assert not out.exists()
        raise RuntimeError
    assert list(out.parent.iterdir()) == []
    make(out)
    entries = manifest.read(out)
    assert content(out) == FILES and set(entries["files"]) == set(FILES)
    assert entries["made_by"] == "pdsynth" and entries["finished"] is not None
    assert list(out.parent.iterdir()) == [out]


def test_a_folder_of_pdsynth_is_replaced_on_request_only(tmp_path: Path) -> None:
    out = tmp_path / "out"
    make(out)
    with pytest.raises(InputError, match=r"exists already.*--overwrite"):
        make(out, {"new.txt": "4"})
    assert content(out) == FILES
    make(out, {"new.txt": "4"}, overwrite=True)
    assert content(out) == {"new.txt": "4"}
    assert list(tmp_path.iterdir()) == [out]


def put_file(out: Path) -> Path:
    (out / "deep" / "thesis.docx").write_text("mine")
    return out / "deep" / "thesis.docx"


def put_empty_folder(out: Path) -> Path:
    (out / "raw").mkdir()
    return out / "raw"


def put_link(out: Path) -> Path:
    (out / "scratch").symlink_to(out.parent)
    return out / "scratch"


def put_link_for_a_file(out: Path) -> Path:
    shutil.move(out / "a.txt", out.parent / "elsewhere.txt")
    (out / "a.txt").symlink_to(out.parent / "elsewhere.txt")
    return out / "a.txt"


def edit(out: Path) -> Path:
    about = (out / "deep" / "b.txt").stat()
    (out / "deep" / "b.txt").write_text("tow")
    os.utime(out / "deep" / "b.txt", ns=(about.st_atime_ns, about.st_mtime_ns))  # its size and time are as before
    return out / "deep" / "b.txt"


def edit_manifest(out: Path) -> Path:
    entries = json.loads((out / "manifest.json").read_text())
    (out / "manifest.json").write_text(json.dumps(entries | {"note": "mine"}))
    return out / "manifest.json"


def put_pipe(out: Path) -> Path:
    (out / "a.txt").unlink()
    os.mkfifo(out / "a.txt")
    return out / "a.txt"


PLACEMENTS = [put_file, put_empty_folder, put_link, put_link_for_a_file, edit, edit_manifest, put_pipe]


@pytest.mark.parametrize("place", PLACEMENTS)
def test_foreign_and_edited_files_are_named_and_kept(place: Callable[[Path], Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    make(out)
    foreign = place(out)
    before = {p: p.lstat().st_mtime_ns for p in tmp_path.rglob("*")}
    for how in ({}, {"overwrite": True}, {"update": True}):
        with pytest.raises(InputError) as refusal:
            make(out, {"new.txt": "4"}, **how)
        assert refusal.value.path == foreign
    with pytest.raises(InputError) as refusal, folders.adding(out):
        pass
    assert refusal.value.path == foreign
    assert {p: p.lstat().st_mtime_ns for p in tmp_path.rglob("*")} == before


@pytest.mark.parametrize("name", ["thesis.tex", "manifest.json"])
def test_a_folder_of_a_user_is_never_replaced(name: str, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / name).write_text('{"manifest_version": 3, "name": "an extension", "version": "1.0"}')
    (tmp_path / "mine" / "code.js").write_text("let a")
    for how in ({}, {"overwrite": True}, {"update": True}):
        with pytest.raises(InputError, match="was not written by pdsynth"):
            make(tmp_path / "mine", **how)
    assert set(content(tmp_path / "mine")) == {"code.js", name} - {"manifest.json"}


@pytest.mark.parametrize("name", ["out.old", "out.partial"])
def test_folders_with_similar_names_are_not_touched(name: str, tmp_path: Path) -> None:
    """The names are OUT.old, of a backup, and OUT.partial, of a folder that is not a workspace."""
    out, backup = tmp_path / "out", tmp_path / name
    make(tmp_path / "first")
    (tmp_path / "first").rename(backup)  # even one that pdsynth made
    before = content(backup)
    for how in ({}, {"overwrite": True}):
        if name == "out.partial":
            with pytest.raises(InputError, match=r"out\.partial: is not a workspace of pdsynth: it contains"):
                make(out, **how)
        else:
            make(out, **how)
        assert content(backup) == before


def test_desktop_files_are_ignored_and_kept(tmp_path: Path) -> None:
    out = tmp_path / "out"
    make(out)
    left = {"deep/.DS_Store": "desktop", "Thumbs.db": "windows", "deep/er/.nfs000012": "nfs"}
    for name, text in left.items():
        (out / name).write_text(text)
    make(out, {"new.txt": "4", "deep/b.txt": "5"}, overwrite=True)
    assert content(out) == {"new.txt": "4", "deep/b.txt": "5"} | left
    assert list(tmp_path.iterdir()) == [out]


def test_a_folder_with_desktop_files_only_counts_as_empty(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".DS_Store").write_text("desktop")
    make(tmp_path / "out")
    assert content(tmp_path / "out") == FILES | {".DS_Store": "desktop"}


def test_an_older_folder_is_read_but_not_replaced(tmp_path: Path) -> None:
    with tarfile.open(Path(__file__).parent / "formats" / "0.1.0.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    for name in ("prepared", "results", "run"):
        before = {p: p.read_bytes() for p in (tmp_path / name).rglob("*") if p.is_file()}
        for how in ({}, {"overwrite": True}, {"update": True}):
            with pytest.raises(InputError, match=r"was written by pdsynth 0\.1\.0 without a list of its files"):
                make(tmp_path / name, **how)
        assert {p: p.read_bytes() for p in (tmp_path / name).rglob("*") if p.is_file()} == before


def test_links_to_the_output_folder_are_followed(tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    (tmp_path / "home").mkdir()
    for name, target in (("empty", "scratch/there"), ("dangling", "scratch/none")):
        (tmp_path / "home" / name).symlink_to(tmp_path / target)
    (tmp_path / "scratch" / "there").mkdir()
    for name in ("empty", "dangling"):
        make(tmp_path / "home" / name)
        make(tmp_path / "home" / name, {"new.txt": "4"}, overwrite=True)
        assert (tmp_path / "home" / name).is_symlink()
        assert content((tmp_path / "home" / name).resolve()) == {"new.txt": "4"}
    assert {p.name for p in (tmp_path / "scratch").iterdir()} == {"there", "none"}


def test_impossible_output_paths_are_named_before_any_work(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    monkeypatch.chdir(tmp_path)
    for out, problem in (
        (Path("."), "is the working directory"),
        (Path("new/.."), "is the working directory"),
        (Path("/proc"), "is the top folder of a disk"),
        (Path("file"), "is a file"),
        (Path("x" * 250), "has a name that is too long"),
        (Path("loop"), "cannot be a folder"),
    ):
        with pytest.raises(InputError, match=problem):
            make(out)
    assert {p.name for p in tmp_path.iterdir()} == {"file", "loop"}


def test_an_input_of_the_run_is_never_replaced(tmp_path: Path) -> None:
    out = tmp_path / "out"
    make(out, {"bids/a": ""})
    with pytest.raises(InputError, match="contains an input of this run"):
        make(out, overwrite=True, inputs=[out / "bids"])
    assert (out / "bids" / "a").exists()


def test_a_second_run_on_the_same_folder_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with folders.making(out) as work:
        (work.folder / "a.txt").write_text("first")
        with pytest.raises(InputError, match=rf"is being written by another run \(process {os.getpid()} on "):
            make(out)
    assert content(out) == {"a.txt": "first"}


def test_a_stopped_run_is_resumed_if_possible_and_otherwise_removed(tmp_path: Path) -> None:
    for resume, left in (("give it again", True), (None, False)):
        out = tmp_path / f"{left}" / "out"
        make(out)
        with pytest.raises(KeyboardInterrupt) as stop, folders.making(out, update=True, resume=resume) as work:
            assert content(work.folder) == FILES
            (work.folder / "new.txt").write_text("4")
            raise KeyboardInterrupt
        assert content(out) == FILES
        assert out.with_name("out.partial").exists() == left
        said = " ".join(stop.value.__notes__)
        assert ("is kept in" in said and "to resume it, give it again" in said) if left else "is unchanged" in said
        with folders.making(out, update=True, resume=resume) as work:
            assert content(work.folder) == FILES | ({"new.txt": "4"} if left else {})
        assert list(out.parent.iterdir()) == [out]


def test_an_update_does_not_touch_the_old_files(tmp_path: Path) -> None:
    """This holds if a command writes into a file in place, and if the file is large and linked."""
    out = tmp_path / "out"
    make(out)
    (tmp_path / "big").write_text("x" * (folders.LINKED + 1))
    shutil.rmtree(out)
    make(out, {"a.txt": "one", "big": "x" * (folders.LINKED + 1)})
    with pytest.raises(KeyboardInterrupt), folders.making(out, update=True, resume="again") as work:
        assert (work.folder / "big").samefile(out / "big")
        with (work.folder / "a.txt").open("a") as file:
            file.write("more")
        raise KeyboardInterrupt
    assert (out / "a.txt").read_text() == "one"


def test_adding_to_a_folder_inside_another_keeps_both(tmp_path: Path) -> None:
    """As `pdsynth report demo/prepared` does: the folder around it may still be replaced, unless a file was edited."""
    whole, out, inner = tmp_path / "whole", tmp_path / "whole" / "out", tmp_path / "whole" / "out" / "inner"
    with (
        folders.making(whole) as around,
        manifest.recorded(around.folder, "demo"),
        folders.making(around.folder / "out") as work,
        manifest.recorded(work.folder, "demo"),
    ):
        (work.folder / "a.txt").write_text("one")
        make(work.folder / "inner")
    for text in ("page", "newer page"):
        with folders.adding(inner) as folder:
            (folder / "page.html").write_text(text)
        names = (*FILES, "page.html", "manifest.json")
        assert folders.refuse_foreign(out).keys() == {"a.txt", "manifest.json", *(f"inner/{name}" for name in names)}
        assert len(folders.refuse_foreign(whole)) == len(names) + 3
    later = {"made_by": "pdsynth", "format": 99, "version": "9.0"}
    (tmp_path / "manifest.json").write_text(json.dumps(later))
    with folders.adding(inner) as folder:
        (folder / "page.html").write_text("newest page")
    assert folders.refuse_foreign(out) and json.loads((tmp_path / "manifest.json").read_text()) == later
    (inner / "a.txt").write_text("edited")
    with pytest.raises(InputError, match=r"a\.txt: was edited"):
        folders.refuse_foreign(out)


def test_adding_does_not_replace_the_folder_itself(tmp_path: Path, monkeypatch) -> None:
    out = tmp_path / "out"
    make(out)
    (out / ".DS_Store").write_text("desktop")
    place = out.stat().st_ino
    monkeypatch.chdir(out)
    with folders.adding(Path(".")) as folder:
        (folder / "report.html").write_text("page")
        (folder / "a.txt").write_text("changed")
        (folder / "deep" / "b.txt").unlink()
    assert out.stat().st_ino == place
    kept = {name: text for name, text in FILES.items() if name != "deep/b.txt"}
    assert content(out) == kept | {"a.txt": "changed", "report.html": "page", ".DS_Store": "desktop"}
    assert folders.refuse_foreign(out)
    with pytest.raises(RuntimeError), folders.adding(out) as folder:
        (folder / "report.html").write_text("half")
        raise RuntimeError
    assert (out / "report.html").read_text() == "page"
    assert list(tmp_path.iterdir()) == [out]
    monkeypatch.chdir(tmp_path)
    for file in ("deep", ""):  # an error in the copy names the folder of the user, as it was given
        with pytest.raises(InputError) as refusal, folders.adding(Path("out")) as folder:
            raise InputError(folder / file, "is damaged", "repair it")
        assert refusal.value.path == Path("out") / file
    assert str(refusal.value) == "out: is damaged. Remedy: repair it." and list(tmp_path.iterdir()) == [out]
    (out / "a.txt").unlink()  # what its owner took away and a verb makes again, with the same bytes
    with folders.adding(out) as folder:
        assert not (folder / "a.txt").exists()
        (folder / "a.txt").write_text("changed")
    assert (out / "a.txt").read_text() == "changed"
    with pytest.raises(InputError, match="contains nothing that pdsynth wrote"), folders.adding(tmp_path / "none"):
        pass
