"""The simulated cohort on disk: plain BIDS, labelled SIMULATED everywhere, with the truth in derivatives."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd

from pdsynth.cohorts.simulated.session import Session, means, simulate_session
from pdsynth.cohorts.simulated.sites import PAPER_SLIPS, SITES
from pdsynth.cohorts.simulated.streams import COHORT, Streams
from pdsynth.types import Diagnosis, InputError, Modality

ORACLE_DRAWS, ORACLE_DRAWS_QUICK = 16, 8
NOTE = "SIMULATED by pdsynth: no person was scanned"


@dataclass(frozen=True)
class _Task:
    """One subject to simulate and write; small enough to send to a process."""

    root: Path
    seed: int
    index: int
    diagnosis: Diagnosis
    site: str
    hidden: Modality | None
    grid_mm: float
    quick: bool
    randomise: bool
    truth: bool
    fc_effect: str

    @property
    def participant_id(self) -> str:
        return f"sub-sim{self.index:04d}"


def simulate(
    out: Path,
    subjects: int,
    seed: int = 0,
    sites: Sequence[str] = ("oasis", "adni", "hospital"),
    missing_fmri: float = 0.0,
    missing_dmri: float = 0.0,
    grid_mm: float = 4.0,
    quick: bool = False,
    randomise: float = 0.0,
    jobs: int = 1,
    truth: bool = True,
    fc_effect: str = "paper",
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write a simulated cohort of NC, MCI and AD participants as BIDS with 4D scans, and return its root.

    missing_fmri and missing_dmri are fractions of subjects who lack that scan (nobody lacks both); what they would have
    had is kept as a mean in derivatives/truth. quick writes few volumes and directions. randomise is the fraction of
    subjects whose acquisition is drawn afresh instead of taken from their site. truth adds the oracle volumes. The
    bytes do not depend on jobs. Raises InputError
    where out holds something already and ValueError for arguments out of range.
    """
    out = Path(out)
    unknown = [s for s in sites if s not in SITES] or ([] if sites else ["(none)"])
    if unknown:
        raise ValueError(f"there is no site {unknown[0]!r}; choose from {', '.join(SITES)}.")
    if subjects < 1:
        raise ValueError(f"{subjects} subjects cannot be simulated; ask for at least 1.")
    if min(missing_fmri, missing_dmri) < 0 or missing_fmri + missing_dmri > 1:
        raise ValueError(
            f"missing_fmri {missing_fmri} and missing_dmri {missing_dmri} must be 0 or more and add up to at most 1."
        )
    if not 0 <= randomise <= 1:
        raise ValueError(f"randomise is {randomise}; give the fraction of subjects, from 0 to 1.")
    if out.exists() and any(out.iterdir()):
        raise InputError(out, "is not empty", "choose a new folder, or remove it first")
    out.mkdir(parents=True, exist_ok=True)
    _describe(out, seed, quick, randomise)
    plan = _plan(subjects, seed, sites, missing_fmri, missing_dmri)
    drawn = np.diff(np.floor(np.arange(subjects + 1) * randomise)) > 0  # spread evenly over the plan
    tasks = [_Task(out, seed, i, *who, grid_mm, quick, bool(drawn[i]), truth, fc_effect) for i, who in enumerate(plan)]
    rows = []
    if jobs > 1 and subjects > 1:
        with ProcessPoolExecutor(min(jobs, subjects), mp_context=get_context("spawn")) as pool:
            for done, row in enumerate(pool.map(_write_subject, tasks), start=1):
                rows.append(row)
                if progress:
                    progress(done, subjects)
    else:
        for done, task in enumerate(tasks, start=1):
            rows.append(_write_subject(task))
            if progress:
                progress(done, subjects)
    table = pd.DataFrame(rows)
    _write_tsv(table[["participant_id", "age", "sex", "site", "diagnosis"]], out / "participants.tsv")
    _write_tsv(table, out / "derivatives" / "truth" / "truth.tsv")
    return out


def _plan(
    subjects: int, seed: int, sites: Sequence[str], missing_fmri: float, missing_dmri: float
) -> list[tuple[Diagnosis, str, Modality | None]]:
    """Who belongs to which group and site and lacks what: balanced, and drawn once for the cohort."""
    generator = Streams(seed, COHORT).generator(0)
    groups = list(Diagnosis)
    cells = [(groups[i % 3], sites[i // 3 % len(sites)]) for i in range(subjects)]
    cells = [cells[i] for i in generator.permutation(subjects)]
    hidden: list[Modality | None] = [None] * subjects
    order = generator.permutation(subjects)
    n_fmri = round(subjects * missing_fmri)
    n_dmri = min(round(subjects * missing_dmri), subjects - n_fmri)
    for i in order[:n_fmri]:
        hidden[i] = Modality.FMRI
    for i in order[n_fmri : n_fmri + n_dmri]:
        hidden[i] = Modality.DMRI
    return [(group, site, lacks) for (group, site), lacks in zip(cells, hidden, strict=True)]


def _write_subject(task: _Task) -> dict[str, object]:
    """Simulate one subject, write every file of theirs, and return the row of truth.tsv."""
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
        fc_effect=task.fc_effect,
    )
    name = task.participant_id
    folder, derived = task.root / name, task.root / "derivatives" / "truth" / name
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
    world_to_mni = {"fmri": fmri.to_template.tolist(), "dmri": dmri.to_template.tolist()}
    _write_json({"unit": "mm", "maps": "scan world to MNI", **world_to_mni}, derived / f"{name}_xfm.json")
    return _row(task, session)


def _row(task: _Task, session: Session) -> dict[str, object]:
    """Demographics first, then what only a simulation knows."""
    person, anatomy = session.person, session.anatomy
    litre = float(np.prod(anatomy.grid.spacing_mm)) / 1000
    hippocampus = anatomy.hippocampus > 0.5
    deep = (anatomy.outside < -20) & (anatomy.csf > 0.5)
    return {
        "participant_id": task.participant_id,
        "age": round(person.age, 1),
        "sex": person.sex,
        "site": "randomised" if task.randomise else task.site,
        "diagnosis": str(person.diagnosis),
        "severity": round(person.severity, 4),
        "ventricle_growth_mm": round(person.ventricle_mm, 3),
        "hippocampus_shrinkage_mm": round(person.hippocampus_mm, 3),
        "ventricle_ml": round(float(deep.sum()) * litre, 2),
        "hippocampus_grey_ml": round(float(anatomy.gm[hippocampus].sum()) * litre, 3),
        "hippocampus_csf_fraction": round(float(anatomy.csf[hippocampus].mean()), 4),
        "lesion_ml": round(float(anatomy.lesion.sum()) * litre, 3),
        "hidden": str(task.hidden) if task.hidden else "n/a",
        "dmri_bval": session.acquisition.dmri_protocol.bval,
    }


def _write_bold(session: Session, stem: Path) -> None:
    protocol = session.acquisition.fmri_protocol
    stem.parent.mkdir(parents=True, exist_ok=True)
    affine = session.acquisition.fmri.native.affine
    _write_image(session.bold, affine, stem.with_name(stem.name + ".nii.gz"), protocol.t_r)
    sidecar = {
        "RepetitionTime": protocol.t_r / 1000,
        "EchoTime": protocol.t_e / 1000,
        "FlipAngle": protocol.flip_deg,
        "TaskName": "rest",
        "Simulated": True,
        "Note": NOTE,
    }
    _write_json(sidecar, stem.with_name(stem.name + ".json"))


def _write_dwi(session: Session, stem: Path) -> None:
    protocol = session.acquisition.dmri_protocol
    stem.parent.mkdir(parents=True, exist_ok=True)
    affine = session.acquisition.dmri.native.affine
    _write_image(session.dwi, affine, stem.with_name(stem.name + ".nii.gz"), protocol.t_r)
    sidecar = {
        "RepetitionTime": protocol.t_r / 1000,
        "EchoTime": protocol.t_e / 1000,
        "Simulated": True,
        "Note": NOTE,
    }
    _write_json(sidecar, stem.with_name(stem.name + ".json"))
    bvals = " ".join(f"{b:g}" for b in session.bvals) + "\n"
    bvecs = "\n".join(" ".join(f"{v:.6f}" for v in axis) for axis in session.bvecs.T) + "\n"
    _write_text(bvals, stem.with_name(stem.name + ".bval"))
    _write_text(bvecs, stem.with_name(stem.name + ".bvec"))


def _write_image(data: np.ndarray, affine: np.ndarray, path: Path, t_r: float = 0.0, slope: float = 1.0) -> None:
    """NIfTI of 16-bit integers times slope, gzipped fast and without a time stamp; t_r in ms."""
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


def _describe(root: Path, seed: int, quick: bool, randomise: float) -> None:
    """dataset_description.json of the dataset and of its truth."""
    generated = [{"Name": "pdsynth simulate", "Description": f"seed {seed}, quick {quick}, randomise {randomise}"}]
    base = {"BIDSVersion": "1.9.0", "Simulated": True, "GeneratedBy": generated, "PaperSlips": PAPER_SLIPS}
    truth = root / "derivatives" / "truth"
    truth.mkdir(parents=True, exist_ok=True)
    _write_json({"Name": "SIMULATED cohort (pdsynth)", "DatasetType": "raw", **base}, root / "dataset_description.json")
    _write_json(
        {"Name": "SIMULATED cohort (pdsynth): truth", "DatasetType": "derivative", **base},
        truth / "dataset_description.json",
    )


def _write_json(content: dict[str, object], path: Path) -> None:
    _write_text(json.dumps(content, indent=2) + "\n", path)


def _write_tsv(table: pd.DataFrame, path: Path) -> None:
    _write_text(table.to_csv(sep="\t", index=False, lineterminator="\n"), path)


def _write_text(text: str, path: Path) -> None:
    part = path.with_name(f".{path.name}.part")
    part.write_text(text)
    os.replace(part, path)
