"""A hospital's own folders, read by the patterns in pdsynth.yaml."""

from __future__ import annotations

import re
from pathlib import Path
from time import perf_counter, process_time

import pytest
from hypothesis import given
from hypothesis import settings as tries
from hypothesis import strategies as st

from fixture_trees import write_dwi, write_scan, write_table
from pdsynth.cohorts import detect, read
from pdsynth.cohorts.folder import WILDCARDS, _match
from pdsynth.types import Diagnosis, InputError, Modality

FMRI, DMRI = Modality.FMRI, Modality.DMRI
SETTINGS = """
fmri: "scans/{participant}/{session}/*rest*.nii.gz"
dmri: "scans/{participant}/{session}/*dti*.nii.gz"
table: patients.csv
columns: {participant: Patient No, session: visit, diagnosis: dx, age: years, sex: sex, mmse: mmse}
diagnoses: {1: NC, 2: MCI, 3: AD}
site: city hospital
"""


def settings(root: Path, text: str = SETTINGS) -> None:
    (root / "pdsynth.yaml").write_text(text)


@pytest.fixture
def hospital(tmp_path: Path) -> Path:
    """P-01 twice, the second time with dMRI alone; P-02 with two runs of fMRI."""
    settings(tmp_path)
    write_scan(tmp_path / "scans/P-01/v1/01_rest_run.nii.gz")
    write_dwi(tmp_path / "scans/P-01/v1/02_dti_32.nii.gz")
    write_dwi(tmp_path / "scans/P-01/v2/dti.nii.gz")
    write_scan(tmp_path / "scans/P-02/v1/a_rest.nii.gz", volumes=3)
    write_scan(tmp_path / "scans/P-02/v1/b_rest.nii.gz", volumes=8)
    write_scan(tmp_path / "scans/P-02/v1/t1.nii.gz")
    write_table(
        tmp_path / "patients.csv",
        """Patient+No visit dx years sex mmse
        P-01 v1 1 70.5 f 29
        P-01 v2 2 72 f .
        P-02 v1 dementia 81 m 20""",
    )
    return tmp_path


def test_scans_and_table_are_read_to_exactly_the_table(hospital):
    assert detect(hospital) == ("folder", "it contains a pdsynth.yaml with patterns of its scans")
    cohort = read(hospital)
    assert [
        (p.participant_id, p.sex, p.site, v.session_id, sorted(v.scans), v.diagnosis, v.age, dict(v.scores))
        for p, v in cohort
    ] == [
        ("sub-P01", "F", "city hospital", "ses-v1", [DMRI, FMRI], Diagnosis.NC, 70.5, {"mmse": 29}),
        ("sub-P01", "F", "city hospital", "ses-v2", [DMRI], Diagnosis.MCI, 72, {}),
        ("sub-P02", "M", "city hospital", "ses-v1", [FMRI], Diagnosis.AD, 81, {"mmse": 20}),
    ]
    assert cohort.subjects[1].sessions[0].scans[FMRI].path.name == "b_rest.nii.gz"  # the longer run
    assert cohort.subjects[0].sessions[0].scans[DMRI].bvec.name == "02_dti_32.bvec"


def test_without_sessions_or_a_table_the_scans_are_there_all_the_same(tmp_path):
    settings(tmp_path, 'fmri: "{participant}/{participant}_rest.nii"\n')
    write_scan(tmp_path / "A1/A1_rest.nii")
    write_scan(tmp_path / "A1/B2_rest.nii")  # another's name in this folder
    (person,) = read(tmp_path).subjects
    assert (person.participant_id, person.site, person.sessions[0].session_id) == ("sub-A1", None, "")
    assert person.sessions[0].diagnosis is None and person.sessions[0].missing == [DMRI]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("fmri: [", "cannot be read"),
        ("table: x.csv", "has no pattern"),
        ('fmri: "{participant}.nii"\nfmrii: x', "has an unknown entry 'fmrii'"),
        (SETTINGS + "cluster: {setup: [rm -r .]}", r"has settings of a cluster, which do not belong .* start pdsynth"),
        ('fmri: "scans/*.nii.gz"', r"has no \{participant\}"),
        ('fmri: "{participant}.nii"', "patterns that match no file"),
        (SETTINGS.replace("session: visit", "visit: visit"), "a column for 'visit'"),
        (SETTINGS.replace("2: MCI", "2: MCX"), "maps the code 2 to 'MCX'"),
        (SETTINGS.replace("participant: Patient No, ", ""), "no column of participants"),
        (SETTINGS.replace("years", "alter"), "has no column alter"),
        (SETTINGS.replace("{1: NC, 2: MCI, 3: AD}", "{1: NC}"), r"unknown codes .* in the column dx: '2' \(line 3\)"),
        (re.sub("columns: .*", "columns: [a, b]", SETTINGS), "yaml: has a list as columns"),
        (re.sub("columns: .*", "columns: 5", SETTINGS), "yaml: has 5 as columns"),
        (re.sub("columns: .*", "columns: {participant: [a]}", SETTINGS), "yaml: has a list as the column of part"),
        (
            re.sub("columns: .*", "columns: {participant: id, 5: a, x: b}", SETTINGS),
            "yaml: has a column for '5', which is unknown",
        ),
        (re.sub("diagnoses: .*", "diagnoses: [NC, MCI]", SETTINGS), "yaml: has a list as diagnoses"),
        (re.sub("diagnoses: .*", "diagnoses: {1: [NC]}", SETTINGS), "yaml: maps the code 1 to a list"),
        (re.sub("site: .*", "site: {a: b}", SETTINGS), "yaml: has a dict as site"),
        (re.sub("site: .*", "site: no", SETTINGS), "yaml: has False as site"),
        (re.sub("table: .*", "table: [patients.csv]", SETTINGS), "yaml: has a list as table"),
        ("fmri: 5", "yaml: has 5 as fmri"),
        ("fmri:", "yaml: has nothing as fmri"),
        ("fmri: ['{participant}/*.nii']", "yaml: has a list as fmri"),
        (f"fmri: {'[' * 5000}", "yaml: cannot be read"),
        (f"# {'a' * (1 << 20)}", "yaml: cannot be read .it is longer than 1 MiB"),
        ("fmri: !!int ''", "yaml: cannot be read"),
        (f'fmri: "{{participant}}{"*a" * 60}"', "yaml: has more than 50 stars"),
    ],
)
def test_settings_that_are_not_understood_are_named(hospital, text, problem):
    settings(hospital, text)
    with pytest.raises(InputError, match=problem):
        read(hospital)


def test_several_rows_of_a_person_give_only_the_cells_that_agree(hospital):
    settings(hospital, SETTINGS.replace("session: visit, ", ""))
    cohort = read(hospital)
    assert [(p.sex, v.diagnosis, v.age) for p, v in cohort][:2] == [("F", None, None)] * 2
    (row,) = cohort.rejected
    assert "contradict each other in dx, years, mmse; these cells were not read: P-01 (lines 2 and 3)" in row.reason


def test_two_participants_of_one_name_are_an_error(hospital):
    write_scan(hospital / "scans/P01/v1/rest.nii.gz")
    with pytest.raises(InputError, match="P-01 and P01, both sub-P01"):
        read(hospital)


def test_a_site_may_be_a_number_or_left_empty(hospital):
    settings(hospital, SETTINGS.replace("city hospital", "12"))
    assert {person.site for person in read(hospital).subjects} == {"12"}
    settings(hospital, SETTINGS.replace("city hospital", ""))
    assert {person.site for person in read(hospital).subjects} == {None}


@pytest.mark.parametrize("other", ["V1", "v-1", "ses-v1"])
def test_two_sessions_of_one_name_are_an_error(hospital, other):
    write_scan(hospital / f"scans/P-01/{other}/rest.nii.gz")
    both = " and ".join(sorted([f"P-01 {other}", "P-01 v1"]))
    same = "which differ only in capital letters" if other == "V1" else "both sub-P01_ses-v1"
    with pytest.raises(InputError, match=f"has sessions {both}, {same}"):
        read(hospital)


def test_participants_that_differ_in_capital_letters_or_have_none_are_an_error(hospital):
    write_scan(hospital / "scans/p-01/v1/rest.nii.gz")
    with pytest.raises(InputError, match="participants P-01 and p-01, which differ only in capital letters"):
        read(hospital)
    (hospital / "scans/p-01").rename(hospital / "scans/--")
    with pytest.raises(InputError, match="a name '--' without any letter or digit"):
        read(hospital)


def test_a_file_that_is_named_for_another_is_left_out(tmp_path):
    settings(tmp_path, 'fmri: "{participant}/{session}/*.nii.gz"\n')
    agree = ["P-01/v1/sub-P01_ses-v1_bold", "P_02/v1/sub-P_02_bold", "P-03/v-1/sub-P-03_ses-v1_bold", "P-04/v1/rest"]
    contradict = ["P-01/v1/sub-P02_bold", "P_02/v1/sub-P_bold", "P-03/v-1/sub-P03_ses-v2_bold", "P-05/v1/sub-P04_bold"]
    contradict += ["P-01/v1/rest_sub-P02", "P-01/v1/rest_ses-v2"]
    for name in agree:
        write_scan(tmp_path / f"{name}.nii.gz")
    for name in contradict:
        write_scan(tmp_path / f"{name}.nii.gz", volumes=9)  # longer: it would be taken
    cohort = read(tmp_path)
    assert [(p.participant_id, v.session_id, str(v.scans[FMRI].path.relative_to(tmp_path))) for p, v in cohort] == [
        ("sub-P01", "ses-v1", f"{agree[0]}.nii.gz"),
        ("sub-P03", "ses-v1", f"{agree[2]}.nii.gz"),
        ("sub-P04", "ses-v1", f"{agree[3]}.nii.gz"),
        ("sub-P02", "ses-v1", f"{agree[1]}.nii.gz"),
    ]
    assert {r.path: r.reason for r in cohort.rejected} == {
        tmp_path / "P-01/v1/sub-P02_bold.nii.gz": "is named for sub-P02 but lies in the folder of sub-P-01",
        tmp_path / "P_02/v1/sub-P_bold.nii.gz": "is named for sub-P but lies in the folder of sub-P_02",
        tmp_path / "P-03/v-1/sub-P03_ses-v2_bold.nii.gz": "is named for ses-v2 but lies in the folder of ses-v-1",
        tmp_path / "P-05/v1/sub-P04_bold.nii.gz": "is named for sub-P04 but lies in the folder of sub-P-05",
        tmp_path / "P-01/v1/rest_sub-P02.nii.gz": "is named for sub-P02 but lies in the folder of sub-P-01",
        tmp_path / "P-01/v1/rest_ses-v2.nii.gz": "is named for ses-v2 but lies in the folder of ses-v1",
    }


def test_a_person_is_not_split_where_a_pattern_takes_the_session_for_a_part_of_the_name(tmp_path):
    settings(tmp_path, 'fmri: "sub-{participant}_bold.nii.gz"\n')
    write_scan(tmp_path / "sub-P01_ses-1_bold.nii.gz")
    write_scan(tmp_path / "sub-P_02_bold.nii.gz")
    cohort = read(tmp_path)
    assert [person.participant_id for person in cohort.subjects] == ["sub-P02"]
    assert [r.path.name for r in cohort.rejected] == ["sub-P01_ses-1_bold.nii.gz"]


TOKENS = st.sampled_from(["a", "b", "/", "*", "**", "{participant}", "{session}"])


@tries(max_examples=500)
@given(st.lists(TOKENS, max_size=7).map("".join), st.text("ab/", max_size=9))
def test_a_pattern_finds_what_its_regular_expression_finds(pattern, text):
    seen, expression = set(), ""
    for part in re.split(r"(\{participant\}|\{session\}|\*)", pattern):
        name = part.strip("{}")
        wild = {"*": "[^/]*"}.get(part, re.escape(part))
        expression += wild if not part.startswith("{") else f"(?P={name})" if name in seen else f"(?P<{name}>[^/]+?)"
        seen |= {name} if part.startswith("{") else set()
    expected = re.fullmatch(expression, text)
    found = _match([token for token in WILDCARDS.split(pattern) if token], text)
    assert found == (None if expected is None else expected.groupdict())


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        (f"{{participant}}{'*a' * 49}c.nii", f"{'a' * 240}b.nii"),
        (f"{{participant}}{'*' * 40}{{session}}*a*a*{{participant}}{{session}}c.nii", f"{'a' * 240}b.nii"),
        (f"{{participant}}/{'*a' * 12}{{participant}}c.nii", f"{'a' * 200}/{'a' * 240}b.nii"),
    ],
)
def test_a_pattern_that_takes_too_long_is_refused(tmp_path, pattern, name):
    settings(tmp_path, f'fmri: "{pattern}"\n')
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
    began = process_time()
    with pytest.raises(InputError, match=r"yaml: has the pattern .*takes too long for a+b\.nii\. Remedy: write fewer"):
        read(tmp_path)
    assert process_time() - began < 5


@pytest.mark.parametrize("stars", ["*a" * 14, "*" * 14, "*{session}a" + "*a" * 12])
def test_many_stars_end_at_once(tmp_path, stars):
    settings(tmp_path, f'fmri: "{{participant}}/{stars}c.nii"\n')
    (tmp_path / "P1").mkdir()
    (tmp_path / "P1" / f"{'a' * 60}b.nii").touch()
    began = perf_counter()
    with pytest.raises(InputError, match="patterns that match no file"):
        read(tmp_path)
    assert perf_counter() - began < 2
