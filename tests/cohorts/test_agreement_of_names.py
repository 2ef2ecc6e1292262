"""Whatever the names in a dataset: no scan stands under a participant or session that its name contradicts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixture_trees import write_dwi, write_scan, write_table
from pdsynth.cohorts import adni, bids, derivatives, folder, oasis3
from pdsynth.cohorts.cohort import Cohort
from pdsynth.cohorts.names import synthetic_stem
from pdsynth.types import InputError, Modality

FMRI, DMRI = Modality.FMRI, Modality.DMRI
LABELS = ("a", "b", "b1", "c2")
VISITS = ("", "1", "2", "10")
EXTRAS = ("", "_task-rest", "_task-rest_run-1", "_acq-x_run-2", "_task-rest_space-MNI152NLin6Asym_res-2", "_dir-AP")

# One file: its folder's participant and session, then the participant and session in its name ("" where the name is
# silent), and its other entities.
FILES = st.tuples(
    st.sampled_from(LABELS),
    st.sampled_from(VISITS),
    st.sampled_from(("", *LABELS)),
    st.sampled_from(VISITS),
    st.sampled_from(EXTRAS),
)


@pytest.fixture(scope="module")
def one_scan(tmp_path_factory) -> Path:
    return write_scan(tmp_path_factory.mktemp("one") / "bold.nii.gz")


def file_name(participant: str, visit: str, extras: str) -> str:
    who = f"sub-{participant}" if participant else "scan"
    return f"{who}{f'_ses-{visit}' if visit else ''}{extras}_bold.nii.gz"


def agrees(file: tuple[str, str, str, str, str]) -> bool:
    participant, visit, named, named_visit, _ = file
    if not named and not visit:  # scan_ses-1 in a folder without sessions
        return True
    return named in ("", participant) and named_visit in ("", visit)


@contextmanager
def dataset(one_scan: Path, files: list, folder_of) -> Iterator[tuple[Path, dict[Path, tuple]]]:
    """Links to one scan under the drawn names, by path."""
    with TemporaryDirectory() as name:
        root = Path(name)
        placed = {root / folder_of(file[0], file[1]) / file_name(*file[2:]): file for file in files}
        for path in placed:
            path.parent.mkdir(parents=True, exist_ok=True)
            os.link(one_scan, path)
        yield root, placed


def check(cohort: Cohort, placed: dict[Path, tuple]) -> None:
    contradicting = {path for path, file in placed.items() if not agrees(file)}
    assert {rejection.path for rejection in cohort.rejected} == contradicting
    assert all(rejection.reason and rejection.remedy for rejection in cohort.rejected)
    for person, session in cohort:
        for scan in session.scans.values():
            participant, visit, *_ = placed[scan.path]
            assert agrees(placed[scan.path])
            assert (person.participant_id, session.session_id) == (
                f"sub-{participant}",
                f"ses-{visit}" if visit else "",
            )
    left = {(file[0], file[1]) for path, file in placed.items() if path not in contradicting}
    assert len(list(cohort)) == len(left)  # nobody with a scan of their own is lost
    stems = [
        synthetic_stem(person.participant_id, session.session_id, scan.modality.other, scan.path)
        for person, session in cohort
        for scan in session.scans.values()
    ]
    assert len({stem.casefold() for stem in stems}) == len(stems)


def without_mixing(files: list) -> list:
    """The files, of a participant with sessions only those in one: BIDS has all of a person so, or none."""
    with_sessions = {participant for participant, visit, *_ in files if visit}
    return [file for file in files if file[1] or file[0] not in with_sessions]


@settings(max_examples=150)
@given(st.lists(FILES, min_size=1, max_size=8).map(without_mixing))
def test_of_bids(one_scan, files):
    def place(participant: str, visit: str) -> Path:
        return Path(f"sub-{participant}", f"ses-{visit}" if visit else "", "func")

    with dataset(one_scan, files, place) as (root, placed):
        check(bids(root), placed)


@settings(max_examples=100)
@given(
    st.lists(FILES.filter(lambda file: file[1]), min_size=1, max_size=8),
    st.sampled_from(["{}", "sub-{}", "-{}-"]),
    st.sampled_from(["{}", "ses-{}", "_{}"]),
)
def test_of_a_hospitals_folders(one_scan, files, person, visit):
    with dataset(one_scan, files, lambda p, v: Path(person.format(p), visit.format(v))) as (root, placed):
        (root / "pdsynth.yaml").write_text('fmri: "{participant}/{session}/*_bold.nii.gz"\n')
        check(folder(root), placed)


@settings(max_examples=40)
@given(st.lists(FILES.filter(lambda file: not file[1]), min_size=1, max_size=6))
def test_of_a_hospitals_folders_without_sessions(one_scan, files):
    with dataset(one_scan, files, lambda p, _: Path(p)) as (root, placed):
        (root / "pdsynth.yaml").write_text('fmri: "{participant}/*_bold.nii.gz"\n')
        check(folder(root), placed)


def test_participants_and_sessions_of_bids_that_are_one_on_some_disks_are_an_error(tmp_path):
    write_scan(tmp_path / "sub-a/ses-1/func/sub-a_ses-1_bold.nii.gz")
    write_scan(tmp_path / "sub-A/ses-2/func/sub-A_ses-2_bold.nii.gz")
    with pytest.raises(InputError, match="participants sub-A and sub-a, which differ only in capital letters"):
        bids(tmp_path)
    (tmp_path / "sub-A").rename(tmp_path / "sub-a_ses-1")
    write_scan(tmp_path / "sub-a_ses-1/func/rest_bold.nii.gz")
    (tmp_path / "sub-a_ses-1/ses-2").rename(tmp_path / "sub-a_ses-1/other")
    with pytest.raises(InputError, match="sessions sub-a/ses-1 and sub-a_ses-1/, both sub-a_ses-1"):
        bids(tmp_path)


def test_one_participant_in_two_trees_is_an_error(tmp_path):
    def preprocessed(site: str, person: str) -> Path:
        return write_scan(tmp_path / f"{site}/fmriprep/{person}/func/{person}_task-rest_desc-preproc_bold.nii.gz")

    preprocessed("paris", "sub-01")
    preprocessed("rome", "sub-02")
    (tmp_path / "fmriprep").symlink_to(tmp_path / "paris" / "fmriprep")  # a link is no second tree
    assert [p.participant_id for p in derivatives(tmp_path).subjects] == ["sub-01", "sub-02"]
    foreign = preprocessed("rome", "sub-01")
    with pytest.raises(InputError, match=r"bold scans of sub-01 in .*fmriprep and in .*rome/fmriprep"):
        derivatives(tmp_path)
    foreign.rename(foreign.parents[2] / "sub-02" / "func" / foreign.name)
    ((path, reason),) = [(r.path, r.reason) for r in derivatives(tmp_path).rejected]
    assert path.parts[-3:-1] == ("sub-02", "func") and reason.startswith("is named for sub-01")


OASIS = "sub-OAS30001_ses-d0129_task-rest_run-01_bold.nii.gz"


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    write_table(tmp_path / "OASIS3_UDSd1_diagnoses.csv", "OASISID days_to_visit NORMCOG\nOAS30001 100 1")
    return tmp_path


@pytest.mark.parametrize(
    ("place", "agrees"),
    [
        ("OAS30001_MR_d0129/func1", True),
        ("OAS30001_MR_d129/func1", True),
        ("sub-OAS30001/ses-d0129/func", True),
        ("anything/func1", True),
        ("OAS30001_MR_d0130/func1", False),
        ("OAS30002_MR_d0129/func1", False),
        ("sub-OAS30002/func", False),
        ("sub-OAS30001/ses-d0130/func", False),
        ("sub-OAS30001/sess-d0130/func", False),
    ],
)
def test_of_oasis3(archive, place, agrees):
    path = write_scan(archive / place / OASIS)
    cohort = oasis3(archive)
    found = [(p.participant_id, s.session_id, s.scans[FMRI].path) for p, s in cohort]
    assert found == ([("sub-OAS30001", "ses-d0129", path)] if agrees else [])
    assert [r.path for r in cohort.rejected] == ([] if agrees else [path])
    if not agrees:
        (refusal,) = cohort.rejected
        assert refusal.reason.startswith("is named for OAS30001 d0129 but lies in the folder ") and refusal.remedy


def test_of_oasis3_the_rest_goes_on_and_two_spellings_of_a_day_are_an_error(archive):
    write_scan(archive / "OAS30001_MR_d0129/func1" / OASIS)
    twice = write_scan(archive / "OAS30001_MR_d0129/func2" / OASIS.replace("_task", "_ses-d0300_task"), volumes=9)
    cohort = oasis3(archive)
    assert [s.scans[FMRI].path.name for _, s in cohort] == [OASIS]
    assert [(r.path, r.reason) for r in cohort.rejected] == [
        (twice, "is named for ses-d0300 but lies in the folder of ses-d0129")
    ]
    write_dwi(archive / "OAS30001_MR_d0129/dwi1/sub-OAS30001_ses-d129_dwi.nii.gz")
    with pytest.raises(
        InputError, match="sessions d0129 of OAS30001 and d129 of OAS30001, both sub-OAS30001_ses-d0129"
    ):
        oasis3(archive)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("ADNI_002_S_1000_Axial_DTI_I100", "is named for 002_S_1000 but lies in the folder of 027_S_0074"),
        ("adni_002_s_1000_dti", "is named for 002_s_1000 but lies in the folder of 027_S_0074"),
        ("sub-ADNI002S1000_dwi", "is named for sub-ADNI002S1000 but lies in the folder of sub-ADNI027S0074"),
        ("sub-ADNI027S0074_ses-20110101_dwi", "is named for ses-20110101 but lies in the folder of ses-20110410"),
        ("ADNI_027_S_0074_MR_Axial_DTI_Br_20110411093412345_1_S1_I100", None),
        ("sub-ADNI027S0074_ses-20110410_dwi", None),
        ("series7", None),
    ],
)
def test_of_adni(tmp_path, name, reason):
    write_table(tmp_path / "ADNIMERGE.csv", "PTID EXAMDATE DX\n027_S_0074 2011-04-10 CN")
    kept = write_dwi(tmp_path / "027_S_0074/Axial_DTI/2011-04-10_10_20_30.0/I1/a.nii.gz")
    path = write_dwi(
        tmp_path / f"027_S_0074/Axial_DTI/2011-04-10_11_20_30.0/I2/{name}.nii.gz", (0, 1000, 1000, 1000, 1000)
    )
    cohort = adni(tmp_path)
    assert [(p.participant_id, s.session_id, s.scans[DMRI].path) for p, s in cohort] == [
        ("sub-ADNI027S0074", "ses-20110410", path if reason is None else kept)
    ]
    assert [(r.path, r.reason) for r in cohort.rejected] == ([] if reason is None else [(path, reason)])
