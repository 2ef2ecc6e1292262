"""Writes the files of one simulated session into a BIDS dataset, marked SIMULATED, with its truth in derivatives."""

from __future__ import annotations

import gzip
import json
import os
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd

from pdsynth.cohorts.bidsignore import write_bidsignore
from pdsynth.cohorts.simulated.session import Session, means, simulate_session
from pdsynth.cohorts.simulated.sites import PAPER_SLIPS, DmriProtocol, FmriProtocol, site_name
from pdsynth.types import NA, Diagnosis, Modality

ORACLE_DRAWS, ORACLE_DRAWS_QUICK = 16, 8
NOTE = "SIMULATED by pdsynth: no person was scanned"


@dataclass(frozen=True)
class Task:
    """The arguments of `write_session`: one session to simulate and to write below root.

    seed is that of the cohort, index the number of the person in it, and site one of "oasis", "adni" and "hospital".
    grid_mm sets the resolution of the anatomy, whose voxels are 0.75 * grid_mm. quick simulates few volumes and
    directions. randomise draws the acquisition at random instead of the site's. hidden is the modality that the
    participant lacks, None for none; its mean is written to the truth alone. truth: whether the oracle volumes (the
    expected mean scans, given the anatomy that both scans share) are written. severity (0..1) replaces the random
    severity of the diagnosis; None keeps it. head is the file of the label map from which the person is simulated, None
    for the template. session_id (ses-...) is the session's name, or empty if a person has one session.
    """

    root: Path
    seed: int
    index: int
    diagnosis: Diagnosis
    site: str
    grid_mm: float
    quick: bool
    hidden: Modality | None = None
    randomise: bool = False
    truth: bool = False
    session_id: str = ""
    severity: float | None = None
    head: Path | None = None

    @property
    def participant_id(self) -> str:
        return f"sub-sim{self.index:04d}"


def write_session(task: Task) -> dict[str, object]:
    """Simulate one session, write its scans as BIDS and its truth below derivatives/truth.

    The truth is the true transform of each scan to MNI, the mean of a scan that the participant lacks (task.hidden),
    and the oracle volumes if task.truth is set. Returns the session's row of truth.tsv, by column: demographics, then
    quantities that only a simulation can know.
    """
    draws = (ORACLE_DRAWS_QUICK if task.quick else ORACLE_DRAWS) if task.truth else 0
    session = simulate_session(
        task.seed,
        task.index,
        task.diagnosis,
        task.site,
        grid_mm=task.grid_mm,
        quick=task.quick,
        randomise=task.randomise,
        oracle_draws=draws,
        severity=task.severity,
        head=task.head,
    )
    person, visit = task.participant_id, task.session_id
    name = f"{person}_{visit}" if visit else person
    folder, derived = task.root / person / visit, task.root / "derivatives" / "truth" / person
    derived.mkdir(parents=True, exist_ok=True)
    mean_fmri, mean_dmri = means(session)
    fmri, dmri = session.acquisition.fmri, session.acquisition.dmri
    if task.hidden is Modality.FMRI:
        _write_image(mean_fmri, fmri.native.affine, derived / f"{name}_desc-hidden_boldref.nii.gz")
    else:
        _write_bold(session, folder / "func" / f"{name}_task-rest_bold")
    if task.hidden is Modality.DMRI:
        _write_image(mean_dmri, dmri.native.affine, derived / f"{name}_desc-hidden_dwiref.nii.gz")
    else:
        _write_dwi(session, folder / "dwi" / f"{name}_dwi")
    for oracle, grid, suffix in (
        (session.fmri_oracle, fmri.native, "boldref"),
        (session.dmri_oracle, dmri.native, "dwiref"),
    ):
        if oracle is not None:
            _write_image(oracle, grid.affine, derived / f"{name}_desc-oracle_{suffix}.nii.gz", slope=1 / 16384)
    to_mni = session.anatomy.to_template
    world_to_mni = {name: (to_mni @ e.to_template).tolist() for name, e in (("fmri", fmri), ("dmri", dmri))}
    _write_json({"unit": "mm", "maps": "scan world to MNI", **world_to_mni}, derived / f"{name}_xfm.json")
    return _row(task, session)


def describe(root: Path, title: str, generator: str, description: str) -> None:
    """Write dataset_description.json and .bidsignore of the dataset at `root`, and of its truth in derivatives/truth.

    title is the name of the dataset, generator the command that made it, and description its settings.
    """
    generated = [{"Name": generator, "Description": description}]
    base = {"BIDSVersion": "1.9.0", "Simulated": True, "GeneratedBy": generated, "PaperSlips": PAPER_SLIPS}
    truth = root / "derivatives" / "truth"
    truth.mkdir(parents=True, exist_ok=True)
    _write_json({"Name": title, "DatasetType": "raw", **base}, root / "dataset_description.json")
    _write_json({"Name": f"{title}: truth", "DatasetType": "derivative", **base}, truth / "dataset_description.json")
    write_bidsignore(root, "manifest.json")
    write_bidsignore(truth, "truth.tsv", "*_xfm.json", "*_boldref.*", "*_dwiref.*")


def _row(task: Task, session: Session) -> dict[str, object]:
    """Columns of truth.tsv: demographics, then quantities that only a simulation can know."""
    person, anatomy = session.person, session.anatomy
    voxel_ml = float(np.prod(anatomy.grid.spacing_mm)) / 1000
    hippocampus = anatomy.hippocampus > 0.5
    deep = (anatomy.outside < -20) & (anatomy.csf > 0.5)
    return {
        "participant_id": task.participant_id,
        "age": round(person.age, 1),
        "sex": person.sex,
        "site": "randomised" if task.randomise else site_name(task.site),
        "diagnosis": str(person.diagnosis),
        "anatomy": task.head.name if task.head else "template",
        "severity": round(person.severity, 4),
        "ventricle_growth_mm": round(person.ventricle_mm, 3),
        "hippocampus_shrinkage_mm": round(person.hippocampus_mm, 3),
        "ventricle_ml": round(float(deep.sum()) * voxel_ml, 2),
        "hippocampus_grey_ml": round(float(anatomy.gm[hippocampus].sum()) * voxel_ml, 3),
        "hippocampus_csf_fraction": round(float(anatomy.csf[hippocampus].mean()), 4) if hippocampus.any() else NA,
        "lesion_ml": round(float(anatomy.lesion.sum()) * voxel_ml, 3),
        "hidden": str(task.hidden) if task.hidden else NA,
        "dmri_bval": session.acquisition.dmri_protocol.bval,
    }


def _write_run(
    data: np.ndarray, affine: np.ndarray, protocol: FmriProtocol | DmriProtocol, stem: Path, fields: dict[str, object]
) -> None:
    """Write a 4D scan and its sidecar; `fields` are the sidecar's entries that belong to this modality alone."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    _write_image(data, affine, stem.with_name(stem.name + ".nii.gz"), protocol.t_r)
    times = {"RepetitionTime": protocol.t_r / 1000, "EchoTime": protocol.t_e / 1000}
    _write_json(times | fields | {"Simulated": True, "Note": NOTE}, stem.with_name(stem.name + ".json"))


def _write_bold(session: Session, stem: Path) -> None:
    protocol = session.acquisition.fmri_protocol
    fields = {"FlipAngle": protocol.flip_deg, "TaskName": "rest"}
    _write_run(session.bold, session.acquisition.fmri.native.affine, protocol, stem, fields)


def _write_dwi(session: Session, stem: Path) -> None:
    acquisition = session.acquisition
    _write_run(session.dwi, acquisition.dmri.native.affine, acquisition.dmri_protocol, stem, {})
    bvals = " ".join(f"{b:g}" for b in session.bvals) + "\n"
    bvecs = "\n".join(" ".join(f"{v:.6f}" for v in axis) for axis in session.bvecs.T) + "\n"
    _write_text(bvals, stem.with_name(stem.name + ".bval"))
    _write_text(bvecs, stem.with_name(stem.name + ".bvec"))


def _write_image(data: np.ndarray, affine: np.ndarray, path: Path, t_r: float = 0.0, slope: float = 1.0) -> None:
    """Write a NIfTI image as 16-bit integers, which times slope are the data, gzipped without a time stamp.

    int16 data are stored as they are. Others are divided by slope and rounded, and negative ones become 0. t_r is in
    ms.
    """
    stored = data if data.dtype == np.int16 else np.clip(np.rint(data / slope), 0, 32767).astype(np.int16)
    image = nib.Nifti1Image(stored, affine)
    image.header.set_slope_inter(slope, 0)
    image.header.set_xyzt_units("mm", "sec")
    if data.ndim == 4:
        image.header["pixdim"][4] = t_r / 1000
    image.header["descrip"] = NOTE.encode()
    for code in ("sform", "qform"):
        getattr(image, f"set_{code}")(affine, 1)
    part = path.with_name(f".{path.name}.part")
    with part.open("wb") as raw, gzip.GzipFile("", "wb", compresslevel=1, fileobj=raw, mtime=0) as file:
        file.write(image.to_bytes())
    os.replace(part, path)


def _write_json(content: dict[str, object], path: Path) -> None:
    _write_text(json.dumps(content, indent=2) + "\n", path)


def write_tsv(table: pd.DataFrame, path: Path) -> None:
    _write_text(table.to_csv(sep="\t", index=False, lineterminator="\n"), path)


def _write_text(text: str, path: Path) -> None:
    part = path.with_name(f".{path.name}.part")
    part.write_text(text)
    os.replace(part, path)
