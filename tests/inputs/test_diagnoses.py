"""Codes of diagnoses, and the verbs that need them; synthesis reads no table and needs none."""

from __future__ import annotations

import ast
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import typer

import pdsynth
from fixture_trees import copy_source_model, write_dwi, write_scan, write_table
from pdsynth.cli import app, main
from pdsynth.cohorts import read
from pdsynth.imaging.spatial import Grid, mni_grid, resample
from pdsynth.imaging.template import epi_template
from pdsynth.types import Diagnosis, InputError

NC, MCI, AD = Diagnosis
SOURCE = Path(pdsynth.__file__).parent
DOCUMENTED = (ast.Module, ast.FunctionDef, ast.ClassDef)
TABLE_OPTIONS = {"--diagnosis-column", "--diagnosis-map"}


@pytest.fixture(autouse=True)
def _loud_again() -> Iterator[None]:
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A model that copies its source."""
    return copy_source_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def head(tmp_path_factory) -> Path:
    """A scan with the contrast of the template."""
    grid = Grid((30, 34, 28), np.array([[-6, 0, 0, 88], [0, 6, 0, -118], [0, 0, 6, -70], [0, 0, 0, 1]], float))
    data = resample(epi_template(mni_grid(4)), grid)
    steps = np.stack([data * (100 + k) for k in range(4)], -1).astype(np.float32)
    path = tmp_path_factory.mktemp("head") / "bold.nii.gz"
    nib.save(nib.Nifti1Image(steps, grid.affine), path)
    return path


def run(capsys, *words: object) -> tuple[int, str]:
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    captured = capsys.readouterr()
    return int(stop.value.code or 0), captured.out + captured.err


def put(root: Path, head: Path, name: str = "sub-01", ending: str = "_task-rest_bold") -> Path:
    folder = root / name / "func"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}{ending}.nii.gz").write_bytes(head.read_bytes())
    return root


def codes(root: Path, text: str) -> Path:
    for name in ("sub-01", "sub-02"):
        write_scan(root / name / "func" / f"{name}_task-rest_bold.nii", 2)
    write_table(root / "participants.tsv", f"participant_id group diagnosis\n{text}", "\t")
    return root


@pytest.mark.parametrize(
    "table",
    [
        b"participant_id\tdiagnosis\nsub-01\t1\nsub-02\tSCHZ\n",
        b"participant_id\tdiagnosis\nsub-01\tNC\nsub-01\tAD\n",
        b"participant_id,diagnosis\nsub-01,NC\n",
        b"PK\x03\x04",
    ],
)
def test_synthesis_needs_no_diagnosis(tmp_path, capsys, model, head, table) -> None:
    """Input: participants.tsv with codes of other diseases, with errors, or not a table at all, and `pdsynth
    synthesize`. Result: ignored, because no table is read for synthesis."""
    root = put(tmp_path / "study", head)
    (root / "participants.tsv").write_bytes(table)
    status, text = run(capsys, "synthesize", model, root, tmp_path / "out", "--device", "cpu", "--jobs", 1, "--strict")
    assert status == 0, text
    assert (tmp_path / "out/sub-01/dwi/sub-01_desc-synthetic_dwiref.nii.gz").exists()


def test_raw_scans_beside_derivatives(tmp_path, capsys, model, head) -> None:
    """Input: a raw BIDS dataset with derivatives/fmriprep in it. Result: refused, with the choices of --layout, which
    every verb that reads a dataset has; with one of them it is read."""
    root = put(tmp_path / "study", head)
    put(root / "derivatives" / "fmriprep", head, ending="_space-MNI152NLin2009cAsym_desc-preproc_bold")
    out = tmp_path / "out"
    for words in (("synthesize", model, root, out), ("inspect", root), ("prepare", root, out)):
        status, text = run(capsys, *words)
        assert (status, "choose --layout bids or --layout derivatives" in text) == (2, True)
    status, text = run(capsys, "synthesize", model, root, out, "--layout", "bids", "--device", "cpu", "--jobs", 1)
    assert status == 0, text
    assert [path.name for path in out.rglob("*.nii.gz")] == ["sub-01_desc-synthetic_dwiref.nii.gz"]


def named_options(*modules: str) -> set[str]:
    """The options that texts of modules name, without docstrings."""
    found: set[str] = set()
    for path in (path for module in modules for path in SOURCE.glob(module)):
        module = ast.parse(path.read_text())
        nodes = list(ast.walk(module))
        docs = {ast.get_docstring(node, clean=False) for node in nodes if isinstance(node, DOCUMENTED)}
        texts = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
        found |= {option for text in texts - docs for option in re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)}
    return found


def test_every_option_that_a_message_names_exists_in_the_verb() -> None:
    verbs = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    has = {verb: {o for p in verbs[verb].params for o in p.opts} for verb in ("inspect", "prepare", "synthesize")}
    named = named_options("cohorts/*.py") - {"--to", "--space"}  # only `synthesize` reads a single scan, or has a space
    assert {"--layout", *TABLE_OPTIONS} <= named
    assert named <= has["inspect"] and named <= has["prepare"]
    assert named - TABLE_OPTIONS <= has["synthesize"]  # it reads no table
    assert named_options("missing.py", "synthesis.py") <= has["synthesize"]


def test_unknown_codes(tmp_path, capsys) -> None:
    """Input: participants.tsv with codes such as 1 or SCHZ, and `pdsynth inspect` or `prepare`. Result: refused, with
    all unknown codes and the option --diagnosis-map; with it they are read, and n/a stands for none of the groups."""
    root = codes(tmp_path, "sub-01 x 1\nsub-02 x SCHZ")
    for words in (("inspect", root), ("prepare", root, tmp_path / "out")):
        status, text = run(capsys, *words)
        assert status == 2
        assert "gives 2 participants or sessions a diagnosis that is unknown: '1', 'SCHZ'" in text
        assert "--diagnosis-map 1=...,SCHZ=..." in text
    status, text = run(capsys, "inspect", root, "--json", "--diagnosis-map", "1=nc, schz=n/a")
    assert status == 0 and json.loads(text)["diagnoses"] == {"NC": 1, "unknown": 1}


def test_codes_that_a_spreadsheet_changed(tmp_path, capsys) -> None:
    """Input: the codes 1.0 and 2.0 where --diagnosis-map has 1 and 2. Result: read, as whole numbers."""
    root = codes(tmp_path, "sub-01 x 1.0\nsub-02 x 2.0")
    status, text = run(capsys, "inspect", root, "--json", "--diagnosis-map", "1=NC,2=AD")
    assert status == 0 and json.loads(text)["diagnoses"] == {"NC": 1, "AD": 1}


def test_another_column_of_the_diagnosis(tmp_path, capsys) -> None:
    """Input: --diagnosis-column names a column that the tables lack, or one without a code. Result: refused, with the
    file and the column; a column of codes that are all mapped to n/a is read."""
    root = codes(tmp_path, "sub-01 . NC\nsub-02 . AD")
    status, text = run(capsys, "inspect", root, "--diagnosis-column", "group")
    assert status == 2 and "participants.tsv: gives no diagnosis in a column 'group'" in text
    status, text = run(
        capsys, "inspect", root, "--diagnosis-column", "Diagnosis", "--diagnosis-map", "NC=n/a,AD=n/a", "--json"
    )
    assert status == 0 and json.loads(text)["diagnoses"] == {"unknown": 2}


def test_codes_of_a_hospital(tmp_path) -> None:
    """Input: a hospital's table with a code that pdsynth.yaml does not map. Result: refused, with the line and the
    entry of pdsynth.yaml; n/a stands for none of the groups."""
    settings = 'fmri: "{participant}.nii"\ntable: all.csv\ncolumns: {participant: id, diagnosis: dx}\n'
    for name in ("P1", "P2"):
        write_scan(tmp_path / f"{name}.nii", 2)
    write_table(tmp_path / "all.csv", "id dx\nP1 1\nP2 9.0")
    (tmp_path / "pdsynth.yaml").write_text(f"{settings}diagnoses: {{1: NC}}")
    with pytest.raises(InputError, match=r"in the column dx: '9\.0' \(line 3\).*in `diagnoses` of pdsynth\.yaml"):
        read(tmp_path)
    (tmp_path / "pdsynth.yaml").write_text(f"{settings}diagnoses: {{1: NC, 9: n/a}}")
    assert [session.diagnosis for _, session in read(tmp_path)] == [NC, None]


STATES = {"CN": NC, "NL": NC, "SMC": NC, "MCI": MCI, "EMCI": MCI, "LMCI": MCI, "Dementia": AD, "AD": AD}


def adni(root: Path, rows: list[str], name: str = "ADNIMERGE.csv", header: str = "PTID,EXAMDATE,DX") -> list:
    """The diagnosis of each participant of a table with one row each, and the problems."""
    for number in range(len(rows)):
        image = root / f"027_S_{number:04d}" / "Axial_DTI" / "2011-04-10_10_20_30.0" / "I1" / "x.nii.gz"
        if not image.exists():
            write_dwi(image)
    lines = [f"027_S_{number:04d},2011-04-01,{cell}" for number, cell in enumerate(rows)]
    (root / name).write_text("\n".join([header, *lines]) + "\n")
    cohort = read(root)
    return [[session.diagnosis for _, session in cohort], [r.reason for r in cohort.rejected]]


@pytest.mark.parametrize("name", ["ADNIMERGE.csv", "TADPOLE_D1_D2.csv", "ADNIMERGE_02Mar2024 (1).csv"])
def test_states_and_changes_of_adni(tmp_path, name) -> None:
    """Input: ADNIMERGE of before 2018 or TADPOLE_D1_D2, whose column DX has NL and changes such as MCI to Dementia.
    Result: read: NL is cognitively normal, and of a change the state after it counts."""
    changes = {f"{a} to {b}": STATES[b] for a in ("NL", "MCI", "Dementia") for b in ("NL", "MCI", "Dementia")}
    cells = {**STATES, **changes, "nl to mci": MCI, "NA": None, "": None}
    assert adni(tmp_path, list(cells), name) == [list(cells.values()), []]


def test_unknown_states_of_adni(tmp_path) -> None:
    """Input: ADNIMERGE with a state that ADNI does not have. Result: refused, the cell alone."""
    assert adni(tmp_path, ["CN", "MCI to XY", "AZ"]) == [
        [NC, None, None],
        [
            "has cells in the column DX that are not CN, NL, SMC, MCI or Dementia, and were not read: "
            "'MCI to XY' (line 3), 'AZ' (line 4)"
        ],
    ]


def test_codes_of_the_summary_table(tmp_path) -> None:
    """Input: DXSUM of ADNI with codes, or with the words that newer downloads have in their place. Result: read, both
    alike."""
    header = "PTID,EXAMDATE,DIAGNOSIS,DXCHANGE"
    found = adni(tmp_path, ["1,", "MCI,", "3.0,", ",9", ",5", "7,1"], "DXSUM_1Jan2020.csv", header)
    assert found == [
        [NC, MCI, AD, NC, AD, None],
        ["has cells in the column DIAGNOSIS that are not 1, 2, 3, and were not read: '7' (line 7)"],
    ]


def test_visits_of_one_day_that_contradict_each_other(tmp_path) -> None:
    """Input: two visits of one participant on one day with different diagnoses. Result: refused, the day is named; the
    day gives no diagnosis."""
    adni(tmp_path, ["CN"])
    with (tmp_path / "ADNIMERGE.csv").open("a") as file:
        file.write("027_S_0000,2011-04-01,Dementia\n")
    cohort = read(tmp_path)
    assert [session.diagnosis for _, session in cohort] == [None]
    assert [r.reason for r in cohort.rejected] == [
        "has visits of one day that contradict each other; the cells that differ were not read: 027_S_0000 2011-04-01"
    ]


def test_a_sex_that_is_not_known(tmp_path) -> None:
    """Input: a sex that is not F or M, such as 1. Result: refused, the cell alone; `other` is read as neither."""
    write_scan(tmp_path / "sub-01/func/sub-01_task-rest_bold.nii", 2)
    write_scan(tmp_path / "sub-02/func/sub-02_task-rest_bold.nii", 2)
    write_table(tmp_path / "participants.tsv", "participant_id sex\nsub-01 1\nsub-02 O", "\t")
    cohort = read(tmp_path)
    assert [person.sex for person in cohort.subjects] == [None, None]
    (row,) = cohort.rejected
    assert row.reason.endswith("'1' (line 2)")
