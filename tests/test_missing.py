"""Filling in what a folder lacks: whose each volume is, what is kept, what stops a run, and a row for each scan."""

from __future__ import annotations

import errno
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fixture_trees import copy_source_model
from pdsynth import missing
from pdsynth.cli import main
from pdsynth.cohorts.cohort import Scan
from pdsynth.files import sha256
from pdsynth.imaging.nifti import SyntheticMark, Volume, read_header
from pdsynth.imaging.spatial import Grid, mni_grid, resample
from pdsynth.imaging.template import epi_template
from pdsynth.missing import synthesise_path
from pdsynth.outcomes import TABLE
from pdsynth.synthesis import Model, Synthesis
from pdsynth.types import Direction, InputError

GRID = mni_grid(8)
NATIVE = Grid((30, 34, 28), np.array([[-6, 0, 0, 88], [0, 6, 0, -118], [0, 0, 6, -70], [0, 0, 0, 1]], float))


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return copy_source_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def bold(tmp_path_factory) -> bytes:
    """The bytes of a small scan that registers."""
    path = tmp_path_factory.mktemp("scan") / "bold.nii.gz"
    data = resample(epi_template(mni_grid(4)), NATIVE)
    image = nib.Nifti1Image((np.stack([data] * 4, -1) * 100).astype(np.float32), NATIVE.affine)
    image.header.set_zooms((6, 6, 6, 2.0))
    nib.save(image, path)
    return path.read_bytes()


def put(root: Path, name: str, content: bytes) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def table(out: Path) -> list[tuple[str, ...]]:
    rows = pd.read_csv(out / TABLE, sep="\t", dtype=str, keep_default_na=False)
    return [tuple(row) for row in rows[["participant_id", "session_id", "target", "status"]].to_numpy().tolist()]


def run(*words: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    return int(stop.value.code or 0)


def test_sessions_whose_files_have_one_name_have_a_volume_each(model, bold, tmp_path) -> None:
    bids = tmp_path / "bids"
    for visit, content in (("1", bold), ("2", bold + b"\0")):  # one byte of padding tells them apart
        put(bids, f"sub-a/ses-{visit}/func/sub-a_task-rest_bold.nii.gz", content)
    written, refused = synthesise_path(model, bids, tmp_path / "out", device="cpu")
    assert refused == []
    names = [path.relative_to(tmp_path / "out").as_posix() for path in written]
    assert names == [f"sub-a/ses-{v}/dwi/sub-a_ses-{v}_desc-synthetic_dwiref.nii.gz" for v in ("1", "2")]
    for visit, path in zip(("1", "2"), written, strict=True):
        said = json.loads(path.with_name(path.name.replace(".nii.gz", ".json")).read_text())
        (scan,) = (bids / "sub-a" / f"ses-{visit}").rglob("*.nii.gz")
        assert said["SourceSHA256"] == [sha256(scan)]


def test_a_copy_in_the_folder_of_another_is_refused_by_name_and_mixed_with_nobody(model, bold, tmp_path) -> None:
    bids = tmp_path / "bids"
    put(bids, "sub-a/func/sub-a_task-rest_bold.nii.gz", bold)
    put(bids, "sub-b/func/sub-a_task-rest_bold.nii.gz", bold + b"\0")
    written, refused = synthesise_path(model, bids, tmp_path / "out", device="cpu")
    assert [path.name for path in written] == ["sub-a_desc-synthetic_dwiref.nii.gz"]
    assert [(r.path.parent.parent.name, r.reason) for r in refused] == [
        ("sub-b", "is named for sub-a but lies in the folder of sub-b")
    ]
    said = json.loads(written[0].with_name("sub-a_desc-synthetic_dwiref.json").read_text())
    assert said["SourceSHA256"] == [sha256(bids / "sub-a/func/sub-a_task-rest_bold.nii.gz")]


def test_two_scans_that_would_be_one_file_are_an_error(model, bold, tmp_path, monkeypatch) -> None:
    bids, out = tmp_path / "bids", tmp_path / "out"
    for name in ("a", "b"):
        put(bids, f"sub-{name}/func/sub-{name}_task-rest_bold.nii.gz", bold)
    real = missing.sources
    monkeypatch.setattr(
        missing, "sources", lambda *words: ((replace(s, participant_id="sub-x"), reason) for s, reason in real(*words))
    )
    with pytest.raises(InputError, match=r"two scans that would be one file: sub-a/.*_bold\.nii\.gz and sub-b/"):
        synthesise_path(model, bids, out, device="cpu")
    assert not out.exists()


LABELS, VISITS = ("a", "b", "b1"), ("", "1", "2")
FILES = st.tuples(
    *map(st.sampled_from, (LABELS, VISITS, ("", *LABELS), VISITS, ("", "_run-1", "_acq-x", "_task-rest")))
)


def instead(self: Model, scan: Scan, **options: object) -> Synthesis:
    """What stands for a network: a volume of nothing that names its source."""
    mark = SyntheticMark(
        direction=Direction.to(scan.modality.other),
        sources=[scan.path.name],
        model_sha256=self.sha256,
        seed=0,
        version="0",
        source_sha256=[sha256(scan.path)],
    )
    return Synthesis(Volume(np.zeros((2, 2, 2)), np.eye(4)), None, mark, mark, scan.path)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(files=st.lists(FILES, min_size=1, max_size=6, unique=True))
def test_every_volume_stems_from_the_folder_whose_name_it_bears(files, model, bold, monkeypatch) -> None:
    """Participants, sessions and file names that agree or contradict; everything else is refused by name."""
    monkeypatch.setattr(Model, "synthesize", instead)
    with TemporaryDirectory() as name:
        bids, out = Path(name) / "bids", Path(name) / "out"
        placed = {}
        for number, (person, visit, named, named_visit, extras) in enumerate(files):
            place = f"sub-{person}/{f'ses-{visit}/' if visit else ''}func"
            who = f"sub-{named}" if named else "scan"
            session = f"_ses-{named_visit}" if named_visit else ""
            path = put(bids, f"{place}/{who}{session}{extras}_bold.nii.gz", bold + b"\0" * (number + 1))
            placed[path] = (person, visit) if not named or (named == person and named_visit in ("", visit)) else None
        refused = []
        try:
            _, refused = synthesise_path(model, bids, out, device="cpu")
        except InputError as error:  # nothing was left to make, or the dataset as a whole is not understood
            assert not list(out.rglob("*.nii.gz")) and str(bids) in str(error)
            return
        digests = {sha256(path): whose for path, whose in placed.items()}
        volumes = list(out.rglob("*_desc-synthetic_dwiref.nii.gz"))
        assert volumes
        for volume in volumes:
            (source,) = json.loads(volume.with_name(volume.name.replace(".nii.gz", ".json")).read_text())[
                "SourceSHA256"
            ]
            person, visit = digests[source]  # None, of a file that contradicts its folder, would fail here
            where = f"sub-{person}/{f'ses-{visit}/' if visit else ''}dwi"
            assert volume.parent.relative_to(out).as_posix() == where
            assert volume.name == f"sub-{person}{f'_ses-{visit}' if visit else ''}_desc-synthetic_dwiref.nii.gz"
        assert {path for path, whose in placed.items() if whose is None} <= {r.path for r in refused}


@pytest.mark.parametrize(
    ("number", "cause"),
    [(errno.ENOSPC, "No space left"), (errno.EDQUOT, "quota"), (errno.EFBIG, "too large"), (errno.EIO, "Input/output")],
)
def test_a_disk_that_takes_no_more_stops_the_run_and_the_same_command_goes_on(
    number, cause, model, bold, tmp_path, monkeypatch, capsys
) -> None:
    bids, out = tmp_path / "bids", tmp_path / "out"
    for name in ("a", "b", "c"):
        put(bids, f"sub-{name}/func/sub-{name}_task-rest_bold.nii.gz", bold)
    real = Synthesis.save

    def no_room(self: Synthesis, folder: Path, participant_id: str, *rest: str) -> list[Path]:
        if participant_id == "sub-b":
            raise OSError(number, os.strerror(number), str(folder / "sub-b.nii.gz"))
        return real(self, folder, participant_id, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(Synthesis, "save", no_room)
        assert run("synthesize", model, bids, out, "--device", "cpu", "--jobs", 1) == 2
    said = capsys.readouterr().err
    assert cause in said and "sub-b.nii.gz" in said and "Remedy" in said
    assert f"The work of this run is kept in {out}.partial; to resume it, give the same command again." in said
    assert not out.exists()
    made = list((tmp_path / "out.partial").rglob("*_dwiref.nii.gz"))
    assert [path.name for path in made] == ["sub-a_desc-synthetic_dwiref.nii.gz"]
    before = made[0].stat().st_mtime_ns
    assert run("synthesize", model, bids, out, "--device", "cpu", "--jobs", 1) == 0
    assert (out / "sub-a" / "dwi" / made[0].name).stat().st_mtime_ns == before  # it was not made again
    assert len(list(out.rglob("*_dwiref.nii.gz"))) == 3


@pytest.mark.parametrize("error", [MemoryError(), type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory")])
def test_lack_of_memory_is_no_scans_fault(error, model, bold, tmp_path, monkeypatch, capsys) -> None:
    put(tmp_path / "bids", "sub-a/func/sub-a_task-rest_bold.nii.gz", bold)

    def greedy(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(Model, "synthesize", greedy)
    assert run("synthesize", model, tmp_path / "bids", tmp_path / "out", "--device", "cpu", "--jobs", 1) == 2
    said = capsys.readouterr().err
    assert "There is not enough memory" in said and "fewer processes" in said
    assert not (tmp_path / "out").exists()


def test_a_dataset_that_is_lost_while_it_is_read_stops_the_run(model, bold, tmp_path, monkeypatch) -> None:
    bids = tmp_path / "bids"
    for name in ("a", "b"):
        put(bids, f"sub-{name}/func/sub-{name}_task-rest_bold.nii.gz", bold)
    real = Model.synthesize

    def unmounted(self: Model, scan: Scan, **options: object) -> Synthesis:
        shutil.rmtree(bids, ignore_errors=True)
        return real(self, scan, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Model, "synthesize", unmounted)
    with pytest.raises(OSError) as stop:
        synthesise_path(model, bids, tmp_path / "out", device="cpu")
    assert stop.value.errno == errno.ENOTCONN and stop.value.filename == str(bids)


def test_jobs_do_not_change_the_bytes(model, bold, tmp_path) -> None:
    bids = tmp_path / "bids"
    for name in ("a", "b", "c"):
        put(bids, f"sub-{name}/func/sub-{name}_task-rest_bold.nii.gz", bold)
    found = []
    for jobs in (1, 2):
        out = tmp_path / f"{jobs}"
        synthesise_path(model, bids, out, device="cpu", jobs=jobs)
        found.append({p.relative_to(out): p.read_bytes() for p in out.rglob("*") if p.is_file()})
    assert len(found[0]) == 9 and found[0] == found[1]


def test_a_second_run_adds_who_is_new_and_keeps_the_others(model, bold, tmp_path, capsys) -> None:
    bids, out = tmp_path / "bids", tmp_path / "out"
    first = put(bids, "sub-a/func/sub-a_task-rest_bold.nii.gz", bold)
    words = ("synthesize", model, bids, out, "--device", "cpu", "--jobs", 1)
    assert run(*words) == 0
    volume = out / "sub-a" / "dwi" / "sub-a_desc-synthetic_dwiref.nii.gz"
    before = volume.stat().st_mtime_ns
    second = put(bids, "sub-b/func/sub-b_task-rest_bold.nii.gz", bold)
    put(bids, "sub-c/func/sub-c_task-rest_bold.nii.gz", bold[:3000])
    assert "kept" not in capsys.readouterr().out
    assert run(*words) == 0
    assert "(made before and kept: those of 1 scan)" in capsys.readouterr().out
    assert volume.stat().st_mtime_ns == before
    assert table(out) == [
        ("", "", "", "refused"),
        ("sub-a", "", "dmri", "made"),
        ("sub-b", "", "dmri", "made"),
    ]
    assert run("synthesize", model, second, out, "--device", "cpu") == 0  # one scan after the other, too
    assert run(*words, "--strict") == 2
    assert "holds 1 refused scan" in capsys.readouterr().err
    first.write_bytes(bold + b"\0")  # a scan that changed is made again
    assert run(*words) == 0
    assert volume.stat().st_mtime_ns != before
    for changed in (("--seed", 1), ("--shell", 2000)):
        assert run(*words, *changed) == 2
    assert "holds volumes that were made with shell 1000" in capsys.readouterr().err
    shutil.rmtree(bids / "sub-a")  # a source that is away today drops nothing
    assert run(*words) == 0
    assert read_header(volume).synthetic and ("sub-a", "", "dmri", "made") in table(out)


def test_two_datasets_with_participants_of_one_name_are_not_mixed(model, bold, tmp_path, capsys) -> None:
    for name in ("A", "B"):
        put(tmp_path / name, "sub-1/func/sub-1_task-rest_bold.nii.gz", bold + b"\0" * len(name + "B" * (name == "B")))
    out = tmp_path / "out"
    assert run("synthesize", model, tmp_path / "A", out, "--device", "cpu", "--jobs", 1) == 0
    volume = out / "sub-1" / "dwi" / "sub-1_desc-synthetic_dwiref.nii.gz"
    before = volume.read_bytes()
    assert run("synthesize", model, tmp_path / "B", out, "--device", "cpu", "--jobs", 1) == 2
    assert "was made from a scan in another place" in capsys.readouterr().err
    assert volume.read_bytes() == before


def test_an_old_volume_never_stands_beside_the_sidecar_of_a_new_scan(model, bold, tmp_path, monkeypatch) -> None:
    bids, out = tmp_path / "bids", tmp_path / "out"
    scan = put(bids, "sub-1/func/sub-1_task-rest_bold.nii.gz", bold)
    words = ("synthesize", model, bids, out, "--device", "cpu", "--jobs", 1)
    assert run(*words) == 0
    old = (out / "sub-1" / "dwi" / "sub-1_desc-synthetic_dwiref.nii.gz").read_bytes()
    scan.write_bytes(bold[:-8] + bold[-8:] + b"\0")

    def no_room(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "x")

    with monkeypatch.context() as patched:
        patched.setattr(nib, "save", no_room)
        assert run(*words) == 2
    (partial,) = (tmp_path / "out.partial").glob("out/sub-1/dwi")
    assert not list(partial.glob("*.nii.gz"))
    assert (out / "sub-1" / "dwi" / "sub-1_desc-synthetic_dwiref.nii.gz").read_bytes() == old
    assert run(*words) == 0
    said = json.loads((out / "sub-1" / "dwi" / "sub-1_desc-synthetic_dwiref.json").read_text())
    assert said["SourceSHA256"] == [sha256(scan)]
