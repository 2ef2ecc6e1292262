"""One study on disk in several layouts: the pairs are the same."""

from __future__ import annotations

import json
import shutil
from datetime import date, timedelta
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from fixture_trees import write_table
from pdsynth.cohorts import detect, read
from pdsynth.data.pairs import Pairs
from pdsynth.data.prepare import prepare
from pdsynth.imaging.nifti import Volume
from pdsynth.imaging.spatial import Transform, mni_grid, resample
from pdsynth.types import Modality

FIRST_DAY = date(2011, 3, 1)
CODES = {"NC": ("1", "CN"), "MCI": ("2", "MCI"), "AD": ("3", "Dementia")}


def scans(study: Path):
    """Number of the participant, kind, diagnosis and files of each scan of the BIDS study."""
    rows = [line.split("\t") for line in (study / "participants.tsv").read_text().splitlines()[1:]]
    for participant, *_, diagnosis in rows:
        for image in sorted((study / participant).rglob("*.nii.gz")):
            stem = image.name.removesuffix(".nii.gz")
            yield int(participant[-1]), image.parent.name, diagnosis, sorted(image.parent.glob(f"{stem}.*"))


def copy(files: list[Path], folder: Path, stem: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        shutil.copy(file, folder / f"{stem}{file.name[file.name.index('.') :]}")


def as_adni(study: Path, out: Path) -> None:
    series = {"func": "Resting_State_fMRI", "dwi": "Axial_DTI"}
    rows = ["PTID VISCODE EXAMDATE EXAMDATE_bl DX AGE PTGENDER PTEDUCAT MMSE MOCA"]
    for i, kind, diagnosis, files in scans(study):
        day, ptid = FIRST_DAY + timedelta(days=i), f"027_S_000{i}"
        copy(files, out / ptid / series[kind] / f"{day}_10_00_00.0" / f"I{i}{kind}", f"ADNI_{ptid}_{series[kind]}")
        rows.append(f"{ptid} bl {day} {day} {CODES[diagnosis][1]} 7{i} Female 16 28 26")
    write_table(out / "ADNIMERGE.csv", "\n".join(dict.fromkeys(rows)))


def as_oasis3(study: Path, out: Path, bids: bool) -> None:
    folder = {"func": "func1", "dwi": "dwi1"}
    rows = ["OASISID days_to_visit age+at+visit NORMCOG DEMENTED PROBAD MCIAMEM"]
    for i, kind, diagnosis, files in scans(study):
        person, suffix = f"OAS3000{i}", "task-rest_run-01_bold" if kind == "func" else "dwi"
        place = f"sub-{person}/ses-d010{i}/{kind}" if bids else f"{person}_MR_d010{i}/{folder[kind]}"
        copy(files, out / place, f"sub-{person}_ses-d010{i}_{suffix}")
        flags = {"NC": "1 0 0 0", "MCI": "0 0 0 1", "AD": "0 1 1 0"}[diagnosis]
        rows.append(f"{person} 10{i} 7{i} {flags}")
    write_table(out / "OASIS3_UDSd1_diagnoses.csv", "\n".join(dict.fromkeys(rows)))


def as_derivatives(study: Path, out: Path) -> None:
    """In the participants' own spaces, as QSIPrep and an fMRIPrep without a template write them."""
    for i, kind, _, files in scans(study):
        tree, suffix = (
            ("fmriprep", "task-rest_desc-preproc_bold")
            if kind == "func"
            else ("qsiprep", "space-ACPC_desc-preproc_dwi")
        )
        copy(files, out / tree / f"sub-0{i}" / kind, f"sub-0{i}_{suffix}")
    shutil.copy(study / "participants.tsv", out)


def as_hospital(study: Path, out: Path) -> None:
    for i, kind, _, files in scans(study):
        copy(files, out / f"P{i}" / kind, f"{kind}_scan")
    (out / "pdsynth.yaml").write_text(
        """{fmri: "{participant}/func/*.nii.gz", dmri: "{participant}/dwi/*.nii.gz", table: all.tsv,
        columns: {participant: id, diagnosis: diagnosis, age: age}}"""
    )
    table = (study / "participants.tsv").read_text().replace("participant_id", "id").replace("sub-0", "P")
    (out / "all.tsv").write_text(table)


LAYOUTS = {
    "adni": as_adni,
    "oasis3 A": lambda study, out: as_oasis3(study, out, bids=False),
    "oasis3 B": lambda study, out: as_oasis3(study, out, bids=True),
    "derivatives": as_derivatives,
    "folder": as_hospital,
}


@pytest.fixture(scope="module")
def expected(pristine, tmp_path_factory) -> Pairs:
    return prepare(read(pristine.root), tmp_path_factory.mktemp("bids") / "prepared", split=(0.5, 0.25, 0.25))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_prepares_to_the_same_pairs(layout, pristine, expected, tmp_path):
    LAYOUTS[layout](pristine.root, tmp_path / "study")
    assert detect(tmp_path / "study")[0] == layout.split()[0]
    found = prepare(read(tmp_path / "study"), tmp_path / "prepared", split=(0.5, 0.25, 0.25))
    assert found.table["available"].tolist() == expected.table["available"].tolist()
    assert found.table["diagnosis"].tolist() == expected.table["diagnosis"].tolist()
    np.testing.assert_allclose(found.table["age"].astype(float), expected.table["age"].astype(float), atol=0.01)
    assert found.table["dx_gap_days"].astype(str).isin(["0", "n/a"]).all() and found.table["scan_gap_days"].eq(0).all()
    for name, array in expected.arrays.items():
        np.testing.assert_array_equal(found.arrays[name], array)


def test_a_scan_that_a_tool_brought_to_mni_is_not_registered_again(pristine, expected, tmp_path):
    """Scans resampled to MNI by hand, given as fMRIPrep's: the same volumes, but for resampling twice."""
    tree = tmp_path / "fmriprep" / "sub-01" / "func"
    tree.mkdir(parents=True)
    kept = json.loads((expected.root / "transforms" / "sub-01_fmri.json").read_text())
    image = nib.load(next(pristine.root.rglob("sub-01*_bold.nii.gz")))
    moved = Transform.from_json(json.dumps(kept)).matrix
    grid = mni_grid(2.0)
    series = [resample(Volume(image.dataobj[..., t], image.affine), grid, moved) for t in range(image.shape[3])]
    name = "sub-01_task-rest_space-MNI152NLin2009cAsym_res-2_desc-preproc_bold.nii.gz"
    nib.save(nib.Nifti1Image(np.stack(series, -1).astype(np.float32), grid.affine), tree / name)
    found = prepare(read(tmp_path), tmp_path / "prepared", split=(1.0, 0.0, 0.0))
    steps = json.loads((found.root / "transforms" / "sub-01_fmri.json").read_text())
    assert "already in MNI152NLin2009cAsym" in json.dumps(steps)
    one, other = found.volume(Modality.FMRI, 0), expected.volume(Modality.FMRI, 0)
    assert np.corrcoef(one[other > 0], other[other > 0])[0, 1] > 0.99
