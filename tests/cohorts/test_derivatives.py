"""fMRIPrep's and QSIPrep's output folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from fixture_trees import write_dwi, write_scan, write_table
from pdsynth.cohorts import derivatives, detect, read
from pdsynth.types import Diagnosis, InputError, Modality

FMRI, DMRI = Modality.FMRI, Modality.DMRI
MNI = "space-MNI152NLin2009cAsym"


def bold(tree: Path, name: str, space: str = f"{MNI}_res-2", volumes: int = 4, session: str = "") -> Path:
    folder = tree / name / session / "func"
    stem = "_".join(filter(None, [name, session, "task-rest", space, "desc-preproc_bold"]))
    return write_scan(folder / f"{stem}.nii.gz", volumes)


def dwi(tree: Path, name: str, space: str = "space-ACPC", session: str = "") -> Path:
    stem = "_".join(filter(None, [name, session, space, "desc-preproc_dwi"]))
    return write_dwi(tree / name / session / "dwi" / f"{stem}.nii.gz")


@pytest.fixture
def output(tmp_path: Path) -> Path:
    fmriprep, qsiprep = tmp_path / "derivatives" / "fmriprep", tmp_path / "derivatives" / "qsiprep"
    bold(fmriprep, "sub-01")
    bold(fmriprep, "sub-01", "space-T1w", volumes=9)  # longer, and not in MNI
    write_scan(fmriprep / "sub-01/func" / f"sub-01_task-rest_{MNI}_res-2_boldref.nii.gz", 0)
    write_scan(fmriprep / "sub-01/func" / f"sub-01_task-rest_{MNI}_res-2_desc-brain_mask.nii.gz", 0)
    bold(fmriprep, "sub-02", "", session="ses-a")  # in its own space alone
    dwi(qsiprep, "sub-01")
    dwi(qsiprep, "sub-02", "space-T1w", session="ses-b")
    dwi(qsiprep, "sub-03")
    write_table(tmp_path / "participants.tsv", "participant_id diagnosis\nsub-01 CN\nsub-02 MCI\nsub-03 AD", "\t")
    return tmp_path


def test_the_trees_are_read_as_one_dataset(output):
    assert detect(output)[0] == "derivatives"
    cohort = read(output)
    assert [
        (p.participant_id, v.session_id, v.diagnosis, {str(m): scan.space for m, scan in v.scans.items()})
        for p, v in cohort
    ] == [
        ("sub-01", "", Diagnosis.NC, {"fmri": "MNI152NLin2009cAsym", "dmri": "ACPC"}),
        ("sub-02", "ses-a", Diagnosis.MCI, {"fmri": None}),
        ("sub-02", "ses-b", Diagnosis.MCI, {"dmri": "T1w"}),
        ("sub-03", "", Diagnosis.AD, {"dmri": "ACPC"}),
    ]
    scans = cohort.subjects[0].sessions[0].scans
    assert scans[FMRI].in_mni and not scans[DMRI].in_mni
    assert cohort.rejected == []


@pytest.mark.parametrize("place", ["derivatives", "derivatives/fmriprep"])
def test_either_folder_may_be_named(output, place):
    found = detect(output / place)
    assert found[0] == "derivatives"
    assert len(read(output / place).subjects) == (3 if place == "derivatives" else 2)


def test_raw_scans_beside_their_derivatives_are_a_choice(output):
    write_scan(output / "sub-01/func/sub-01_task-rest_bold.nii.gz")
    with pytest.raises(InputError, match="--layout bids or --layout derivatives"):
        detect(output)
    assert [s.participant_id for s in read(output, "bids").subjects] == ["sub-01"]
    assert len(read(output, "derivatives").subjects) == 3


def test_a_folder_without_preprocessed_scans_is_named(tmp_path):
    with pytest.raises(InputError, match="desc-preproc_bold"):
        derivatives(tmp_path)
