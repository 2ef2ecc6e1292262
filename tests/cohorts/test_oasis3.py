"""OASIS-3 in both layouts: what is found, which diagnosis it gets, what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from fixture_trees import write_dwi, write_scan, write_table
from pdsynth.cohorts import detect, oasis3, read
from pdsynth.cohorts.oasis3 import D1_SCHEMA, uds_diagnosis
from pdsynth.cohorts.tables import Row, Table
from pdsynth.types import Diagnosis, InputError, Modality

FMRI, DMRI = Modality.FMRI, Modality.DMRI
D1 = (
    "OASISID OASIS_session_label days_to_visit age+at+visit NORMCOG DEMENTED MCIAMEM MCIAPLUS MCINON1 MCINON2 "
    "IMPNOMCI PROBAD POSSAD"
)


def layout_a(root: Path, participant: str, day: int, fmri: bool = True, dmri: bool = True) -> None:
    session = root / f"{participant}_MR_d{day:04d}"
    stem = f"sub-{participant}_ses-d{day:04d}"
    if fmri:
        write_scan(session / "func1" / f"{stem}_task-rest_run-01_bold.nii.gz")
    if dmri:
        write_dwi(session / "dwi1" / f"{stem}_dwi.nii.gz")


def layout_b(root: Path, participant: str, day: int, fmri: bool = True, dmri: bool = True) -> None:
    session = root / f"sub-{participant}" / f"ses-d{day:04d}"
    stem = f"sub-{participant}_ses-d{day:04d}"
    if fmri:
        write_scan(session / "func" / f"{stem}_task-rest_run-01_bold.nii.gz")
    if dmri:
        write_dwi(session / "dwi" / f"{stem}_run-01_dwi.nii.gz")


def tables(root: Path) -> None:
    write_table(
        root / "OASIS3_UDSd1_diagnoses.csv",
        f"""{D1}
        OAS30001 OAS30001_UDSd1_d0000 0 65.0 1 0 0 0 0 0 0 . .
        OAS30001 OAS30001_UDSd1_d0700 700 66.9 0 0 1 0 0 0 0 . .
        OAS30001 OAS30001_UDSd1_d0814 814 67.2 1 0 0 0 0 0 0 . .
        OAS30002 OAS30002_UDSd1_d-010 -10 71.0 0 1 8 8 8 8 8 1 0
        OAS30003 OAS30003_UDSd1_d0100 100 80.0 0 1 8 8 8 8 8 0 0
        OAS30004 OAS30004_UDSd1_d0100 100 80.0 0 0 0 0 0 0 1 . .
        OAS30005 OAS30005_UDSd1_d2000 2000 80.0 1 0 0 0 0 0 0 . .""",
    )
    write_table(
        root / "OASIS3_UDSb4_cdr.csv",
        """OASISID days_to_visit MMSE CDRTOT
        OAS30001 750 28 0.5
        OAS30002 -10 88 1""",
    )
    write_table(root / "OASIS3_UDSc1_cognitive_assessments.csv", "OASISID days_to_visit mocatots\nOAS30001 760 25")
    write_table(
        root / "OASIS3_demographics.csv",
        """OASISID AgeatEntry GENDER EDUC
        OAS30001 65.0 2 16
        OAS30002 71.5 1 99""",
    )


@pytest.mark.parametrize("layout", [layout_a, layout_b])
def test_scans_and_diagnoses_are_read_to_exactly_the_table(tmp_path, layout):
    tables(tmp_path)
    layout(tmp_path, "OAS30001", 757)  # as far from the visit of day 700 as from that of day 814: the earlier one
    layout(tmp_path, "OAS30002", 30, dmri=False)
    layout(tmp_path, "OAS30002", 100, fmri=False)
    layout(tmp_path, "OAS30003", 120)
    layout(tmp_path, "OAS30004", 120, fmri=False)
    layout(tmp_path, "OAS30005", 10)
    layout(tmp_path, "OAS30009", 5)
    assert detect(tmp_path)[0] == "oasis3"
    cohort = read(tmp_path)
    assert [
        (
            person.participant_id,
            visit.session_id,
            sorted(visit.scans),
            visit.diagnosis,
            visit.dx_gap_days,
            visit.scan_gap_days,
        )
        for person, visit in cohort
    ] == [
        ("sub-OAS30001", "ses-d0757", [DMRI, FMRI], Diagnosis.MCI, -57, 0),
        ("sub-OAS30002", "ses-d0030", [DMRI, FMRI], Diagnosis.AD, -40, 70),
        ("sub-OAS30005", "ses-d0010", [DMRI, FMRI], None, None, 0),  # its one visit is years away
        ("sub-OAS30009", "ses-d0005", [DMRI, FMRI], None, None, 0),  # in no table
    ]
    one, two, five, nine = cohort.subjects
    assert (one.sex, one.education, two.sex, two.education, nine.sex) == ("F", 16, "M", None, None)
    assert one.sessions[0].age == pytest.approx(65 + 757 / 365.25)
    assert five.sessions[0].age == pytest.approx(80 - 1990 / 365.25)  # from the form, as it is in no demographic table
    assert nine.sessions[0].age is None
    assert one.sessions[0].scores == {"mmse": 28, "moca": 25} and two.sessions[0].scores == {}
    reasons = [(r.path.name.split("_")[0], r.reason) for r in cohort.rejected if r.path.suffix != ".csv"]
    assert sorted(reasons) == [
        ("sub-OAS30003", "dementia of another cause than Alzheimer's disease"),
        ("sub-OAS30003", "dementia of another cause than Alzheimer's disease"),
        ("sub-OAS30004", "cognitive impairment that is not MCI"),
    ]
    (row,) = [r for r in cohort.rejected if r.path.suffix == ".csv"]
    assert row.reason == "has no row for the participants OAS30009"


def test_a_sidecar_of_an_excluded_scan_and_of_others_is_used(tmp_path):
    tables(tmp_path)
    sidecar = tmp_path / "task-rest_bold.json"
    sidecar.write_text('{"RepetitionTime": 2.2}')
    for participant in ("OAS30002", "OAS30003", "OAS30005"):  # the second has dementia of another cause
        layout_b(tmp_path, participant, 10 if participant == "OAS30005" else 100)
    cohort = read(tmp_path)
    unneeded = [file.path.name for file in cohort.not_needed if file.rule == "belongs to an excluded scan"]
    stem = "sub-OAS30003_ses-d0100_run-01_dwi"
    assert sorted(unneeded) == [f"{stem}.bval", f"{stem}.bvec"]
    assert cohort.used.count(sidecar) == 1
    assert not any("OAS30003" in path.name for path in cohort.used)


def test_folders_around_the_files_do_not_matter(tmp_path):
    tables(tmp_path / "tables")
    write_scan(tmp_path / "data/x/NIFTI/sub-OAS30001_ses-d0757_task-rest_run-01_bold.nii.gz", volumes=3)
    write_scan(tmp_path / "data/y/BIDS/sub-OAS30001_ses-d0757_task-rest_run-02_bold.nii.gz", volumes=9)
    scan = read(tmp_path).subjects[0].sessions[0].scans[FMRI]
    assert "run-02" in scan.path.name  # of two runs the longer


def form(folder: Path, cells: dict[str, str]) -> Row:
    """A row of form D1."""
    names, values = ["OASISID", "days_to_visit", *cells], ["OAS30001", "0", *cells.values()]
    (folder / "d1.csv").write_text(f"{','.join(names)}\n{','.join(values)}\n")
    (row,) = Table(folder / "d1.csv", D1_SCHEMA)
    return row


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        ({"NORMCOG": "1"}, Diagnosis.NC),
        ({"NORMCOG": "0", "MCINON2": "1"}, Diagnosis.MCI),
        ({"DEMENTED": "1", "PROBAD": "1"}, Diagnosis.AD),
        ({"DEMENTED": "1", "ALZDIS": "1", "ALZDISIF": "1"}, Diagnosis.AD),
        ({"DEMENTED": "1", "ALZDIS": "1", "ALZDISIF": "2"}, "another cause"),
        ({"DEMENTED": "1", "PROBAD": "8", "ALZDISIF": "8"}, "another cause"),
        ({"DEMENTED": "1", "POSSAD": "1"}, "possible"),
        ({"IMPNOMCI": "1"}, "not MCI"),
        ({"NORMCOG": "0", "CDRTOT": "0.5"}, None),
        ({"NORMCOG": "8", "MCIAMEM": "9", "DEMENTED": ""}, None),
    ],
)
def test_the_rules_of_form_d1(tmp_path, cells, expected):
    diagnosis, excluded = uds_diagnosis(form(tmp_path, cells))
    if isinstance(expected, str) and not isinstance(expected, Diagnosis):
        assert diagnosis is None and expected in excluded
    else:
        assert (diagnosis, excluded) == (expected, None)


@pytest.mark.parametrize("code", ["2", "7", "-4", "yes", "0.5"])
def test_a_code_that_the_form_does_not_have_is_named_and_the_form_gives_no_diagnosis(tmp_path, code):
    row = form(tmp_path, {"NORMCOG": code, "MCIAMEM": "1"})
    assert uds_diagnosis(row) == (None, None)
    (rejection,) = row.table.notes.rejections()
    assert rejection.path.name == "d1.csv"
    assert rejection.reason.startswith("has cells in the column NORMCOG, which holds the codes 0, 1, 8, 9")
    assert rejection.reason.endswith(f"{code!r} (line 2)")


def test_bids_names_are_preferred_only_where_a_participants_table_gives_diagnoses(tmp_path):
    layout_b(tmp_path, "OAS30001", 757)
    assert detect(tmp_path)[0] == "bids"  # without the archive's tables
    tables(tmp_path)
    assert detect(tmp_path)[0] == "oasis3"
    (tmp_path / "participants.tsv").write_text("participant_id\n")
    with pytest.raises(InputError, match="--layout bids or --layout oasis3"):
        detect(tmp_path)
    (tmp_path / "pdsynth.yaml").write_text("")
    assert detect(tmp_path) == ("folder", "it contains a pdsynth.yaml with patterns of its scans")


def test_tables_twice_or_absent_are_errors(tmp_path):
    layout_a(tmp_path, "OAS30001", 757)
    with pytest.raises(InputError, match=r"has no OASIS3_UDSd1_diagnoses\.csv"):
        oasis3(tmp_path)
    tables(tmp_path)
    tables(tmp_path / "older")
    with pytest.raises(InputError, match="keep only the newest"):
        oasis3(tmp_path)
    with pytest.raises(InputError, match=r"contains no sub-OAS3"):
        oasis3(tmp_path / "older")
