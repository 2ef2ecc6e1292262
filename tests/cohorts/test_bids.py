"""The BIDS reader on small trees: what it finds, what it refuses file by file, and what stops it."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from fixture_trees import SHAPE, write_dwi, write_scan
from pdsynth.cohorts.bids import bids
from pdsynth.cohorts.scans import single_scan
from pdsynth.imaging.nifti import SyntheticMark, Volume, write_synthetic
from pdsynth.types import Diagnosis, Direction, InputError, Modality

FMRI, DMRI = Modality.FMRI, Modality.DMRI


def table(root: Path, text: str, name: str = "participants.tsv") -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join("\t".join(line.split()) for line in text.strip().splitlines()) + "\n")


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Three participants: both scans; fMRI alone; two visits, of which the second has dMRI alone."""
    write_scan(tmp_path / "sub-01/func/sub-01_task-rest_bold.nii.gz")
    write_dwi(tmp_path / "sub-01/dwi/sub-01_dwi.nii.gz")
    write_scan(tmp_path / "sub-02/func/sub-02_task-rest_bold.nii.gz")
    write_scan(tmp_path / "sub-03/ses-a/func/sub-03_ses-a_task-rest_bold.nii.gz")
    write_dwi(tmp_path / "sub-03/ses-b/dwi/sub-03_ses-b_dwi.nii.gz")
    table(
        tmp_path,
        """participant_id age sex site diagnosis
        sub-01 71.5 F oasis CN
        02 89+ male adni MCI
        sub-03 n/a n/a n/a Dementia""",
    )
    return tmp_path


def reasons(root: Path) -> dict[str, str]:
    return {r.path.name: r.reason for r in bids(root).rejected}


def test_reads_subjects_sessions_and_tables(study: Path) -> None:
    cohort = bids(study)
    one, two, three = cohort.subjects
    assert [s.participant_id for s in cohort.subjects] == ["sub-01", "sub-02", "sub-03"]
    assert (one.sex, one.site, two.sex, three.sex, three.site) == ("F", "oasis", "M", None, None)
    assert [s.diagnosis for _, s in cohort] == [Diagnosis.NC, Diagnosis.MCI, Diagnosis.AD, Diagnosis.AD]
    assert [s.age for _, s in cohort] == [71.5, 89.0, None, None]
    assert [s.session_id for s in three.sessions] == ["ses-a", "ses-b"]
    assert [s.missing for _, s in cohort] == [[], [DMRI], [DMRI], [FMRI]]
    assert one.sessions[0].scans[DMRI].bvec == study / "sub-01/dwi/sub-01_dwi.bvec"
    assert cohort.rejected == [] and not cohort.simulated


def test_sessions_table_overrides_diagnosis_and_age(study: Path) -> None:
    table(study, "session_id diagnosis age\nses-a MCI 70\nses-b AD 72", "sub-03/sub-03_sessions.tsv")
    sessions = bids(study).subjects[2].sessions
    assert [(s.diagnosis, s.age) for s in sessions] == [(Diagnosis.MCI, 70.0), (Diagnosis.AD, 72.0)]


def test_diagnosis_column_and_codes_are_options(study: Path) -> None:
    table(study, "participant_id Group\nsub-01 1\nsub-02 2\nsub-03 3")
    codes = {"1": Diagnosis.NC, "2": Diagnosis.MCI, "3": Diagnosis.AD}
    assert bids(study, "group", codes).subjects[1].sessions[0].diagnosis is Diagnosis.MCI
    assert bids(study).subjects[1].sessions[0].diagnosis is None
    with pytest.raises(
        InputError,
        match=r"unknown: '1', '2', '3'\. Remedy: look up the codes .* map each to NC.*--diagnosis-map 1=\.\.\.",
    ):
        bids(study, "Group")
    with pytest.raises(InputError, match="no diagnosis in a column 'stage'"):
        bids(study, "stage")


def test_simulated_is_read_from_the_description(study: Path) -> None:
    (study / "dataset_description.json").write_text(json.dumps({"Name": "x", "Simulated": True}))
    assert bids(study).simulated
    (study / "dataset_description.json").write_text("{")
    with pytest.raises(InputError, match=r"dataset_description.json: is not a JSON"):
        bids(study)


def test_the_run_with_most_volumes_is_taken_then_the_first_by_name(study: Path) -> None:
    func = study / "sub-02/func"
    write_scan(func / "sub-02_task-rest_run-3_bold.nii.gz", 9)
    write_scan(func / "sub-02_task-rest_run-2_bold.nii.gz", 9)
    cohort = bids(study)
    assert cohort.subjects[1].sessions[0].scans[FMRI].path.name == "sub-02_task-rest_run-2_bold.nii.gz"
    assert cohort.rejected == []


def test_gradients_are_inherited_from_a_folder_above(study: Path) -> None:
    for kind in ("bval", "bvec"):
        (study / f"sub-01/dwi/sub-01_dwi.{kind}").rename(study / f"dwi.{kind}")
    assert bids(study).subjects[0].sessions[0].scans[DMRI].bval == study / "dwi.bval"


def test_derivatives_are_no_subjects(study: Path) -> None:
    write_scan(study / "derivatives/x/sub-09/func/sub-09_bold.nii.gz")
    assert len(bids(study).subjects) == 3


def test_transposed_bvec_is_fine(study: Path) -> None:
    write_dwi(study / "sub-01/dwi/sub-01_dwi.nii.gz", transposed=True)
    assert bids(study).rejected == []


@pytest.mark.parametrize("kind", ["bval", "bvec"])
def test_missing_gradient_table_is_refused(study: Path, kind: str) -> None:
    (study / f"sub-01/dwi/sub-01_dwi.{kind}").unlink()
    cohort = bids(study)
    (row,) = cohort.rejected
    assert (row.path.name, row.reason) == ("sub-01_dwi.nii.gz", f"has no .{kind} file")
    assert f"sub-01_dwi.{kind}" in row.remedy
    session = cohort.subjects[0].sessions[0]
    assert session.missing == [] and session.refused == {DMRI: f"sub-01_dwi.nii.gz has no .{kind} file"}


def test_dwi_without_weighting_or_with_a_count_mismatch_is_refused(study: Path) -> None:
    path = write_dwi(study / "sub-01/dwi/sub-01_dwi.nii.gz", (0, 5, 1.25))
    assert "no volume with b > 0" in reasons(study)[path.name]
    write_dwi(path)
    write_scan(path, 7)
    assert "4 b-values for 7 volumes" in reasons(study)["sub-01_dwi.bval"]


def test_single_volumes_and_slabs_are_refused(study: Path) -> None:
    write_scan(study / "sub-01/func/sub-01_task-rest_bold.nii.gz", 1)
    write_scan(study / "sub-02/func/sub-02_task-rest_bold.nii.gz", shape=(24, 24, 8))
    found = reasons(study)
    assert "one volume" in found["sub-01_task-rest_bold.nii.gz"]
    assert "slab of 40 mm" in found["sub-02_task-rest_bold.nii.gz"]


def test_the_slab_is_measured_from_foot_to_head_whatever_the_axes(study: Path) -> None:
    path = study / "sub-01/func/sub-01_task-rest_bold.nii.gz"
    sagittal = np.array([[0, 0, 5.0, 0], [5, 0, 0, 0], [0, -5, 0, 0], [0, 0, 0, 1]])  # 24 slices lie left to right
    nib.save(nib.Nifti1Image(np.ones((24, 8, 24, 3), np.int16), sagittal), path)
    assert "slab of 40 mm" in reasons(study)[path.name]
    nib.save(nib.Nifti1Image(np.ones((24, 24, 24, 3), np.int16), sagittal), path)
    assert reasons(study) == {}


def test_lost_voxel_size_is_refused(study: Path) -> None:
    write_scan(study / "sub-02/func/sub-02_task-rest_bold.nii.gz", spacing=1, shape=(64, 64, 21))
    assert "1x1x1 mm" in reasons(study)["sub-02_task-rest_bold.nii.gz"]


def test_truncated_garbage_and_dangling_files_are_refused(study: Path) -> None:
    func = study / "sub-02/func"
    whole = (func / "sub-02_task-rest_bold.nii.gz").read_bytes()
    (func / "sub-02_task-cut_bold.nii.gz").write_bytes(whole[: len(whole) // 2])
    (func / "sub-02_task-text_bold.nii.gz").write_bytes(b"not an image")
    (func / "sub-02_task-empty_bold.nii.gz").write_bytes(b"")
    (func / "sub-02_task-link_bold.nii.gz").symlink_to(study / "absent.nii.gz")
    cohort = bids(study)
    assert len(cohort.rejected) == 4 and all(r.remedy for r in cohort.rejected)
    assert cohort.subjects[1].sessions[0].scans[FMRI].path.name == "sub-02_task-rest_bold.nii.gz"


def test_synthesised_scan_is_refused(study: Path) -> None:
    path = study / "sub-02/func/sub-02_task-rest_bold.nii.gz"
    mark = SyntheticMark(Direction.DMRI_TO_FMRI, ["sub-02_dwi.nii.gz"], "0" * 64, 0, "0")
    write_synthetic(Volume(np.ones(SHAPE), np.diag([5.0, 5, 5, 1])), path, mark)
    assert "synthesised" in reasons(study)[path.name]
    with pytest.raises(InputError, match="synthesised"):
        single_scan(path)


def test_what_stops_a_cohort(tmp_path: Path, study: Path) -> None:
    with pytest.raises(InputError, match="is not a folder"):
        bids(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no sub-\* folder"):
        bids(tmp_path / "empty")
    (tmp_path / "bare/sub-01/anat").mkdir(parents=True)
    with pytest.raises(InputError, match="no \\*_bold"):
        bids(tmp_path / "bare")
    table(study, "subject age\nsub-01 70")
    with pytest.raises(InputError, match="no column participant_id"):
        bids(study)
    table(study, "participant_id diagnosis\nsub-01 schizophrenia")
    with pytest.raises(InputError, match="a diagnosis that is unknown: 'schizophrenia'"):
        bids(study)


def test_unreadable_age_is_a_row_and_the_cohort_goes_on(study: Path) -> None:
    table(study, "participant_id age\nsub-01 old\nsub-02 70\nsub-03 71")
    cohort = bids(study)
    (row,) = cohort.rejected
    assert row.reason == (
        "has cells in the column age, which holds numbers from 0 to 120 (years), that were not read: 'old' (line 2)"
    )
    assert [s.age for _, s in cohort] == [None, 70, 71, 71]


def test_rows_of_one_id_that_contradict_each_other_give_no_value(study: Path) -> None:
    table(study, "participant_id age sex\nsub-01 70 F\n01 71 F\nsub-02 72 M\nsub-02 72.0 m\nsub-03 60 M")
    cohort = bids(study)
    assert [(p.sex, s.age) for p, s in cohort] == [("F", None), ("M", 72), ("M", 60), ("M", 60)]
    (row,) = cohort.rejected
    assert row.reason == (
        "has rows of one id that contradict each other in age; these cells were not read: sub-01 (lines 2 and 3)"
    )


def test_single_scans(tmp_path: Path) -> None:
    bold = write_scan(tmp_path / "my_bold.nii.gz")
    weighted = write_dwi(tmp_path / "series7.nii.gz")
    assert single_scan(bold).modality is FMRI
    assert single_scan(weighted).bval == tmp_path / "series7.bval"
    mean = write_scan(tmp_path / "mean_dwi.nii.gz", 0)
    assert single_scan(mean).bval is None
    unknown = write_scan(tmp_path / "x.nii.gz")
    with pytest.raises(InputError, match="may be fMRI or dMRI"):
        single_scan(unknown)
    assert single_scan(unknown, FMRI).path == unknown
    with pytest.raises(InputError, match=r"no \.bval"):
        single_scan(unknown, DMRI)
    with pytest.raises(InputError, match="does not exist"):
        single_scan(tmp_path / "absent_bold.nii.gz")


def test_real_dataset_and_odd_files(real_data: Path) -> None:
    cohort = bids(real_data / "bids-real")
    (session,) = cohort.subjects[0].sessions
    assert session.scans[DMRI].path.name == "sub-xa30_dir-AP_dwi.nii.gz" and cohort.rejected == []
    with pytest.raises(InputError, match="no orientation in its header"):
        single_scan(real_data / "odd/bold_header-zooms-1mm_filtered_func_data.nii.gz")
    with pytest.raises(InputError, match=r"no sub-\* folder"):
        bids(real_data / "odd")
    for name in ("bold_156vol_task-oneback", "dwi_toshiba", "dwi_partial-slab_b0-reads-1.25"):
        single_scan(real_data / f"odd/{name}.nii.gz")


def test_scores_that_clinica_may_have_crossed_are_not_read(tmp_path: Path) -> None:
    write_scan(tmp_path / "sub-OAS30001/ses-M000/func/sub-OAS30001_ses-M000_task-rest_bold.nii.gz")
    table(tmp_path, "participant_id age\nsub-OAS30001 70")
    table(tmp_path / "sub-OAS30001", "session_id MMSE diagnosis\nses-M000 12 AD", "sub-OAS30001_sessions.tsv")
    cohort = bids(tmp_path)
    ((_, session),) = list(cohort)
    assert (session.scores, session.diagnosis, session.age) == ({}, None, 70)
    assert [r.path.name for r in cohort.rejected] == ["sub-OAS30001_sessions.tsv"]
