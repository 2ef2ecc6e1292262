"""A scan that is present but refused is not missing: it is synthesised only with --replace-refused."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from fixture_trees import copy_source_model, write_scan
from pdsynth.cli import main
from pdsynth.files import sha256
from pdsynth.imaging.spatial import Grid, mni_grid, resample
from pdsynth.imaging.template import epi_template
from pdsynth.missing import TABLE, synthesise_path
from pdsynth.sources import NOT_MISSING
from pdsynth.types import InputError
from verdicts import put

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
    nib.save(nib.Nifti1Image((np.stack([data] * 4, -1) * 100).astype(np.float32), NATIVE.affine), path)
    return path.read_bytes()


@pytest.fixture
def study(tmp_path: Path, bold: bytes) -> Path:
    """sub-a lacks dMRI; that of sub-b has capitals in its name."""
    for name in ("a", "b"):
        put(tmp_path / f"bids/sub-{name}/func/sub-{name}_task-rest_bold.nii.gz", bold + b"\0" * ord(name))
    write_scan(tmp_path / "bids/sub-b/dwi/sub-b_dwi.nii.gz").rename(tmp_path / "bids/sub-b/dwi/sub-b_dwi.NII.GZ")
    return tmp_path / "bids"


def rows(out: Path) -> dict[str, tuple[str, str]]:
    table = pd.read_csv(out / TABLE, sep="\t", dtype=str, keep_default_na=False)
    table = table[table["participant_id"] != ""]
    return {row["participant_id"]: (row["status"], row["reason"]) for row in table.to_dict("records")}


def test_a_refused_scan_is_not_synthesised(model, study, tmp_path):
    """Input: a participant whose dMRI was refused. Result: flagged, as not made; --replace-refused synthesises it."""
    out = tmp_path / "out"
    written, refused = synthesise_path(model, study, out, device="cpu")
    assert {path.name.split("_")[0] for path in written} == {"sub-a"} and len(refused) == 1
    status, reason = rows(out)["sub-b"]
    assert status == "not made" and reason.startswith(f"{NOT_MISSING} (sub-b_dwi.NII.GZ has capitals")
    assert rows(out)["sub-a"] == ("made", "")
    written, _ = synthesise_path(model, study, out, device="cpu", replace_refused=True)
    assert {path.name.split("_")[0] for path in written} == {"sub-a", "sub-b"}
    assert rows(out)["sub-b"] == ("made", "")


def test_a_dataset_of_refused_scans_alone(model, study, tmp_path):
    """Input: a dataset whose absent scans were all refused. Result: refused, with the first reason and the option."""
    (study / "sub-a/func/sub-a_task-rest_bold.nii.gz").unlink()
    with pytest.raises(InputError, match=r"of sub-b, its own scan is there.*--replace-refused"):
        synthesise_path(model, study, tmp_path / "out", device="cpu")


def test_the_command_has_the_options_that_it_names(model, study, tmp_path, capsys):
    """Input: a refused scan, on the command line. Result: flagged on the screen, with the option --replace-refused."""
    words = ["synthesize", model, study, tmp_path / "out", "--jobs", "1", "--device", "cpu", "--select", "task=rest"]
    for more, warned in (([], True), (["--replace-refused"], False)):
        with pytest.raises(SystemExit) as stop:
            main([str(word) for word in [*words, *more]])
        assert not stop.value.code
        printed = " ".join(capsys.readouterr().err.split())
        assert ("Not synthesised: 1 refused scan" in printed) == warned


def test_the_digest_of_a_folder_with_an_unreadable_file(tmp_path, monkeypatch):
    """Input: a private file that this user may not read, anywhere in a dataset. Result: ignored, except its size."""
    put(tmp_path / "a/note.txt", b"abc")
    whole, read = sha256(tmp_path), Path.read_bytes

    def denied(path: Path) -> bytes:
        if path.name == "note.txt":
            raise PermissionError(13, "Permission denied", str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", denied)
    first = sha256(tmp_path)
    put(tmp_path / "a/note.txt", b"abcd")
    assert len({whole, first, sha256(tmp_path)}) == 3
