"""A killed run goes on to the same bytes, a second run makes only what changed, and nothing is half-written."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import pandas as pd
import pytest

from pdsynth.cohorts.bids import bids
from pdsynth.data import prepare as module
from pdsynth.data import sessions
from pdsynth.data.pairs import Pairs
from pdsynth.data.prepare import prepare
from pdsynth.types import InputError

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
    """Every file of a prepared folder by name, but for the times of the run."""
    files = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    entries = json.loads(files.pop("manifest.json"))
    return files | {"manifest": {k: v for k, v in entries.items() if k not in ("started", "finished", "seconds")}}


def test_a_killed_run_goes_on_to_the_same_bytes(pristine, tmp_path: Path, made) -> None:
    out = tmp_path / "prepared"
    ended = subprocess.run([sys.executable, "-c", KILLED, str(pristine.root), str(out)], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert [p.name for p in tmp_path.iterdir()] == ["prepared.partial"]
    with pytest.raises(InputError, match="no prepared folder"):
        Pairs.open(tmp_path / "prepared.partial")
    (tmp_path / "prepared.partial" / "sessions" / ".partial-of-a-file.npy").write_bytes(b"half")
    (tmp_path / "prepared.partial" / ".pairs.tsv.17").write_bytes(b"half")
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
    prepare(gone, out, grid_mm=8, split=(0.4, 0.3, 0.3))
    assert len(made) == 5 and not list(out.rglob("sub-01*"))


def one(study, name: str = "sub-03"):
    """The cohort of one participant."""
    cohort = bids(study.root)
    return replace(cohort, subjects=[s for s in cohort.subjects if s.participant_id == name])


def test_a_shard_that_was_damaged_at_equal_size_is_made_again(study, tmp_path: Path, made) -> None:
    out = prepare(one(study), tmp_path / "prepared", grid_mm=8).root
    shard = out / "sessions" / "sub-03.npy"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-100] + b"\x01" * 100)
    prepare(one(study), out, grid_mm=8)
    assert made == ["sub-03"] * 2 and shard.read_bytes() == whole


def test_what_failed_for_want_of_memory_is_tried_again(study, tmp_path: Path, made, monkeypatch) -> None:
    real, cohort = sessions.scan_means, bids(study.root)
    two = replace(cohort, subjects=cohort.subjects[2:])

    def greedy(scan, *settings):
        if "sub-03" in scan.path.name:
            raise MemoryError
        return real(scan, *settings)

    monkeypatch.setattr(sessions, "scan_means", greedy)
    assert len(prepare(two, tmp_path / "prepared", grid_mm=8)) == 1
    monkeypatch.setattr(sessions, "scan_means", real)
    assert len(prepare(two, tmp_path / "prepared", grid_mm=8)) == 2
    assert made == ["sub-03", "sub-04", "sub-03"]


def test_who_is_away_for_one_run_keeps_the_split(study, tmp_path: Path) -> None:
    out, split = tmp_path / "prepared", (0.4, 0.3, 0.3)
    first = prepare(bids(study.root), out, grid_mm=8, split=split).table.set_index("participant_id")["split"]
    path = study.root / "sub-03/func/sub-03_task-rest_bold.nii.gz"
    whole = path.read_bytes()
    path.write_bytes(whole[:5000])
    assert "sub-03" not in prepare(bids(study.root), out, grid_mm=8, split=split).table["participant_id"].tolist()
    path.write_bytes(whole)
    again = prepare(bids(study.root), out, grid_mm=8, split=split).table.set_index("participant_id")["split"]
    assert again.to_dict() == first.to_dict()
    (out / "splits.tsv").unlink()
    with pytest.raises(InputError, match=r"has lost its splits\.tsv"):
        prepare(bids(study.root), out, grid_mm=8, split=split)


def test_a_kill_between_the_old_folder_and_the_new_loses_neither(study, tmp_path: Path, made) -> None:
    out = prepare(one(study), tmp_path / "prepared", grid_mm=8).root
    before = content(out)
    out.rename(tmp_path / "prepared.old")  # the old one is away, the new one has not its name yet
    prepare(one(study), tmp_path / "prepared", grid_mm=8)
    assert content(out) == before and made == ["sub-03"]
    shutil.copytree(out, tmp_path / "prepared.old")  # the new one has its name, the old one is not yet removed
    prepare(one(study), tmp_path / "prepared", grid_mm=8)
    assert [p.name for p in tmp_path.iterdir() if p.name != "study"] == ["prepared"]


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
