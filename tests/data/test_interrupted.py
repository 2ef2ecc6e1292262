"""A killed run goes on to the same bytes, a second run makes only what changed, and nothing is half-written."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import pandas as pd
import pytest

from pdsynth import folders, manifest
from pdsynth.cohorts.bids import bids
from pdsynth.data import prepare as module
from pdsynth.data import sessions
from pdsynth.data.pairs import Pairs
from pdsynth.data.prepare import prepare, prepare_cohort
from pdsynth.files import write_json
from pdsynth.options import PrepareOptions
from pdsynth.types import InputError, Modality
from pdsynth.workers import Workers

KILLED = """
import os, signal, sys
from pathlib import Path
from pdsynth.cohorts.bids import bids
from pdsynth.data.prepare import prepare
def stop(done, sessions):
    if done == 2:
        os.kill(os.getpid(), signal.SIGKILL)
prepare(bids(sys.argv[1]), Path(sys.argv[2]), grid_mm=8, segments=2, progress=stop)
"""


@pytest.fixture
def made(monkeypatch) -> list[str]:
    """The names of the sessions that are made from here on."""
    names = []
    real = module.make
    monkeypatch.setattr(module, "make", lambda task: names.append(task.name) or real(task))
    return names


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a prepared folder by name, without the times of the run and of files that had just been made."""
    files = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    files = {name: re.sub(rb'"(mtime_ns|ctime_ns|inode)": (\d+|null)', b"", content) for name, content in files.items()}
    entries = json.loads(files.pop("manifest.json"))
    return files | {
        "manifest": {k: v for k, v in entries.items() if k not in ("started", "finished", "seconds", "files", "seal")}
    }


def test_a_killed_run_goes_on_to_the_same_bytes(pristine, tmp_path: Path, made) -> None:
    out = tmp_path / "prepared"
    ended = subprocess.run([sys.executable, "-c", KILLED, str(pristine.root), str(out)], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert [p.name for p in tmp_path.iterdir()] == ["prepared.partial"]
    partial = tmp_path / "prepared.partial" / "prepared"
    with pytest.raises(InputError, match="is not a prepared folder"):
        Pairs.open(partial)
    (partial / "sessions" / ".partial-of-a-file.npy").write_bytes(b"half")
    (partial / ".partial-17-pairs.tsv").write_bytes(b"half")
    prepare(bids(pristine.root), out, grid_mm=8, segments=2)
    assert made == ["sub-03", "sub-04"]
    prepare(bids(pristine.root), tmp_path / "whole", grid_mm=8, segments=2)
    assert content(out) == content(tmp_path / "whole")
    assert {p.name for p in tmp_path.iterdir()} == {"prepared", "whole"}


def test_a_second_run_makes_only_what_is_new_or_changed(study, tmp_path: Path, made) -> None:
    out, four = tmp_path / "prepared", bids(study.root)
    three = replace(four, subjects=four.subjects[:3])
    first = prepare(three, out, grid_mm=8, split=(0.4, 0.3, 0.3))
    before = content(out)
    assert made == ["sub-01", "sub-02", "sub-03"] and len(first) == 3
    os.utime(study.root / "sub-01/dwi/sub-01_dwi.nii.gz")  # a new time on the same bytes
    prepare(three, out, grid_mm=8, split=(0.4, 0.3, 0.3))
    assert len(made) == 3 and content(out) == before

    path = study.root / "sub-02/func/sub-02_task-rest_bold.nii.gz"
    image = nib.load(path)
    nib.save(nib.Nifti1Image(image.get_fdata() * 0.5, image.affine, image.header), path)
    table = study.root / "participants.tsv"
    table.write_text(table.read_text().replace("sub-01\t71\tF\tx", "sub-01\t75\tM\tanother"))
    prepare(bids(study.root), out, grid_mm=8, split=(0.4, 0.3, 0.3))
    assert made[3:] == ["sub-02", "sub-04"]
    after = pd.read_csv(out / "pairs.tsv", sep="\t")
    assert after["site"].tolist() == ["another", "x", "x", "x"]  # tables are made anew, volumes are not
    splits = [dict(line.split("\t")[:2] for line in each) for each in (lines(before), lines(content(out)))]
    assert splits[0].items() <= splits[1].items() and splits[1].keys() - splits[0].keys() == {"sub-04"}

    gone = bids(study.root)
    gone.subjects = gone.subjects[1:]
    prepare(gone, out, grid_mm=8, split=(0.4, 0.3, 0.3), prune=True)
    assert len(made) == 5 and not list(out.rglob("sub-01*"))


def one(study, name: str = "sub-03"):
    """The cohort of one participant."""
    cohort = bids(study.root)
    return replace(cohort, subjects=[s for s in cohort.subjects if s.participant_id == name])


def test_a_shard_that_was_damaged_at_equal_size_is_named_and_made_again_once_it_is_away(study, tmp_path, made) -> None:
    out = prepare(one(study), tmp_path / "prepared", grid_mm=8).root
    shard = out / "sessions" / "sub-03.npy"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-100] + b"\x01" * 100)
    with pytest.raises(InputError, match=r"sub-03\.npy: was changed after the folder was prepared"):
        Pairs.open(out).volume(Modality.FMRI, 0)  # only there: its size is right
    with pytest.raises(InputError, match=r"sub-03\.npy: was edited since pdsynth wrote it"):
        prepare(one(study), out, grid_mm=8)
    shard.unlink()
    prepare(one(study), out, grid_mm=8)
    assert made == ["sub-03"] * 2 and shard.read_bytes() == whole


def test_what_failed_for_want_of_memory_is_tried_again(study, tmp_path: Path, made, monkeypatch) -> None:
    real, cohort = sessions.standardise, bids(study.root)
    two = replace(cohort, subjects=cohort.subjects[2:])

    def greedy(scan, *settings):
        if "sub-03" in scan.path.name:
            raise MemoryError
        return real(scan, *settings)

    monkeypatch.setattr(sessions, "standardise", greedy)
    with pytest.raises(MemoryError) as stop:
        prepare(replace(two, subjects=two.subjects[::-1]), tmp_path / "prepared", grid_mm=8)
    assert "to resume it, give the same command again" in " ".join(stop.value.__notes__)
    monkeypatch.setattr(sessions, "standardise", real)
    assert len(prepare(two, tmp_path / "prepared", grid_mm=8)) == 2
    assert made == ["sub-04", "sub-03", "sub-03"]


def test_who_is_pruned_for_one_run_keeps_the_split(study, tmp_path: Path) -> None:
    out, split = tmp_path / "prepared", (0.4, 0.3, 0.3)
    first = prepare(bids(study.root), out, grid_mm=8, split=split).table.set_index("participant_id")["split"]
    path = study.root / "sub-03/func/sub-03_task-rest_bold.nii.gz"
    whole = path.read_bytes()
    path.write_bytes(whole[:5000])
    pruned = prepare(bids(study.root), out, grid_mm=8, split=split, prune=True)
    assert "sub-03" not in pruned.table["participant_id"].tolist()
    path.write_bytes(whole)
    again = prepare(bids(study.root), out, grid_mm=8, split=split).table.set_index("participant_id")["split"]
    assert again.to_dict() == first.to_dict()
    (out / "splits.tsv").unlink()
    with pytest.raises(InputError, match=r"has lost its splits\.tsv"):
        prepare(bids(study.root), out, grid_mm=8, split=split)


def spoil_dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to("somewhere/that/is/not/mounted")


def spoil_away(path: Path) -> None:
    path.unlink()


def spoil_cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def spoil_voxels(path: Path) -> None:
    """Good to look at by its header; damaged where its voxels are read."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)


@pytest.mark.parametrize("spoil", [spoil_dangling, spoil_away, spoil_cut, spoil_voxels])
@pytest.mark.parametrize("modalities", [("fmri",), ("fmri", "dmri")])
def test_a_session_whose_scans_cannot_be_read_today_stays_unless_it_is_pruned(
    spoil, modalities, study, tmp_path
) -> None:
    out, split = tmp_path / "prepared", (0.4, 0.3, 0.3)
    cohort = bids(study.root)
    prepare(replace(cohort, subjects=cohort.subjects[:2]), out, grid_mm=8, segments=2, split=split)
    before = content(out)
    places = {"fmri": "func/sub-02_task-rest_bold.nii.gz", "dmri": "dwi/sub-02_dwi.nii.gz"}
    for modality in modalities:
        spoil(study.root / "sub-02" / places[modality])
    cohort = bids(study.root)
    cohort.subjects = [s for s in cohort.subjects if s.participant_id in ("sub-01", "sub-02")]
    pairs = prepare(cohort, out, grid_mm=8, segments=2, split=split)
    after = content(out)
    assert pairs.manifest["kept"] == ["sub-02"]
    same = ["pairs.tsv", "splits.tsv", "quality.tsv", "sessions/sub-02.npy", "sessions/sub-02.json"]
    assert [after[name] for name in same] == [before[name] for name in same]
    pruned = prepare(cohort, out, grid_mm=8, segments=2, split=split, prune=True)
    left = pruned.whole_scans().table.set_index("participant_id")["available"].to_dict()
    assert left == {"sub-01": "both"} | ({"sub-02": "dmri"} if modalities == ("fmri",) else {})


def test_a_backup_beside_the_output_is_nobodys_but_its_owners(study, tmp_path: Path) -> None:
    out = prepare(one(study), tmp_path / "prepared", grid_mm=8).root
    out.rename(tmp_path / "prepared.old")  # the commonest way to keep one
    (tmp_path / "prepared.old" / "notes.txt").write_text("mine")
    before = {p: p.read_bytes() for p in (tmp_path / "prepared.old").rglob("*") if p.is_file()}
    prepare(one(study), tmp_path / "prepared", grid_mm=8)
    assert {p: p.read_bytes() for p in (tmp_path / "prepared.old").rglob("*") if p.is_file()} == before
    with pytest.raises(InputError, match="from another dataset"):  # one that is refused touches it no more
        other = replace(one(study), root=tmp_path)
        prepare(other, tmp_path / "prepared", grid_mm=8)
    assert {p: p.read_bytes() for p in (tmp_path / "prepared.old").rglob("*") if p.is_file()} == before


def test_the_page_is_in_the_folder_before_it_has_its_name(study, tmp_path: Path) -> None:
    out = tmp_path / "prepared"

    def page(folder: Path) -> None:
        (folder / "quality.html").write_text(f"{out.exists()}")

    prepare_cohort(one(study), out, PrepareOptions(grid_mm=8), Workers(1), page=page)
    assert (out / "quality.html").read_text() == "False"
    assert "quality.html" in json.loads((out / "manifest.json").read_text())["files"]


def test_a_workspace_of_another_dataset_or_verb_is_not_gone_on_with(study, tmp_path: Path) -> None:
    out = tmp_path / "prepared"

    def stop(done: int, sessions: int) -> None:
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(bids(study.root), out, grid_mm=8, progress=stop)
    other = Path(shutil.copytree(study.root, tmp_path / "other"))
    with pytest.raises(InputError, match="was prepared from another dataset"):
        prepare(bids(other), out, grid_mm=8)
    with pytest.raises(InputError, match="with grid_mm 8, not 4"):
        prepare(bids(study.root), out)
    run = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt), folders.making(run, resume="with --resume") as work:
        write_json(work.folder / "manifest.json", manifest.begin("train"))
        (work.folder / "checkpoints").mkdir()
        (work.folder / "checkpoints" / "0.ckpt").write_text("hours")
        raise KeyboardInterrupt
    with pytest.raises(InputError, match="was not written by pdsynth prepare"):
        prepare(bids(study.root), run, grid_mm=8)
    assert (tmp_path / "run.partial" / "run" / "checkpoints" / "0.ckpt").read_text() == "hours"
    assert len(prepare(bids(study.root), out, grid_mm=8)) == 4


def lines(files: dict[str, bytes]) -> list[str]:
    return files["splits.tsv"].decode().splitlines()[1:]


def test_an_update_that_is_cut_leaves_the_old_folder_whole(study, tmp_path: Path, made) -> None:
    out = tmp_path / "prepared"
    cohort = bids(study.root)
    prepare(replace(cohort, subjects=cohort.subjects[2:3]), out, grid_mm=8)
    before = content(out)

    def stop(done: int, sessions: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(replace(cohort, subjects=cohort.subjects[2:]), out, grid_mm=8, progress=stop)
    assert content(out) == before and len(Pairs.open(out)) == 1
    prepare(replace(cohort, subjects=cohort.subjects[2:]), out, grid_mm=8)
    assert made == ["sub-03", "sub-04"] and len(Pairs.open(out)) == 2


def test_bad_input_leaves_nothing(study, tmp_path: Path) -> None:
    for path in study.root.rglob("*.nii.gz"):
        path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match="holds no usable scan"):
        prepare(bids(study.root), tmp_path / "prepared", grid_mm=8)
    assert [p.name for p in tmp_path.iterdir()] == ["study"]


def test_a_folder_that_is_unfinished_or_was_changed_is_not_opened(pristine, tmp_path: Path) -> None:
    cohort = bids(pristine.root)
    whole = prepare(replace(cohort, subjects=cohort.subjects[2:3]), tmp_path / "whole", grid_mm=8).root
    entries = json.loads((whole / "manifest.json").read_text())
    unfinished = {k: entries[k] for k in ("version", "command", "started")}
    shard = (whole / "sessions" / "sub-03.npy").read_bytes()
    spoilt = {
        "manifest.json": (json.dumps(unfinished).encode(), r"incomplete .*without a finished manifest\.json"),
        "splits.tsv": (b"participant_id\tsplit\nsub-03\ttest\n", r"splits\.tsv: was changed"),
        "sessions/sub-03.npy": (shard[:-100], r"sub-03\.npy: is cut short"),
    }
    for number, (name, (bytes_, problem)) in enumerate(spoilt.items()):
        out = Path(shutil.copytree(whole, tmp_path / str(number)))
        (out / name).write_bytes(bytes_)
        with pytest.raises(InputError, match=rf"{problem}.*Remedy: run `pdsynth prepare` again"):
            Pairs.open(out)
