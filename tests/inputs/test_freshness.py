"""An output is made again if, and only if, the content of its inputs has changed, whatever their times say."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from fixture_trees import copy_source_model
from pdsynth import freshness
from pdsynth.cli import main
from pdsynth.cohorts.bids import bids
from pdsynth.data.prepare import prepare
from pdsynth.files import sha256
from pdsynth.freshness import renewed, stamp, unchanged
from pdsynth.imaging.spatial import Grid, mni_grid, resample
from pdsynth.imaging.template import epi_template
from pdsynth.types import Modality


@pytest.fixture
def reads(monkeypatch) -> list[str]:
    """The names of the files whose content is read for a digest from here on."""
    names: list[str] = []
    monkeypatch.setattr(freshness, "sha256", lambda path: names.append(path.name) or sha256(path))
    return names


@pytest.fixture
def settled(monkeypatch) -> None:
    """Files of this moment count as old enough for their times to be trusted."""
    monkeypatch.setattr(freshness, "TIME_STEP_NS", -(10**15))


def swap(a: Path, b: Path) -> None:
    """Exchange the names of two files, as `mv` does: content, size and modification time move along."""
    other = a.with_name("other")
    a.rename(other)
    b.rename(a)
    other.rename(b)


def write(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    os.utime(path, (10**9, 10**9))


def test_an_unchanged_file_is_not_read_again(tmp_path, reads, settled) -> None:
    path = tmp_path / "scan"
    write(path, b"a")
    first = stamp(path)
    assert first is not None and first["sha256"] == sha256(path) and reads == ["scan"]
    assert renewed(path, first) is first
    assert reads == ["scan"]


def test_a_touched_file_is_read_once_and_then_known(tmp_path, reads, settled) -> None:
    path = tmp_path / "scan"
    write(path, b"a")
    first = stamp(path)
    os.utime(path, (2 * 10**9, 2 * 10**9))
    second = renewed(path, first)
    assert unchanged(first, second) and second is not first
    assert renewed(path, second) is second
    assert reads == ["scan", "scan"]


def test_a_file_that_changed_a_moment_ago_is_read_again(tmp_path, reads) -> None:
    path = tmp_path / "scan"
    write(path, b"a")
    first = stamp(path)
    assert first is not None and first["ctime_ns"] is None
    path.write_bytes(b"b")  # within one step of the file system's clock, the ctime might be the same
    os.utime(path, (10**9, 10**9))
    assert not unchanged(first, renewed(path, first))


def test_a_stamp_of_version_0_1_0_is_compared_by_its_digest(tmp_path, reads, settled) -> None:
    path = tmp_path / "scan"
    write(path, b"a")
    old = {"size": 1, "mtime_ns": path.stat().st_mtime_ns, "sha256": sha256(path)}
    assert unchanged(old, renewed(path, old)) and reads == ["scan"]
    path.write_bytes(b"b")
    assert not unchanged(old, renewed(path, old))


def test_a_file_that_cannot_be_read_is_unchanged_only_if_it_could_not_be_read_before(tmp_path) -> None:
    path = tmp_path / "scan"
    assert stamp(path) is None and unchanged(None, renewed(path, None))
    write(path, b"a")
    first = stamp(path)
    assert not unchanged(None, renewed(path, None))
    path.unlink()
    assert not unchanged(first, renewed(path, first))


OPERATIONS = ("rewrite", "touch", "replace", "swap", "copy_back", "nothing")


@given(st.lists(st.tuples(st.sampled_from(OPERATIONS), st.sampled_from("abc"), st.booleans()), max_size=6))
def test_whatever_happens_to_files_only_their_content_decides(operations) -> None:
    """Input: files that were rewritten in place, replaced, exchanged, restored or touched, also with their old time.

    Result: read, and made again if and only if the content of a file has changed.
    """
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(freshness, "TIME_STEP_NS", -(10**15))
        one, two = Path(folder, "one"), Path(folder, "two")
        write(one, b"a")
        write(two, b"b")
        stamps = {path: stamp(path) for path in (one, two)}
        contents = {path: path.read_bytes() for path in (one, two)}
        for operation, letter, restore in operations:
            if operation == "rewrite":
                one.write_bytes(letter.encode())
            elif operation == "touch":
                one.touch()
            elif operation == "replace":
                new = Path(folder, "new")
                new.write_bytes(letter.encode())
                new.rename(one)
            elif operation == "swap":
                swap(one, two)
            elif operation == "copy_back":
                shutil.copy2(two, one)
            if restore:
                os.utime(one, (10**9, 10**9))
            for path in (one, two):
                now = renewed(path, stamps[path])
                assert unchanged(stamps[path], now) == (path.read_bytes() == contents[path])
                stamps[path] = now if now is not None else stamp(path)
                contents[path] = path.read_bytes()


NATIVE = Grid((30, 34, 28), np.array([[-6, 0, 0, 88], [0, 6, 0, -118], [0, 0, 6, -70], [0, 0, 0, 1]], float))


@pytest.fixture
def dataset(tmp_path) -> Path:
    """fMRI of two participants: files of one size and one modification time, with different content."""
    template = resample(epi_template(mni_grid(4)), NATIVE)
    for number in (1, 2):
        field = ndimage.gaussian_filter(np.random.default_rng(number).standard_normal(NATIVE.shape), 3)
        data = 100 * template * (1 + 0.1 * field / field.std())
        path = tmp_path / "study" / f"sub-0{number}" / "func" / f"sub-0{number}_task-rest_bold.nii"
        path.parent.mkdir(parents=True)
        image = nib.Nifti1Image(np.stack([data] * 4, -1).astype(np.float32), NATIVE.affine)
        image.header.set_zooms((6, 6, 6, 2.0))
        nib.save(image, path)
        os.utime(path, (10**9, 10**9))
    return tmp_path / "study"


def exchange_scans(dataset: Path) -> None:
    one, two = sorted(dataset.rglob("*_bold.nii"))
    assert (one.stat().st_size, one.stat().st_mtime) == (two.stat().st_size, two.stat().st_mtime)
    swap(one, two)


def test_scans_that_were_exchanged_are_prepared_again(dataset, tmp_path, settled) -> None:
    """Input: scans of two participants, of equal size and time, were exchanged after `prepare`, or put right.

    Result: read; `prepare` makes both sessions again.
    """
    out = tmp_path / "prepared"
    volumes = [prepare(bids(dataset), out, grid_mm=8).volume(Modality.FMRI, row).copy() for row in (0, 1)]
    exchange_scans(dataset)
    pairs = prepare(bids(dataset), out, grid_mm=8)
    assert not np.array_equal(volumes[0], volumes[1])
    assert all(np.array_equal(pairs.volume(Modality.FMRI, row), volumes[1 - row]) for row in (0, 1))


def test_an_unchanged_cohort_is_not_read_by_prepare(dataset, tmp_path, settled, reads) -> None:
    out = tmp_path / "prepared"
    prepare(bids(dataset), out, grid_mm=8)
    assert len(reads) == 2
    prepare(bids(dataset), out, grid_mm=8)
    assert len(reads) == 2
    for scan in dataset.rglob("*_bold.nii"):
        scan.touch()
    prepare(bids(dataset), out, grid_mm=8)
    prepare(bids(dataset), out, grid_mm=8)
    assert len(reads) == 4  # once more after new times, which are then known


def test_scans_that_were_exchanged_are_synthesised_again(dataset, tmp_path, settled, reads) -> None:
    """Input: scans of two participants, of equal size and time, were exchanged after `synthesize`, or put right.

    Result: read; `synthesize` makes both volumes again, and reads no scan again that is unchanged.
    """
    model = copy_source_model(tmp_path / "model")
    out = tmp_path / "out"

    def volumes() -> list[bytes]:
        with pytest.raises(SystemExit, match="0"):
            main(["synthesize", str(model), str(dataset), str(out), "--jobs", "1"])
        return [np.asarray(nib.load(path).dataobj).tobytes() for path in sorted(out.rglob("*synthetic_dwiref.nii.gz"))]

    first = volumes()
    assert volumes() == first and first[0] != first[1]
    assert reads == []  # the digests of the synthesis itself are in the sidecars
    exchange_scans(dataset)
    assert volumes() == first[::-1]
