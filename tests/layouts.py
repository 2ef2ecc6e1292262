"""A BIDS study of a test copied into each layout that is read."""

from __future__ import annotations

import shutil
from datetime import date, timedelta
from pathlib import Path

from fixture_trees import write_table

FIRST_DAY = date(2011, 3, 1)
CODES = {"NC": ("1", "CN"), "MCI": ("2", "MCI"), "AD": ("3", "Dementia")}


def scans(study: Path):
    """Number of the participant, kind, diagnosis and files of each scan of the BIDS study."""
    rows = [line.split("\t") for line in (study / "participants.tsv").read_text().splitlines()[1:]]
    for participant, *_, diagnosis in rows:
        for image in sorted((study / participant).rglob("*.nii.gz")):
            stem = image.name.removesuffix(".nii.gz")
            yield int(participant[-1]), image.parent.name, diagnosis, sorted(image.parent.glob(f"{stem}.*"))


def copy(files: list[Path], folder: Path, stem: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        shutil.copy(file, folder / f"{stem}{file.name[file.name.index('.') :]}")


def as_adni(study: Path, out: Path) -> None:
    series = {"func": "Resting_State_fMRI", "dwi": "Axial_DTI"}
    rows = ["PTID VISCODE EXAMDATE EXAMDATE_bl DX AGE PTGENDER PTEDUCAT MMSE MOCA"]
    for i, kind, diagnosis, files in scans(study):
        day, ptid = FIRST_DAY + timedelta(days=i), f"027_S_000{i}"
        copy(files, out / ptid / series[kind] / f"{day}_10_00_00.0" / f"I{i}{kind}", f"ADNI_{ptid}_{series[kind]}")
        rows.append(f"{ptid} bl {day} {day} {CODES[diagnosis][1]} 7{i} Female 16 28 26")
    write_table(out / "ADNIMERGE.csv", "\n".join(dict.fromkeys(rows)))


def as_oasis3(study: Path, out: Path, bids: bool) -> None:
    folder = {"func": "func1", "dwi": "dwi1"}
    rows = ["OASISID days_to_visit age+at+visit NORMCOG DEMENTED PROBAD MCIAMEM"]
    for i, kind, diagnosis, files in scans(study):
        person, suffix = f"OAS3000{i}", "task-rest_run-01_bold" if kind == "func" else "dwi"
        place = f"sub-{person}/ses-d010{i}/{kind}" if bids else f"{person}_MR_d010{i}/{folder[kind]}"
        copy(files, out / place, f"sub-{person}_ses-d010{i}_{suffix}")
        flags = {"NC": "1 0 0 0", "MCI": "0 0 0 1", "AD": "0 1 1 0"}[diagnosis]
        rows.append(f"{person} 10{i} 7{i} {flags}")
    write_table(out / "OASIS3_UDSd1_diagnoses.csv", "\n".join(dict.fromkeys(rows)))


def as_derivatives(study: Path, out: Path) -> None:
    """In the participants' own spaces, as QSIPrep and an fMRIPrep without a template write them."""
    for i, kind, _, files in scans(study):
        tree, suffix = (
            ("fmriprep", "task-rest_desc-preproc_bold")
            if kind == "func"
            else ("qsiprep", "space-ACPC_desc-preproc_dwi")
        )
        copy(files, out / tree / f"sub-0{i}" / kind, f"sub-0{i}_{suffix}")
    shutil.copy(study / "participants.tsv", out)


def as_hospital(study: Path, out: Path) -> None:
    for i, kind, _, files in scans(study):
        copy(files, out / f"P{i}" / kind, f"{kind}_scan")
    (out / "pdsynth.yaml").write_text(
        """{fmri: "{participant}/func/*.nii.gz", dmri: "{participant}/dwi/*.nii.gz", table: all.tsv,
        columns: {participant: id, diagnosis: diagnosis, age: age}}"""
    )
    table = (study / "participants.tsv").read_text().replace("participant_id", "id").replace("sub-0", "P")
    (out / "all.tsv").write_text(table)


LAYOUTS = {
    "adni": as_adni,
    "oasis3 A": lambda study, out: as_oasis3(study, out, bids=False),
    "oasis3 B": lambda study, out: as_oasis3(study, out, bids=True),
    "derivatives": as_derivatives,
    "folder": as_hospital,
}
