"""Which of several scans of a session is read, and which tables and sidecars belong to it."""

from __future__ import annotations

import bz2
import json
from pathlib import Path
from tempfile import TemporaryDirectory

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixture_trees import SHAPE, write_dwi, write_scan
from pdsynth.cohorts import LAYOUTS, bids, derivatives, detect, read
from pdsynth.cohorts.choice import CRITERIA, Select
from pdsynth.cohorts.cohort import Cohort
from pdsynth.cohorts.inheritance import sidecar
from pdsynth.cohorts.layout import Layout
from pdsynth.types import InputError, Modality
from verdicts import assert_refused, chosen, put, refusals, rules

FMRI, DMRI = Modality.FMRI, Modality.DMRI
DWI = "sub-01/dwi/sub-01_dwi.nii.gz"


@pytest.mark.parametrize(("first", "others"), [("_part-mag", ("real", "imag", "phase")), ("", ("phase",))])
def test_parts_of_a_complex_image(root, first, others):
    """Input: an fMRI as part-mag with part-real, part-imag or part-phase. Result: read, from the magnitude."""
    write_scan(root / f"sub-01/func/sub-01_task-rest{first}_bold.nii.gz", 3)
    for part in others:
        write_scan(root / f"sub-01/func/sub-01_task-rest_part-{part}_bold.nii.gz", 9)
    cohort = bids(root)
    assert chosen(cohort, FMRI) == f"sub-01_task-rest{first}_bold.nii.gz" and cohort.rejected == []
    assert set(rules(cohort).values()) == {"part of a complex image"}


def test_a_phase_image_without_its_magnitude(root):
    """Input: an fMRI of which only the phase is present. Result: refused, and the fMRI is not called missing."""
    write_scan(root / "sub-01/func/sub-01_task-rest_part-phase_bold.nii.gz")
    assert_refused(bids(root), FMRI, "phase part of a complex image")


def test_raw_scans_and_their_derivatives(root):
    """Input: raw BIDS with derivatives/fmriprep inside. Result: read, as --layout says; without it both are named."""
    name = "sub-01_task-rest_space-MNI152NLin2009cAsym_desc-preproc_bold.nii.gz"
    write_scan(root / "derivatives/fmriprep/sub-01/func" / name)
    with pytest.raises(InputError, match="--layout bids or --layout derivatives"):
        detect(root)
    assert len(bids(root).subjects) == 2
    assert chosen(derivatives(root), FMRI) == name


def test_shells_in_several_files(root):
    """Input: dMRI with b=1000 and b=2500 in two files. Result: read, from the shell nearest 1000 s/mm^2."""
    write_dwi(root / "sub-02/dwi/sub-02_acq-b1000_dwi.nii.gz", (0, 1000, 1000, 1000))
    write_dwi(root / "sub-02/dwi/sub-02_acq-b2500_dwi.nii.gz", (0, 2500, 2500, 2500, 2500))
    cohort = bids(root)
    assert chosen(cohort, DMRI, 1) == "sub-02_acq-b1000_dwi.nii.gz"
    assert rules(cohort)["sub-02_acq-b2500_dwi.nii.gz"].startswith("another scan is preferred by its shell")
    write_dwi(root / "sub-03/dwi/sub-03_dir-AP_dwi.nii.gz")
    write_dwi(root / "sub-03/dwi/sub-03_dir-PA_dwi.nii.gz")
    rule = rules(bids(root))["sub-03_dir-PA_dwi.nii.gz"]  # the names have no run
    assert rule == "another scan is preferred by its name: the first in alphabetical order, if all else is equal"


@settings(max_examples=25)
@given(
    st.lists(
        st.lists(st.sampled_from([0, 700, 1000, 1050, 2000, 3000]), min_size=2, max_size=6), min_size=1, max_size=3
    )
)
def test_any_shells_in_any_files(files):
    """Input: any shells in several dMRI files. Result: read, nearest 1000 s/mm^2 (steps of 100), then most volumes."""
    with TemporaryDirectory() as name:
        for number, bvals in enumerate(files):
            write_dwi(Path(name) / f"sub-01/dwi/sub-01_run-{number}_dwi.nii.gz", tuple(bvals))
        cohort = bids(name)
        keys = {}
        for number, bvals in enumerate(files):
            weighted = [b for b in bvals if b > 0]
            if weighted:
                distance = min(abs(b - 1000) // 100 for b in weighted)
                same = [b for b in weighted if abs(b - 1000) // 100 == distance]
                keys[number] = (distance, -len(same), -len(bvals), number)
        if not keys:
            assert cohort.subjects == [] and len(cohort.rejected) == len(files)
            return
        assert chosen(cohort, DMRI) == f"sub-01_run-{min(keys, key=keys.get)}_dwi.nii.gz"


def preprocessed(root: Path, *sessions: str) -> None:
    for session in sessions:
        name = f"sub-01_{session}_task-rest_desc-preproc_bold.nii.gz"
        write_scan(root / "fmriprep/sub-01" / session / "func" / name)
    write_dwi(root / "qsiprep/sub-01/dwi/sub-01_space-ACPC_desc-preproc_dwi.nii.gz")


def test_one_tool_dropped_the_only_session(tmp_path):
    """Input: fMRIPrep with the one session ses-1, QSIPrep without. Result: read, as one session."""
    preprocessed(tmp_path, "ses-1")
    ((_, session),) = list(derivatives(tmp_path))
    assert session.session_id == "ses-1" and set(session.scans) == {FMRI, DMRI}


def test_one_tool_dropped_one_of_several_sessions(tmp_path):
    """Input: fMRIPrep with two sessions, QSIPrep without. Result: refused, as the session of the dMRI is unknown."""
    preprocessed(tmp_path, "ses-1", "ses-2")
    cohort = derivatives(tmp_path)
    assert [session.session_id for _, session in cohort] == ["ses-1", "ses-2"]
    assert all("participant has several" in session.refused[DMRI] for _, session in cohort)


def test_every_form_of_a_scan_gives_the_same_voxels(tmp_path, content):
    """Input: a scan behind links, uncompressed, or compressed by bzip2. Result: read with equal voxels, or refused."""
    expected = np.asarray(nib.load(put(tmp_path / "a.nii.gz", content)).dataobj)
    real = put(tmp_path / "real/func/sub-02_task-rest_bold.nii.gz", content)
    (tmp_path / "bids").mkdir()
    (tmp_path / "bids/sub-02").symlink_to(real.parents[1])
    plain = tmp_path / "bids/sub-03/func/sub-03_task-rest_bold.nii"
    plain.parent.mkdir(parents=True)
    nib.save(nib.load(real), plain)
    put(tmp_path / "bids/sub-04/func/sub-04_task-rest_bold.nii.bz2", bz2.compress(plain.read_bytes()))
    cohort = bids(tmp_path / "bids")
    for number in range(2):
        path = list(cohort)[number][1].scans[FMRI].path
        np.testing.assert_array_equal(np.asarray(nib.load(path).dataobj), expected)
    assert list(refusals(cohort)) == ["sub-04_task-rest_bold.nii.bz2"] and expected.shape == (*SHAPE, 4)


def fmri(root: Path, *entities: str, volumes: int = 4) -> list[str]:
    names = [f"sub-01_{each}_bold.nii.gz" for each in entities]
    for name in names:
        write_scan(root / "sub-01/func" / name, volumes)
    return names


@pytest.mark.parametrize("other", ["task-nback", "task-motor_run-1", "task-forest"])
@pytest.mark.parametrize("rest", ["task-rest", "task-REST", "task-restingstate_run-3", "task-rs"])
def test_several_tasks(root, rest, other):
    """Input: an fMRI at rest and a longer one with a task. Result: read, from the scan at rest."""
    (name,) = fmri(root, rest)
    fmri(root, other, volumes=9)
    cohort = bids(root)
    assert chosen(cohort, FMRI) == name
    assert any(rule.startswith("another scan is preferred by its task") for rule in rules(cohort).values())


@pytest.mark.parametrize(
    ("times", "number"), [((0.012, 0.028, 0.044), 2), ((0.009, 0.020, 0.031, 0.042), 3), ((None, 0.028, 0.044), 2)]
)
def test_several_echoes(root, times, number):
    """Input: an fMRI with several echoes. Result: read, from the echo nearest 30 ms; of unknown times the second."""
    names = fmri(root, *(f"task-rest_echo-{n + 1}" for n in range(len(times))))
    for name, seconds in zip(names, times, strict=True):
        entries = {} if seconds is None else {"EchoTime": seconds}
        (root / "sub-01/func" / name.replace(".nii.gz", ".json")).write_text(json.dumps(entries))
    cohort = bids(root)
    assert chosen(cohort, FMRI) == names[number - 1] and len(cohort.not_needed) == 2 * len(times) - 2


def test_combined_echoes(root):
    """Input: echoes beside their combination by fMRIPrep. Result: read, from the combination."""
    fmri(root, "task-rest_echo-1_desc-preproc", "task-rest_echo-2_desc-preproc", volumes=9)
    (name,) = fmri(root, "task-rest_desc-preproc")
    assert chosen(bids(root), FMRI) == name


def test_runs_spaces_and_descriptions(root):
    """Input: runs, spaces and other versions of one scan. Result: read, in MNI152 space and with the most volumes."""
    fmri(root, "task-rest_run-1", "task-rest_run-10", "task-rest_run-02")
    assert chosen(bids(root), FMRI) == "sub-01_task-rest_run-1_bold.nii.gz"
    fmri(root, "task-rest_run-10", "task-rest_run-02", volumes=9)
    assert chosen(bids(root), FMRI) == "sub-01_task-rest_run-02_bold.nii.gz"
    fmri(root, "task-rest_space-MNI152NLin6Asym_desc-smoothed", "task-rest_space-MNI152NLin6Asym_desc-preproc")
    assert chosen(bids(root), FMRI) == "sub-01_task-rest_space-MNI152NLin6Asym_desc-preproc_bold.nii.gz"


def test_select_restricts_the_choice(root):
    """Input: several scans, and --select task=nback,run=2. Result: read, from the scan with these entities."""
    fmri(root, "task-rest", "task-nback_run-1", "task-nback_run-02", "task-nback")
    for text, name in (
        ("task=nback,run=2", "sub-01_task-nback_run-02_bold.nii.gz"),
        ("run=1", "sub-01_task-nback_run-1_bold.nii.gz"),
        ("task=nback", "sub-01_task-nback_bold.nii.gz"),
    ):
        cohort = bids(root, select=Select.parse(text))
        assert chosen(cohort, FMRI) == name and not any("sub-01" in refused for refused in refusals(cohort))
    assert chosen(bids(root, select=Select.parse("run=1")), FMRI, 1) == "sub-02_task-rest_bold.nii.gz"


def test_select_that_leaves_a_session_without_a_scan(root):
    """Input: --select task=motor, and a session with another task alone. Result: refused, and not called missing."""
    fmri(root, "task-rest")
    assert_refused(bids(root, select=Select.parse("task=motor")), FMRI, "is left out by --select task=motor")


@pytest.mark.parametrize("text", ["task", "sub=01", "task=", "task=rest;run=1x,"])
def test_a_selection_that_is_not_understood(text):
    """Input: --select with an unknown entity or without a value. Result: refused, with the list of the entities."""
    with pytest.raises(ValueError, match=r"is not a list such as task=rest,run=1. The entities are task, acq"):
        Select.parse(text)


def test_the_docs_list_the_criteria():
    """Input: several scans of one session. Result: read, by the criteria in the table of the how-to page."""
    page = (Path(__file__).parents[2] / "docs/how-to/own-bids-folder.md").read_text()
    for modality, criteria in CRITERIA.items():
        for criterion in criteria:
            assert f"| {criterion.name} | {criterion.prefers} |" in page, (modality, criterion)


LEVELS = ("", "sub-01", "sub-01/ses-1", "sub-01/ses-1/dwi")
NAMES = (
    "dwi",
    "run-1_dwi",
    "acq-x_dwi",
    "acq-x_run-1_dwi",
    "sub-01_dwi",
    "sub-01_acq-x_dwi",
    "run-2_dwi",
    "task-a_dwi",
)
SCAN = "sub-01_ses-1_acq-x_run-1_dwi"


@settings(max_examples=40)
@given(st.lists(st.tuples(st.sampled_from(range(4)), st.sampled_from(NAMES)), min_size=1, max_size=5, unique=True))
def test_gradient_tables_at_any_level(tables):
    """Input: .bval files at the root, participant, session and scan. Result: read, nearest folder, then most entities.

    Two files that apply equally are refused by name.
    """
    with TemporaryDirectory() as name:
        root = Path(name)
        path = write_dwi(root / LEVELS[3] / f"{SCAN}.nii.gz")
        path.with_name(f"{SCAN}.bval").unlink()
        fits = []
        for number, (level, stem) in enumerate(tables):
            (root / LEVELS[level] / f"{stem}.bval").write_text(f"0 {1000 + number} 1000 1000")
            if set(stem.split("_")) <= set(SCAN.split("_")):
                fits.append((level, stem.count("_"), f"{stem}.bval"))
        cohort = bids(root)
        best = [each for each in fits if each[:2] == max(fits)[:2]] if fits else []
        if len(best) == 1:
            ((_, session),) = list(cohort)
            assert session.scans[DMRI].bval == root / LEVELS[best[0][0]] / best[0][2]
        else:
            (refusal,) = cohort.rejected
            assert refusal.path == path and all(each[2] in refusal.reason for each in best[:2])
            assert "has no .bval file" in refusal.reason or len(best) > 1


def test_sidecars_are_merged(root):
    """Input: a .json in the root and one beside the scan. Result: read, merged; the more specific value is taken."""
    put(root / "task-rest_bold.json", b'{"RepetitionTime": 2.0, "EchoTime": 0.03, "FlipAngle": 77}')
    put(root / "sub-02/sub-02_task-rest_bold.json", b'{"EchoTime": 0.04}')
    put(root / "sub-02/func/sub-02_task-rest_bold.json", b'{"FlipAngle": 80, "SliceTiming": [0, 1]}')
    put(root / "sub-02/func/sub-02_task-rest_run-1_bold.json", b'{"FlipAngle": 1}')
    scan = bids(root).subjects[1].sessions[0].scans[FMRI]
    merged = {"RepetitionTime": 2.0, "EchoTime": 0.04, "FlipAngle": 80, "SliceTiming": [0, 1]}
    assert sidecar(scan) == merged
    put(root / "bold.json", b'{"RepetitionTime": 9, "Manufacturer": "A"}')
    assert sidecar(scan) == merged | {"Manufacturer": "A"}


def test_equal_sidecars_that_differ(root):
    """Input: two equally specific .json files that differ in an entry. Result: read, without that entry."""
    put(root / "sub-02_bold.json", b'{"EchoTime": 0.03, "FlipAngle": 77}')
    put(root / "task-rest_bold.json", b'{"EchoTime": 0.04, "FlipAngle": 77}')
    assert sidecar(bids(root).subjects[1].sessions[0].scans[FMRI]) == {"FlipAngle": 77}


def test_tables_above_the_dataset_are_not_read(root):
    """Input: a dwi.bval in a folder above the dataset. Result: ignored, and the scan without tables is refused."""
    table = root / DWI.replace(".nii.gz", ".bval")
    table.rename(root.parent / "dwi.bval")
    assert refusals(bids(root))["sub-01_dwi.nii.gz"] == "has no .bval file"


def test_select_for_a_layout_without_it(root, monkeypatch):
    """Input: --select with a layout that does not support it. Result: refused, with the name of the layout."""
    layout = Layout("flat", "scans", lambda root: True, lambda root: Cohort(Path(root), []))
    monkeypatch.setitem(LAYOUTS, "flat", layout)
    assert read(root, "flat").subjects == []
    with pytest.raises(ValueError, match="--select is not an option of the layout flat"):
        read(root, "flat", select=Select.parse("task=rest"))
