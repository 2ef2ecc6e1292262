"""Names of files: whose they are, what contradicts a folder, what a synthesised volume is called."""

from __future__ import annotations

from pathlib import Path

import pytest

from fixture_trees import write_dwi, write_scan
from pdsynth.cohorts import bids
from pdsynth.cohorts.names import (
    contradiction,
    entities,
    lone_participant,
    refuse_twins,
    synthetic_name,
    synthetic_stem,
)
from pdsynth.types import InputError, Modality

FMRI, DMRI = Modality.FMRI, Modality.DMRI


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sub-1_ses-2_task-rest_run-01_bold.nii.gz", {"sub": "1", "ses": "2", "task": "rest", "run": "01"}),
        ("sub-01.nii.gz", {"sub": "01"}),
        ("sub-P-01_dwi.bval", {"sub": "P-01"}),
        ("sub-a_sub-b_bold.nii", {"sub": "a"}),  # the first of a key
        ("sub-_-x_rest.nii", {"sub": ""}),
        ("filtered_func_data.nii.gz", {}),
    ],
)
def test_entities_of_a_name(name, expected):
    found = entities(name)
    assert found == expected and list(found) == list(expected)


@pytest.mark.parametrize(
    ("name", "participant", "session", "expected"),
    [
        ("sub-a_bold.nii.gz", "sub-b", "", "is named for sub-a but lies in the folder of sub-b"),
        ("sub-a_ses-1_bold.nii.gz", "sub-b", "ses-2", "is named for sub-a but lies in the folder of sub-b"),
        ("sub-a_ses-1_bold.nii.gz", "sub-a", "ses-2", "is named for ses-1 but lies in the folder of ses-2"),
        ("sub-a_ses-2_bold.nii.gz", "sub-a", "", "is named for ses-2 but lies in a folder of sub-a without sessions"),
        ("sub-A_bold.nii.gz", "sub-a", "", "is named for sub-A but lies in the folder of sub-a"),
        ("sub-a_bold.nii.gz", "sub-a_b", "", "is named for sub-a but lies in the folder of sub-a_b"),
        ("sub-a_sub-b_bold.nii.gz", "sub-a", "", "is named for sub-b but lies in the folder of sub-a"),
        ("sub-a_ses-1_ses-2_bold.nii.gz", "sub-a", "ses-1", "is named for ses-2 but lies in the folder of ses-1"),
        ("sub-_bold.nii.gz", "sub-a", "", "is named for sub- but lies in the folder of sub-a"),
        # a folder that holds a session of its own: one person would be two
        ("sub-a_ses-1_bold.nii", "sub-a_ses-1", "", "is named for sub-a but lies in the folder of sub-a_ses-1"),
        ("sub-a_ses-1_task-rest_run-2_acq-x_bold.nii.gz", "sub-a", "ses-1", None),
        ("sub-a_bold.nii.gz", "sub-a", "ses-1", None),
        ("sub-a.nii.gz", "sub-a", "", None),
        ("sub-a_b_ses-1_bold.nii.gz", "sub-a_b", "ses-1", None),
        ("sub-P-01_bold.nii.gz", "sub-P-01", "", None),
        ("rest_sub-b_bold.nii.gz", "sub-a", "", "is named for sub-b but lies in the folder of sub-a"),
        ("rest_sub-a_ses-2_bold.nii.gz", "sub-a", "ses-1", "is named for ses-2 but lies in the folder of ses-1"),
        ("rest_ses-2_bold.nii.gz", "sub-a", "ses-1", "is named for ses-2 but lies in the folder of ses-1"),
        ("rest_ses-2_bold.nii.gz", "sub-a", "ses-2", None),
        ("rest_sub-a_bold.nii.gz", "sub-a", "ses-2", None),
        ("rest_ses-2_bold.nii.gz", "sub-a", "", None),
        ("ADNI_027_S_0074.nii.gz", "sub-a", "ses-1", None),
    ],
)
def test_contradictions_of_a_name(name, participant, session, expected):
    assert contradiction(Path("x") / name, participant, session) == expected


def test_by_label_letters_and_digits_are_compared():
    path = Path("sub-P01_ses-v1_bold.nii.gz")
    assert contradiction(path, "sub-P-01", "ses-v_1", by_label=True) is None
    assert "sub-P01" in contradiction(path, "sub-P-01", "ses-v_1")
    assert "sub-P01" in contradiction(path, "sub-P-02", "ses-v_1", by_label=True)
    assert "ses-v1" in contradiction(path, "sub-P-01", "ses-v_2", by_label=True)


@pytest.mark.parametrize(
    ("target", "source", "stem"),
    [
        (DMRI, "sub-9_task-rest_run-2_echo-1_part-mag_desc-x_bold.nii.gz", "sub-1_ses-2"),
        (FMRI, "sub-9_ses-8_acq-a_dir-AP_run-1_dwi.nii.gz", "sub-1_ses-2_task-rest"),
        (FMRI, "sub-9_space-T1w_desc-preproc_dwi.nii.gz", "sub-1_ses-2_task-rest_space-T1w"),
        (
            DMRI,
            "sub-1_task-rest_res-2_space-MNI152NLin2009cAsym_desc-preproc_bold.nii.gz",
            "sub-1_ses-2_space-MNI152NLin2009cAsym_res-2",
        ),
        (DMRI, "sub-1_space-a.b_bold.nii.gz", "sub-1_ses-2"),  # no label of BIDS
        (FMRI, "ADNI_027_S_0074_Axial_DTI.nii.gz", "sub-1_ses-2_task-rest"),
    ],
)
def test_a_synthesised_volume_is_named_by_its_participant_and_grid(target, source, stem):
    assert synthetic_stem("sub-1", "ses-2", target, Path("sub-9") / source) == stem
    assert synthetic_stem("sub-1", "", target, Path(source)) == stem.replace("_ses-2", "")
    suffix = {FMRI: "boldref", DMRI: "dwiref"}[target]
    assert synthetic_name(stem, "syntheticstd", target) == f"{stem}_desc-syntheticstd_{suffix}.nii.gz"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("sub-1_ses-2_task-rest_bold.nii.gz", ("sub-1", "ses-2")),
        ("sub-1/ses-2/func/sub-1_ses-2_bold.nii.gz", ("sub-1", "ses-2")),
        ("sub-1/func/sub-1_ses-2_bold.nii.gz", ("sub-1", "ses-2")),
        ("sub-1/ses-2/func/sub-1_bold.nii.gz", ("sub-1", "ses-2")),  # the folder says what the name does not
        ("sub-1/ses-2/func/rest_bold.nii.gz", ("sub-1", "ses-2")),
        ("sub-1_ses-2.feat/filtered_func_data.nii.gz", ("sub-1", "ses-2")),
        ("sub-9/a/b/c/sub-1_bold.nii.gz", ("sub-1", "")),  # too far above
        ("my scan-1_bold.nii.gz", ("sub-myscan1", "")),
        ("rest_sub-1_ses-2_bold.nii.gz", ("sub-1", "ses-2")),
        ("mean_dwi.nii", ("sub-mean", "")),
        ("x_boldref.nii.gz", ("sub-x", "")),
        ("bold.nii.gz", ("sub-bold", "")),
    ],
)
def test_participant_of_a_lone_scan(tmp_path, path, expected):
    assert lone_participant(tmp_path / path) == expected


def test_a_lone_scan_is_placed_by_the_folder_it_is_named_from(tmp_path, monkeypatch):
    (tmp_path / "sub-2" / "func").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "sub-2" / "func")
    assert lone_participant(Path("rest.nii.gz")) == ("sub-2", "")


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("sub-2/func/sub-1_bold.nii.gz", "is named for sub-1 but lies in the folder of sub-2"),
        ("sub-1/ses-3/func/sub-1_ses-2_bold.nii.gz", "is named for ses-2 but lies in the folder of ses-3"),
        ("sub-2/ses-1/func/sub-1_bold.nii.gz", "is named for sub-1"),
        ("sub-1_sub-2_bold.nii.gz", "is named for sub-2"),
        ("sub-1/func/rest_sub-2_bold.nii.gz", "is named for sub-2 but lies in the folder of sub-1"),
        ("_bold.nii.gz", "has no letter or digit"),
        ("sub-_bold.nii.gz", "has no letter or digit"),
        ("日本.nii.gz", "has no letter or digit"),
    ],
)
def test_a_lone_scan_whose_participant_is_not_known_is_named(tmp_path, path, problem):
    with pytest.raises(InputError, match=problem) as error:
        lone_participant(tmp_path / path)
    assert error.value.path == tmp_path / path and error.value.remedy


def test_twins_are_named():
    refuse_twins(Path("s"), "sessions", [("a", "sub-a"), ("a", "sub-a"), ("b", "sub-b")])
    with pytest.raises(InputError, match="s: has sessions A and a, which differ only in capital letters"):
        refuse_twins(Path("s"), "sessions", [("a", "sub-a"), ("A", "sub-A")])


def test_scans_without_a_session_in_their_names_have_two_names_when_synthesised(tmp_path):
    """The first case of the review: two visits whose files are called alike."""
    for visit in ("ses-1", "ses-2"):
        write_scan(tmp_path / f"sub-a/{visit}/func/sub-a_task-rest_bold.nii.gz")
    stems = [
        synthetic_stem(person.participant_id, session.session_id, DMRI, session.scans[FMRI].path)
        for person, session in bids(tmp_path)
    ]
    assert stems == ["sub-a_ses-1", "sub-a_ses-2"]


def test_a_copy_under_another_participant_is_not_used(tmp_path):
    """The second case of the review: a scan of sub-a in the folder of sub-b."""
    write_scan(tmp_path / "sub-a/func/sub-a_task-rest_bold.nii.gz")
    foreign = write_scan(tmp_path / "sub-b/func/sub-a_task-rest_bold.nii.gz", volumes=9)
    write_dwi(tmp_path / "sub-b/dwi/sub-b_dwi.nii.gz")
    cohort = bids(tmp_path)
    assert [(p.participant_id, sorted(s.scans)) for p, s in cohort] == [("sub-a", [FMRI]), ("sub-b", [DMRI])]
    assert [(r.path, r.reason) for r in cohort.rejected] == [
        (foreign, "is named for sub-a but lies in the folder of sub-b")
    ]
