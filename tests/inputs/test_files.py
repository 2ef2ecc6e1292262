"""Which files of a participant are read: every file is used, not needed by a rule, or refused by name."""

from __future__ import annotations

import json
import os
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fixture_trees import write_dwi, write_scan, write_table
from pdsynth.cli import main
from pdsynth.cohorts import adni, bids, folder, oasis3
from pdsynth.cohorts.cohort import Cohort
from pdsynth.files import write_text
from pdsynth.types import Modality
from verdicts import assert_refused, chosen, put, refusals, rules

FMRI, DMRI = Modality.FMRI, Modality.DMRI
BOLD = "sub-01/func/sub-01_task-rest_bold.nii.gz"
DWI = "sub-01/dwi/sub-01_dwi.nii.gz"


@pytest.mark.parametrize("name", ["._sub-01_task-rest_bold.nii.gz", ".DS_Store", "Thumbs.db"])
def test_files_of_the_system(root, name):
    """Input: a file of macOS or Windows such as ._sub-01_bold.nii.gz beside a scan. Result: ignored, and counted."""
    put(root / "sub-02/func" / name, b"\0\5\x16\7\0\2\0\0Mac OS X")
    cohort = bids(root)
    assert cohort.rejected == [] and name in rules(cohort)
    assert "macOS" in rules(cohort)[name] or "system" in rules(cohort)[name]


@pytest.mark.parametrize("name", [".git/annex", "__MACOSX", "@eaDir/sub-01"])
def test_folders_of_the_system(root, name):
    """Input: a folder of git, macOS or a file server in a participant's folder. Result: ignored, and counted."""
    put(root / "sub-02" / name / "sub-02_task-rest_bold.nii.gz", b"x")
    cohort = bids(root)
    assert cohort.rejected == []
    assert rules(cohort) == {name.split("/")[0]: "folder of the system or of git"}


def as_hospital(root: Path, name: str) -> None:
    write_scan(root / name / "v1/rest.nii.gz")
    (root / "pdsynth.yaml").write_text('fmri: "{participant}/{session}/rest*.nii.gz"\n')


def as_oasis(root: Path, name: str) -> None:
    number = name[-1]
    rows = "OASISID days_to_visit NORMCOG DEMENTED\nOAS30001 90 1 0\nOAS30002 90 1 0"
    write_table(root / "OASIS3_UDSd1_diagnoses.csv", rows)
    write_scan(root / name / f"func1/sub-OAS3000{number}_ses-d0100_task-rest_bold.nii.gz")


def as_adni(root: Path, name: str) -> None:
    write_table(root / "ADNIMERGE.csv", "PTID EXAMDATE DX\n027_S_0071 2011-01-10 CN\n027_S_0072 2011-01-10 CN")
    write_scan(root / f"027_S_007{name[-1]}/Resting_State_fMRI/2011-04-10_10_20_30.0/I1/a.nii.gz")


def as_bids(root: Path, name: str) -> None:
    write_scan(root / f"sub-{name}/func/sub-{name}_task-rest_bold.nii.gz")


@pytest.mark.parametrize(
    ("read", "make"), [(bids, as_bids), (folder, as_hospital), (oasis3, as_oasis), (adni, as_adni)]
)
def test_linked_participants(tmp_path, read, make):
    """Input: folders of participants that are links to another disk. Result: read, in every layout."""
    for name in ("P1", "P2"):
        make(tmp_path / "all", name)
    whole = read(tmp_path / "all")
    linked = tmp_path / "linked"
    linked.mkdir()
    for entry in (tmp_path / "all").iterdir():
        (linked / entry.name).symlink_to(entry, target_is_directory=entry.is_dir())
    cohort = read(linked)
    assert [s.participant_id for s in cohort.subjects] == [s.participant_id for s in whole.subjects]
    assert len(cohort.subjects) == 2 and len(cohort.used) == len(whole.used)


@pytest.mark.parametrize("target", ["..", "../..", ".", "../../sub-02"])
def test_a_cycle_of_links(root, target):
    """Input: a link to a folder above itself. Result: ignored, and every other file is read once."""
    (root / "sub-02/loop").symlink_to(target, target_is_directory=True)
    (root / "sub-01/other").symlink_to("../sub-02", target_is_directory=True)
    cohort = bids(root)
    assert chosen(cohort, FMRI, 1) == "sub-02_task-rest_bold.nii.gz"
    assert "loop" in rules(cohort) or "loop" in refusals(cohort)


FORMS = {
    "sub-01_task-rest_bold.NII.GZ": "capitals",
    "sub-01_task-rest_BOLD.nii.gz": "capitals",
    "sub-01_task-rest_Bold.nii": "capitals",
    "sub-01_task-rest_bold.img": "is .img",
    "sub-01_task-rest_bold.hdr": "is .hdr",
    "sub-01_task-rest_bold.mgz": "is .mgz",
    "sub-01_task-rest_bold.nii.bz2": "is .nii.bz2",
    "sub-01_task-rest_bold.nii.zst": "is .nii.zst",
    "sub-01_task-rest_bold.mif.gz": "is .mif.gz",
    "sub-01_task-rest_bold.nii.gz.part": "unfinished copy",
    ".sub-01_task-rest_bold.nii.gz.Xb3": "unfinished copy",
    "sub-01_task-rest_bold (1).nii.gz": "does not end in _bold.nii.gz",
    "sub-01_task-rest.nii.gz": "not named _bold",
    "rest.nii.gz": "not named _bold",
    "sub-01_task-rest_bold.dtseries.nii": "grayordinates",
    "sub-01_hemi-L_bold.func.gii": "surface",
}


@pytest.mark.parametrize("name", FORMS)
def test_other_names_and_formats(root, content, name):
    """Input: a scan with another extension, in capitals, as .img/.hdr, or half copied. Result: refused by name."""
    put(root / "sub-01/func" / name, content)
    cohort = bids(root)
    assert_refused(cohort, FMRI, FORMS[name])
    assert name in refusals(cohort)


def test_a_name_that_is_not_utf8(root, content, tmp_path):
    """Input: a file name in Latin-1. Result: read, and written into tables with escapes."""
    name = os.fsdecode(b"sub-01_task-caf\xe9_bold.nii.gz")
    put(root / "sub-01/func" / name, content)
    cohort = bids(root)
    assert chosen(cohort, FMRI) == name
    write_text(tmp_path / "table.tsv", name)
    assert (tmp_path / "table.tsv").read_text() == "sub-01_task-caf\\udce9_bold.nii.gz"


def test_dicom_files_are_one_refusal(root):
    """Input: thousands of DICOM files in a participant's folder func. Result: refused, in one row per folder."""
    for number in range(5):
        put(root / f"sub-01/func/dicom/{number}.dcm", b"DICM")
    cohort = bids(root)
    assert_refused(cohort, FMRI, "holds 5 DICOM files")
    assert list(refusals(cohort)) == ["dicom"]


PLACES = {
    "sub-01/sub-01_task-rest_bold.nii.gz": "lies in the participant's folder",
    "sub-01/func/old/sub-01_task-rest_bold.nii.gz": "a level too deep",
    "sub-01/fmri/sub-01_task-rest_bold.nii.gz": "not in a folder func",
    "sub-01/Func/sub-01_task-rest_bold.nii.gz": "not in a folder func",
    "sub-01/dwi/sub-01_task-rest_bold.nii.gz": "not in a folder func",
    "sub-01/fmap/sub-01_task-rest_bold.nii.gz": "not in a folder func",
}


@pytest.mark.parametrize("place", PLACES)
def test_a_scan_in_another_place(root, content, place):
    """Input: a scan in the participant's own folder, too deep, or in another folder. Result: refused by name."""
    put(root / place, content)
    assert_refused(bids(root), FMRI, PLACES[place])


def test_mixed_levels(root):
    """Input: sub-01/func beside sub-01/ses-2/dwi. Result: refused by name, and the fMRI is not called missing."""
    (root / "sub-01/ses-2").mkdir()
    (root / "sub-01/dwi").rename(root / "sub-01/ses-2/dwi")
    write_scan(root / BOLD)
    cohort = bids(root)
    assert [session.session_id for _, session in cohort] == ["ses-2", ""]
    assert_refused(cohort, FMRI, "lies outside the session folders")


@pytest.mark.parametrize("name", ["SUB-03", "sub03", "subject_3"])
def test_participants_with_other_names(root, name):
    """Input: a participant's folder SUB-03 or sub03. Result: refused by name, if it holds a scan."""
    write_scan(root / name / "func/sub-03_task-rest_bold.nii.gz")
    (root / "subjects").mkdir()
    cohort = bids(root)
    assert refusals(cohort) == {name: "holds scans, but is not named sub-*"}


def test_participants_that_are_absent(root, content):
    """Input: a link to a participant's folder that does not exist, or a scan in the root. Result: refused by name."""
    (root / "sub-03").symlink_to(root / "absent")
    put(root / "sub-04_task-rest_bold.nii.gz", content)
    (root / "sub-05").mkdir()
    cohort = bids(root)
    assert set(refusals(cohort)) == {"sub-03", "sub-04_task-rest_bold.nii.gz"}
    assert rules(cohort) == {"sub-05": "participant's folder without a file"}


STAND_INS = {
    b"": "is empty (0 bytes)",
    b"/annex/objects/MD5E-s1--a.nii.gz\n": "git-annex",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n": "Git LFS",
    b"<!DOCTYPE html><html>": "web page",
    b"<?xml version='1.0'?><Error>AccessDenied</Error>": "XML",
}


@pytest.mark.parametrize("start", STAND_INS)
def test_a_file_that_stands_for_a_scan(root, start):
    """Input: a scan of 0 bytes, a pointer of git-annex or Git LFS, or a web page. Result: refused, with the remedy."""
    put(root / BOLD, start)
    assert_refused(bids(root), FMRI, STAND_INS[start])


@pytest.mark.parametrize(
    ("target", "reason"),
    [("../../.git/annex/objects/a/b.nii.gz", "link of git-annex"), ("/absent/a.nii.gz", "does not exist")],
)
def test_content_that_is_not_on_this_disk(root, target, reason):
    """Input: a link whose content was not fetched or was moved. Result: refused, and not called missing."""
    (root / BOLD).parent.mkdir()
    (root / BOLD).symlink_to(target)
    assert_refused(bids(root), FMRI, reason)


def test_a_gradient_table_that_is_not_on_this_disk(root):
    """Input: a .bval that is a dangling link, and another one in the root. Result: refused, not replaced by it."""
    table = root / DWI.replace(".nii.gz", ".bval")
    (root / "dwi.bval").write_text(table.read_text())
    table.unlink()
    table.symlink_to("/absent/a.bval")
    assert_refused_alone(bids(root), DMRI, "is a link to a file that does not exist")


def assert_refused_alone(cohort: Cohort, modality: Modality, reason: str) -> None:
    """The participant sub-01 has no usable scan, and a refusal names the reason."""
    assert [subject.participant_id for subject in cohort.subjects] == ["sub-02"]
    assert any(reason in refusal.reason for refusal in cohort.rejected), cohort.rejected
    assert modality is DMRI


@pytest.mark.parametrize("denied", ["sub-01/dwi", "sub-01", "sub-01/dwi/sub-01_dwi.bval", DWI])
def test_no_permission(root, monkeypatch, denied):
    """Input: a file or folder that this user may not read. Result: refused by name, and the cohort is read."""
    place, scandir, opened = str(root / denied), os.scandir, open

    def refuse(path: object) -> None:
        if str(path) == place:
            raise PermissionError(13, "Permission denied", place)

    monkeypatch.setattr(os, "scandir", lambda path: refuse(path) or scandir(path))
    monkeypatch.setattr("builtins.open", lambda path, *more, **options: refuse(path) or opened(path, *more, **options))
    monkeypatch.setattr(Path, "read_text", lambda self, *more, **options: refuse(self) or opened(self).read())
    cohort = bids(root)
    assert_refused_alone(cohort, DMRI, "Permission denied")
    assert [refusal.path for refusal in cohort.rejected] == [root / denied]


def test_an_empty_table_of_sessions(tmp_path):
    """Input: a sessions.tsv of 0 bytes for one participant. Result: refused by name, and the cohort is read."""
    for name in ("01", "02"):
        write_scan(tmp_path / f"sub-{name}/ses-1/func/sub-{name}_ses-1_task-rest_bold.nii.gz")
    put(tmp_path / "sub-02/sub-02_sessions.tsv", b"")
    cohort = bids(tmp_path)
    assert len(list(cohort)) == 2 and list(refusals(cohort)) == ["sub-02_sessions.tsv"]


SIDECARS = {
    b"\xff\xfe{\0": "UnicodeDecodeError",
    b"[" * 100_000: "RecursionError",
    b"[1]": "no JSON object",
    b'{"EchoTime": ': "JSONDecodeError",
}


@pytest.mark.parametrize("text", SIDECARS, ids=list(SIDECARS.values()))
def test_a_sidecar_that_cannot_be_read(root, text):
    """Input: a .json that is no JSON object, not UTF-8, or nested too deeply. Result: refused, and its scan is read."""
    put(root / DWI.replace(".nii.gz", ".json"), text)
    cohort = bids(root)
    assert chosen(cohort, DMRI) == Path(DWI).name
    assert SIDECARS[text] in refusals(cohort)["sub-01_dwi.json"]


FOLDERS = ("func", "dwi", "anat", "", "ses-1/func", "ses-1/dwi", "func/x", "Dwi", ".git", "figures", "ses-1")
STEMS = (
    "sub-01_task-rest_bold",
    "sub-01_dwi",
    "sub-01_ses-1_dwi",
    "sub-02_dwi",
    "sub-01_part-phase_bold",
    "rest",
    "._a",
)
STEMS += (
    "sub-01_T1w",
    "sub-01_desc-brain_mask",
    "sub-01_sbref",
    "sub-01_run-2_bold",
    "sub-01_sessions",
    "notes",
    "a b",
)
ENDINGS = (
    ".nii.gz",
    ".nii.gz",
    ".nii.gz",
    ".nii",
    ".json",
    ".bval",
    ".bvec",
    ".tsv",
    ".NII.GZ",
    ".img",
    ".dcm",
    "",
    ".part",
)
TREES = st.lists(
    st.tuples(*map(st.sampled_from, (FOLDERS, STEMS, ENDINGS, ("scan", "empty", "link", "text")))), max_size=12
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(files=TREES)
def test_every_file_has_one_verdict(files, content):
    """Input: any files below a participant's folder. Result: read; each file is used, not needed or refused."""
    with TemporaryDirectory() as name:
        root = Path(name)
        write_dwi(root / "sub-01/dwi/sub-01_acq-a_dwi.nii.gz")
        for place, stem, ending, kind in files:
            path = root / "sub-01" / place / f"{stem}{ending}"
            if not os.path.lexists(path):
                put(path, {"scan": content, "empty": b""}.get(kind, b"0 1000"))
            if kind == "link":
                path.unlink()
                path.symlink_to("/absent")
        cohort = bids(root)
        verdicts = [*cohort.used, *(f.path for f in cohort.not_needed), *(r.path for r in cohort.rejected)]
        paths = {path for path in (root / "sub-01").rglob("*") if path.is_symlink() or path.is_file()}
        whole = {verdict for verdict in verdicts if verdict.is_dir()}
        inside = {path for path in paths if whole & set(path.parents)} - set(verdicts)
        assert set(verdicts) - whole == paths - inside
        used, unneeded = set(cohort.used), {f.path for f in cohort.not_needed}
        assert not used & unneeded and not used & {r.path for r in cohort.rejected}
        for _, session in cohort:
            assert {scan.path for scan in session.scans.values()} <= used
            assert not set(session.missing) & set(session.refused)


def run(*words: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    return int(stop.value.code or 0)


def test_inspect_prints_the_verdicts(root, capsys):
    """Input: files that are not needed. Result: ignored, with their number per rule; inspect --files lists each."""
    write_scan(root / "sub-02/func/sub-02_task-rest_run-2_bold.nii.gz", 2)
    write_scan(root / "sub-02/anat/sub-02_T1w.nii.gz", 0)
    assert run("inspect", root, "--json", "--files") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["not_needed"] == {
        "another scan is preferred by its length: the most volumes": 1,
        "image of another kind": 1,
    }
    assert found["used"] == 4 and found["missing"] == {"fmri": 1, "dmri": 1} and found["refused_scans"] == {}
    listed = {Path(row["path"]).name: row["verdict"] for row in found["files"]}
    assert listed["sub-02_T1w.nii.gz"] == "not needed" and listed["sub-01_dwi.bval"] == "used" and len(listed) == 6
    assert run("inspect", root, "--files") == 0
    assert "image of another kind" in capsys.readouterr().out
