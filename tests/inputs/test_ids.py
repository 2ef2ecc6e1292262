"""Rows of tables held against folders: which are joined, and that all others are listed, in every layout."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fixture_trees import write_dwi, write_scan, write_table
from pdsynth.cohorts import read
from pdsynth.cohorts.join import bare, matches
from pdsynth.types import Diagnosis

NC, MCI, AD = Diagnosis


def tree(root: Path, *names: str) -> Path:
    for name in names:
        stem = name.replace("/", "_")
        write_scan(root / name / "func" / f"{stem}_task-rest_bold.nii", 2)
    return root


def table(root: Path, text: str, name: str = "participants.tsv") -> Path:
    write_table(root / name, text, "," if name.endswith(".csv") else "\t")
    return root


def found(root: Path) -> list[tuple]:
    return [(p.participant_id, v.session_id, v.diagnosis, v.age) for p, v in read(root)]


def reasons(root: Path) -> list[str]:
    return [r.reason for r in read(root).rejected]


@pytest.mark.parametrize(
    ("one", "two"),
    [
        *(
            ("1", "sub-2"),
            ("sub-1", "02"),
            ("1.0", "2.0"),
            ("sub-001", "002"),
            ("SUB-01", "Sub-2"),
            ("sub01", "sub_02"),
        ),
        *(("subject-01", "subj02"), ("sub-sub-01", "sub-2"), ("01\u200b", "\ufeff02"), ("\uff11", "2")),
    ],
)
def test_ids_that_lost_zeros_or_their_prefix(tmp_path, one, two) -> None:
    """Input: participants.tsv has 1, 1.0, 01, SUB-01, sub_01 or subject-01 for the folder sub-01. Result: read, if one
    row and one folder fit each other."""
    root = table(tree(tmp_path, "sub-01", "sub-02"), f"participant_id diagnosis age\n{one} NC 70\n{two} AD 71")
    assert found(root) == [("sub-01", "", NC, 70), ("sub-02", "", AD, 71)] and reasons(root) == []


@pytest.mark.parametrize(("row", "folder"), [("p-01", "sub-P01"), ("P1", "sub-p001"), ("027_S_0074", "sub-027S0074")])
def test_ids_in_another_case_or_with_separators(tmp_path, row, folder) -> None:
    """Input: an id in another case, or with the hyphens and underscores that BIDS removes from it. Result: read, if one
    row and one folder fit each other."""
    root = table(tree(tmp_path, folder), f"participant_id diagnosis age\n{row} AD 71")
    assert found(root) == [(folder, "", AD, 71)] and reasons(root) == []


def test_ids_that_fit_several_folders_or_none(tmp_path) -> None:
    """Input: a row that fits two folders, or none, or a folder without a row. Result: refused, each row and folder by
    its name; its participant has no diagnosis."""
    root = tree(tmp_path, "sub-01", "sub-001", "sub-3", "sub-12")
    table(root, "participant_id diagnosis age\n1 AD 71\nsub-3 NC 70\n1-2 AD 72\nsub-05 AD 73")
    assert found(root) == [
        ("sub-001", "", None, None),
        ("sub-01", "", None, None),
        ("sub-12", "", None, None),
        ("sub-3", "", NC, 70),
    ]
    assert reasons(root) == [
        "has rows of participants whose ids are like several on disk or in the table, and were not joined: "
        "1 (line 2) is like sub-001, sub-01",
        "has rows of participants that are not on disk: '1-2' (line 4), 'sub-05' (line 5)",
        "has no row for the participants sub-001, sub-01, sub-12",
    ]


def test_two_rows_that_fit_one_folder(tmp_path) -> None:
    """Input: rows 1 and 001 for the folder sub-01. Result: refused, both; the folder's participant gets the values of
    neither. A row 01 is joined, because it is equal to the folder's name."""
    root = table(tree(tmp_path, "sub-01"), "participant_id diagnosis age\n1 AD 71\n001 NC 70")
    assert found(root) == [("sub-01", "", None, None)]
    assert "'1'" not in reasons(root)[0] and "1 (line 2) is like sub-01" in reasons(root)[0]
    table(root, "participant_id diagnosis age\n1 AD 71\n001 NC 70\n01 MCI 72")
    assert found(root) == [("sub-01", "", MCI, 72)]
    assert "1 (line 2) is like sub-01" in reasons(root)[0]


def test_duplicate_rows(tmp_path) -> None:
    """Input: rows of one id. Result: read as one row if they are equal. Otherwise the cells that contradict each other
    are refused, and the participant has no such value."""
    root = tree(tmp_path, "sub-01", "sub-02")
    text = "participant_id sex diagnosis age\nsub-01 F NC 70\n01 f NC 70.0\nsub-02 M NC 71\nsub-02 M AD 71"
    assert found(table(root, text)) == [("sub-01", "", NC, 70), ("sub-02", "", None, 71)]
    assert reasons(root) == [
        "has rows of one id that contradict each other in diagnosis; these cells were not read: sub-02 (lines 4 and 5)"
    ]
    table(root, "participant_id diagnosis age\nsub-01 NC 70\nsub-02 AD .\nsub-02 . 71")
    assert found(root)[1] == ("sub-02", "", None, None)  # the rows may be of two people


def test_rows_without_an_id(tmp_path) -> None:
    """Input: a row that has values but no id. Result: refused, with its line."""
    root = table(tree(tmp_path, "sub-01"), "participant_id diagnosis age\nsub-01 NC 70\nn/a AD 71")
    assert found(root) == [("sub-01", "", NC, 70)]
    assert reasons(root) == ["has rows without participant_id: (line 3)"]


@pytest.mark.parametrize("ids", [("1", "2"), ("ses-1", "SES-02"), ("01", "02"), ("session 1", "2.0")])
def test_sessions_that_lost_zeros(tmp_path, ids) -> None:
    """Input: sessions.tsv has 1 or session 1 for the folder ses-01. Result: read, if one row and one folder fit each
    other."""
    root = table(tree(tmp_path, "sub-01/ses-01", "sub-01/ses-02"), "participant_id diagnosis\nsub-01 NC")
    one, two = (each.replace(" ", "+") for each in ids)
    table(root, f"session_id diagnosis age\n{one} NC 70\n{two} AD 74", "sub-01/sub-01_sessions.tsv")
    assert found(root) == [("sub-01", "ses-01", NC, 70), ("sub-01", "ses-02", AD, 74)] and reasons(root) == []


@pytest.mark.parametrize(
    "sessions",
    [
        "session_id\tdiagnosis\nbaseline\tNC\nfollow-up\tAD\n",
        "session_id\tdiagnosis\nses-01\tNC\nses-2nd\tAD\n",
        "session_id\tdiagnosis\nses-01\tNC\nses-02  AD\n",
        "session_id\tdiagnosis\nses-01\tNC\nses-02\tNC\nses-02\tAD\n",
        "session\tdiagnosis\nses-01\tNC\nses-02\tAD\n",
        "",
    ],
)
def test_a_session_whose_row_is_not_known_has_no_diagnosis(tmp_path, sessions) -> None:
    """Input: sessions.tsv cannot be read, or has a row that fits no folder, while participants.tsv has a diagnosis of
    the participant. Result: refused; the session without a row has no diagnosis, because the row may be its own."""
    root = table(tree(tmp_path, "sub-01/ses-01", "sub-01/ses-02"), "participant_id diagnosis\nsub-01 NC")
    (root / "sub-01/sub-01_sessions.tsv").write_text(sessions)
    assert found(root)[1] == ("sub-01", "ses-02", None, None)
    assert {r.path.name for r in read(root).rejected} == {"sub-01_sessions.tsv"}


def test_several_sessions_in_participants_tsv(tmp_path) -> None:
    """Input: participants.tsv has one row per participant and session, and a column session or session_id. Result:
    read, each row for its session."""
    root = tree(tmp_path, "sub-01/ses-1", "sub-01/ses-2", "sub-02/ses-1")
    table(root, "participant_id session sex diagnosis age\n1 1 F NC 70\n1 ses-02 F AD 74\nsub-02 01 M MCI 60")
    assert found(root) == [("sub-01", "ses-1", NC, 70), ("sub-01", "ses-2", AD, 74), ("sub-02", "ses-1", MCI, 60)]
    assert [p.sex for p in read(root).subjects] == ["F", "M"] and reasons(root) == []


def test_a_sessions_table_of_a_participant_without_session_folders(tmp_path) -> None:
    """Input: sessions.tsv with one row, and no session folders. Result: read for the one visit on disk."""
    root = table(tree(tmp_path, "sub-01"), "participant_id diagnosis age\nsub-01 NC 70")
    table(root, "session_id diagnosis\nses-1 AD", "sub-01/sub-01_sessions.tsv")
    assert found(root) == [("sub-01", "", AD, 70)]


HOSPITAL = """fmri: "{participant}/{session}/rest.nii"
table: patients.csv
columns: {participant: id, session: visit, diagnosis: dx, age: years}
"""


def hospital(root: Path, rows: str, settings: str = HOSPITAL) -> Path:
    for place in ("007/v1", "007/v2", "008/v1"):
        write_scan(root / place / "rest.nii", 2)
    (root / "pdsynth.yaml").write_text(settings)
    return table(root, rows, "patients.csv")


def test_ids_of_a_hospital(tmp_path) -> None:
    """Input: a hospital's CSV file has 7 for the folder 007, or V01 for the visit v1. Result: read, if one row and one
    folder fit each other; a visit without a row has no diagnosis, and both are listed."""
    root = hospital(tmp_path, "id visit dx years\n7 V01 NC 70\n7 v02 AD 72\n8 v1 MCI 60")
    expected = [("sub-007", "ses-v1", NC, 70), ("sub-007", "ses-v2", AD, 72), ("sub-008", "ses-v1", MCI, 60)]
    assert found(root) == expected and reasons(root) == []
    hospital(tmp_path, "id visit dx years\n7 1 NC 70\n7 v02 AD 72\n8 v1 MCI 60\n9 v1 AD 61")
    assert found(root) == [("sub-007", "ses-v1", None, None), *expected[1:]]
    assert reasons(root) == [
        "has rows of participants that are not on disk: '9' (line 5)",
        "has rows of sessions of 007 that are not on disk: '1' (line 2)",
        "has no row for the sessions of 007 v1",
    ]


def test_a_row_of_a_hospital_for_all_visits(tmp_path) -> None:
    """Input: a hospital's table with one row per participant, for several visits on disk. Result: read, the row for
    each visit."""
    root = hospital(tmp_path, "id dx years\n7 NC 70\n8 AD 60", HOSPITAL.replace("session: visit, ", ""))
    assert [diagnosis for _, _, diagnosis, _ in found(root)] == [NC, NC, AD]


def test_participants_of_an_archive(tmp_path) -> None:
    """Input: a table of ADNI with participants whose scans are not on disk, or without one that is. Result: read; the
    rows and folders without a partner are listed."""
    for person in ("027_S_0074", "027_S_0075"):
        write_dwi(tmp_path / person / "Axial_DTI" / "2011-04-10_10_20_30.0" / "I1" / "x.nii.gz")
    table(tmp_path, "PTID EXAMDATE DX\n027_s_0074 2011-04-01 MCI\n002_S_0001 2011-04-01 CN", "ADNIMERGE.csv")
    assert [diagnosis for _, _, diagnosis, _ in found(tmp_path)] == [MCI, None]
    assert reasons(tmp_path) == [
        "has rows of participants that are not on disk: '002_S_0001' (line 3)",
        "has no row for the participants 027_S_0075",
    ]


def test_a_table_of_adni_with_rid_alone(tmp_path) -> None:
    """Input: an old DXSUM table of ADNI that has RID in place of PTID. Result: read, because the RID is the number at
    the end of the PTID."""
    for person in ("027_S_0074", "002_S_1000"):
        write_dwi(tmp_path / person / "Axial_DTI" / "2011-04-10_10_20_30.0" / "I1" / "x.nii.gz")
    rows = "RID VISCODE EXAMDATE DXCHANGE\n74 m06 2011-04-01 5\n1000 m06 2011-04-01 1"
    table(tmp_path, rows, "DXSUM_PDXCONV_ADNIALL.csv")
    assert [diagnosis for _, _, diagnosis, _ in found(tmp_path)] == [NC, AD] and reasons(tmp_path) == []


LABELS = st.from_regex(r"(P|c)?[0-9]{1,3}", fullmatch=True)


@given(st.sets(LABELS, min_size=1, max_size=6), st.data())
@settings(max_examples=80)
@example({"1", "01"}, None)
def test_no_row_is_ever_joined_to_another_folder_of_its_number(labels, data) -> None:
    """Input: any set of folders, and rows whose ids lost zeros, prefix or case. Result: read, if only one folder fits;
    otherwise refused."""
    names = [f"sub-{label}" for label in labels]
    ids = []
    for label in sorted(labels):
        lost = label.lstrip("0") or "0"
        ids.append(lost if data is None else data.draw(st.sampled_from([lost, label, f"sub-{label}", label.upper()])))
    result = matches(ids, names, "sub")

    def key(text: str) -> str:
        text = bare(text, "sub").lower()
        letters = text.rstrip("0123456789")
        return letters + str(int(text[len(letters) :]))

    for text, name in result.names.items():
        assert key(text) == key(name)
        alike = [other for other in names if key(other) == key(name)]
        assert alike == [name] or bare(text, "sub") == bare(name, "sub") or text.lower() == bare(name, "sub").lower()
    for text in set(ids) - result.names.keys():
        assert text in result.several  # each id stems from a folder
