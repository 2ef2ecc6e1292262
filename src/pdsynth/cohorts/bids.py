"""Plain BIDS: subjects, sessions, scans and diagnoses, by file name and header; no voxel is read.

A subject may have either modality alone: that is what synthesis completes. A file that cannot be used becomes a
`Rejection` and the cohort goes on; a dataset that cannot be understood as a whole raises `InputError`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd

from pdsynth.cohorts.cohort import Cohort, Rejection, Scan, Session, Subject
from pdsynth.imaging.nifti import ScanHeader, read_header, refuse_synthetic
from pdsynth.imaging.segments import B0_LIMIT, read_gradients
from pdsynth.types import Diagnosis, InputError, Modality

SUFFIX = {Modality.FMRI: "bold", Modality.DMRI: "dwi"}
FOLDER = {Modality.FMRI: "func", Modality.DMRI: "dwi"}
MISSING = {"", "n/a", "na", "nan", "none", "unknown"}
SEX = {"f": "F", "female": "F", "w": "F", "m": "M", "male": "M"}
CODES = {
    "nc": Diagnosis.NC,
    "cn": Diagnosis.NC,
    "hc": Diagnosis.NC,
    "control": Diagnosis.NC,
    "smc": Diagnosis.NC,  # a subjective memory complaint is no impairment
    "mci": Diagnosis.MCI,
    "emci": Diagnosis.MCI,
    "lmci": Diagnosis.MCI,
    "ad": Diagnosis.AD,
    "dementia": Diagnosis.AD,
}
LEAST_HEIGHT_MM = 60.0  # a lower stack of slices is a slab, not a brain
LEAST_WIDTH_MM = 100.0


def bids(
    root: str | Path,
    diagnosis_column: str | None = None,
    diagnosis_map: Mapping[str, Diagnosis] | None = None,
) -> Cohort:
    """Read a BIDS dataset: names, tables and headers.

    Of several runs of one modality in a session the one with most volumes is taken, then the first by name.
    `diagnosis_column` is a column of participants.tsv or sessions.tsv (default: `diagnosis` or `dx`, in any case);
    `diagnosis_map` adds codes to the known ones (NC, CN, HC, MCI, EMCI, LMCI, AD, Dementia, in any case).
    Raises InputError where the folder is no BIDS dataset, a participant is listed twice, or a diagnosis is unknown.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(root, "is no folder", "give the folder that holds participants.tsv and the sub-* folders")
    folders = sorted(p for p in root.glob("sub-*") if p.is_dir())
    if not folders:
        raise InputError(root, "holds no sub-* folder", "give the root of a BIDS dataset")
    codes = CODES | {str(code).lower(): Diagnosis(value) for code, value in (diagnosis_map or {}).items()}
    participants = _Table(root / "participants.tsv", "participant_id", diagnosis_column, codes)
    rejected: list[Rejection] = []
    subjects = [_subject(folder, participants, diagnosis_column, codes, rejected) for folder in folders]
    subjects = [subject for subject in subjects if subject.sessions]
    if not subjects and not rejected:
        raise InputError(root, "holds no *_bold.nii.gz and no *_dwi.nii.gz", "give the root of a BIDS dataset")
    cohort = Cohort(root, subjects, rejected, _is_simulated(root))
    if diagnosis_column is not None and all(session.diagnosis is None for _, session in cohort):
        raise InputError(
            participants.path, f"gives no diagnosis in a column {diagnosis_column!r}", "name another column"
        )
    return cohort


def single_scan(path: str | Path, modality: Modality | None = None) -> Scan:
    """One scan by path, outside any dataset: a 4D acquisition, or a 3D mean volume, which needs no b-values.

    The modality, where not given, is told by the name (`bold`, `dwi`) or by b-values beside the file.
    Raises InputError where the modality cannot be told or the file cannot be used.
    """
    path = Path(path)
    name = path.name.lower()
    if modality is None and ("dwi" in name or _gradient_file(path, "bval")):
        modality = Modality.DMRI
    if modality is None and ("bold" in name or "func" in name):
        modality = Modality.FMRI
    if modality is None:
        raise InputError(path, "may be fMRI or dMRI", "name it *_bold.nii.gz or *_dwi.nii.gz")
    scan = _scan(modality, path)
    _usable(scan, mean_allowed=True)
    return scan


PREFIX = {"participant_id": "sub-", "session_id": "ses-"}


class _Table:
    """A participants.tsv or sessions.tsv, by id: diagnosis, age, sex, site. Absent files and cells are None."""

    def __init__(self, path: Path, key: str, diagnosis_column: str | None, codes: Mapping[str, Diagnosis]) -> None:
        self.path, self.codes = path, codes
        self.rows: dict[str, dict[str, str]] = {}
        self.diagnosis_columns = ("diagnosis", "dx") if diagnosis_column is None else (diagnosis_column.lower(),)
        if not path.exists():
            return
        try:
            table = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False, encoding="utf-8-sig")
        except (ValueError, OSError) as error:
            raise InputError(path, f"is no table ({error})", "save it as tab-separated UTF-8 text") from None
        columns = [str(column).strip().lower() for column in table.columns]
        if key not in columns:
            raise InputError(path, f"has no column {key}", "name the first column so and separate columns by tabs")
        for cells in table.to_numpy().tolist():
            row = dict(zip(columns, cells, strict=True))
            name = row[key].strip()
            name = name if name.startswith(PREFIX[key]) else f"{PREFIX[key]}{name}"
            if name in self.rows:
                raise InputError(path, f"lists {name} twice", "keep one row for each")
            self.rows[name] = row

    def cell(self, name: str, *columns: str) -> str | None:
        """The first of the columns that the table has, or None where it is empty or n/a."""
        row = self.rows.get(name, {})
        value = next((row[c].strip() for c in columns if c in row), "")
        return None if value.lower() in MISSING else value

    def diagnosis(self, name: str) -> Diagnosis | None:
        code = self.cell(name, *self.diagnosis_columns)
        if code is not None and code.lower() not in self.codes:
            known = ", ".join(sorted(self.codes))
            raise InputError(
                self.path,
                f"gives {name} the diagnosis {code!r}, which is none of {known}",
                "map this code to NC, MCI or AD with diagnosis_map, or write n/a",
            )
        return None if code is None else self.codes[code.lower()]

    def age(self, name: str, rejected: list[Rejection]) -> float | None:
        """Years; '89+', as BIDS writes high ages, is 89."""
        text = self.cell(name, "age")
        if text is None:
            return None
        try:
            return float(text.rstrip("+"))
        except ValueError:
            rejected.append(Rejection(self.path, f"age {text!r} of {name} is no number", "write years, or n/a"))
            return None


def _subject(
    folder: Path,
    participants: _Table,
    diagnosis_column: str | None,
    codes: Mapping[str, Diagnosis],
    rejected: list[Rejection],
) -> Subject:
    name = folder.name
    visits = _Table(folder / f"{name}_sessions.tsv", "session_id", diagnosis_column, codes)
    diagnosis, age = participants.diagnosis(name), participants.age(name, rejected)
    sessions = []
    for place in sorted(p for p in folder.glob("ses-*") if p.is_dir()) or [folder]:
        visit = "" if place == folder else place.name
        found = {modality: _best(place, modality, rejected) for modality in Modality}
        scans = {modality: scan for modality, scan in found.items() if scan is not None}
        if scans:
            visit_age = visits.age(visit, rejected)
            age_then = age if visit_age is None else visit_age
            sessions.append(Session(visit, scans, visits.diagnosis(visit) or diagnosis, age_then))
    sex = SEX.get((participants.cell(name, "sex", "gender") or "").lower())
    return Subject(name, sessions, sex, participants.cell(name, "site", "site_id", "scanner"))


def _best(place: Path, modality: Modality, rejected: list[Rejection]) -> Scan | None:
    """The usable run with most volumes, then the first by name."""
    best, most = None, 0
    for path in sorted((place / FOLDER[modality]).glob(f"*_{SUFFIX[modality]}.nii*")):
        if not path.name.endswith((".nii", ".nii.gz")) or "_part-phase" in path.name:
            continue
        scan = _scan(modality, path)
        try:
            header = _usable(scan)
        except InputError as error:
            rejected.append(Rejection(error.path, error.problem, error.remedy))
            continue
        if header.shape[3] > most:
            best, most = scan, header.shape[3]
    return best


def _usable(scan: Scan, mean_allowed: bool = False) -> ScanHeader:
    """The header of a scan that can be used; InputError says why another can't."""
    header = read_header(scan.path)
    refuse_synthetic(scan.path)
    one_volume = len(header.shape) < 4 or header.shape[3] == 1
    if one_volume and not mean_allowed:
        raise InputError(scan.path, "holds one volume, not a series", "give the whole 4D acquisition")
    extent = _extent_mm(header)
    if header.suspicious_zooms and min(extent[:2]) < LEAST_WIDTH_MM:
        size = "x".join(str(n) for n in header.shape[:3])
        raise InputError(
            scan.path,
            f"has voxels of 1x1x1 mm by its header, too small for a head at {size} voxels",
            "convert it again from DICOM, or write the true voxel size into the header",
        )
    if extent[2] < LEAST_HEIGHT_MM:
        raise InputError(
            scan.path, f"is a slab of {extent[2]:.0f} mm from foot to head", "give a scan of the whole brain"
        )
    if scan.modality is Modality.DMRI and not one_volume:
        _check_gradients(scan, header.shape[3])
    return header


def _check_gradients(scan: Scan, n_volumes: int) -> None:
    for kind, path in (("bval", scan.bval), ("bvec", scan.bvec)):
        if path is None:
            raise InputError(scan.path, f"has no .{kind} file", f"put {_stem(scan.path)}.{kind} beside it")
    gradients = read_gradients(scan.bval, scan.bvec, n_volumes, scan.path)
    if not np.any(gradients.bvals > B0_LIMIT):
        raise InputError(scan.path, "has no volume with b > 0", "give the diffusion-weighted run, not a b0 or fieldmap")


def _extent_mm(header: ScanHeader) -> tuple[float, float, float]:
    """Field of view left-right, back-front, foot-head, of the voxel axes nearest to these."""
    sizes = np.linalg.norm(header.affine[:3, :3], axis=0)
    order = nib.orientations.io_orientation(header.affine)[:, 0].astype(int)
    extent = np.empty(3)
    extent[order] = sizes * np.asarray(header.shape[:3])
    return float(extent[0]), float(extent[1]), float(extent[2])


def _scan(modality: Modality, path: Path) -> Scan:
    if modality is Modality.FMRI:
        return Scan(modality, path)
    return Scan(modality, path, _gradient_file(path, "bval"), _gradient_file(path, "bvec"))


def _gradient_file(path: Path, kind: str) -> Path | None:
    """The table beside the scan, or one that it inherits from a folder above (BIDS inheritance principle)."""
    beside = path.with_name(f"{_stem(path)}.{kind}")
    if beside.exists():
        return beside
    if not _stem(path).startswith("sub-"):
        return None
    entities = set(_stem(path).split("_"))
    for folder in path.parents[:4]:
        inherited = [p for p in sorted(folder.glob(f"*dwi.{kind}")) if set(_stem(p).split("_")) <= entities]
        if inherited:
            return inherited[0]
        if (folder / "dataset_description.json").exists():
            break
    return None


def _stem(path: Path) -> str:
    return re.sub(r"(\.nii(\.gz)?|\.bval|\.bvec)$", "", path.name)


def _is_simulated(root: Path) -> bool:
    description = root / "dataset_description.json"
    if not description.exists():
        return False
    try:
        return bool(json.loads(description.read_text()).get("Simulated", False))
    except (ValueError, AttributeError):
        raise InputError(description, "is no JSON object", "repair the file") from None
