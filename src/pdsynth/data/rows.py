"""The rows of pairs.tsv and quality.tsv of a prepared folder, from the records of its sessions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import pandas as pd
from pydantic import Field

from pdsynth.data.preprocessing import MOST_BVAL, SHELL
from pdsynth.data.quality import quality_table
from pdsynth.data.sessions import Task, relative
from pdsynth.data.shards import AGAIN
from pdsynth.schemas import Count, Kind, Number, Real, read_table
from pdsynth.types import NA, WHOLE_SCAN, Available, Modality

Record = dict[str, Any]
Name = Annotated[str, Field(min_length=1)]
TEXT_COLUMNS = ("participant_id", "session_id", "segment", "site", "diagnosis", "shard")
MEASURES = ("coverage", "overlap", "mutual_information", "correlation", "motion_mm")


@dataclass(frozen=True)
class PairRow:
    """One row of pairs.tsv: the whole scans of a session, or one segment of them. The fields are the columns, in order.

    An unknown value is "n/a". segment: "mean" for the whole scans, else the number of the segment, from 0. diagnosis:
    NC, MCI or AD. dx_gap_days: days from the first scan of the session to the visit of its diagnosis, negative if the
    visit was earlier; scan_gap_days: between the two scans, 0 or more; 0 also for one scan or unknown days. sex: F or
    M. age and education are in years; mmse and moca are scores of cognitive tests. available: both, fmri or dmri, the
    modalities of which the row has a volume. A path is relative to the dataset, and empty without a usable scan. A
    scale is the intensity in the scan's own unit that becomes 1: 2.5 times the median in the brain, or a percentile
    there if the setting `intensity` of the preprocessing is "percentile". dmri_bval: b-value of the averaged shell in
    s/mm^2, 1000 if it is unknown or there is no dMRI. shard: name of the file of the session's volumes. index: position
    in this file, 0 for the whole scans.
    """

    participant_id: Name
    session_id: str
    segment: Annotated[str, Field(pattern=r"^(mean|\d+)$")]
    site: str
    diagnosis: Annotated[str, Field(pattern=r"^(NC|MCI|AD|n/a)$")]
    dx_gap_days: Number
    scan_gap_days: Count
    age: Number
    sex: str
    education: Number
    mmse: Number
    moca: Number
    available: Available
    fmri_path: str
    fmri_scale: Number
    dmri_path: str
    dmri_scale: Number
    dmri_bval: Annotated[float, Field(gt=0, le=MOST_BVAL)]
    shard: Annotated[str, Field(pattern=r"^[^/\\]+\.npy$")]
    index: Count


COLUMNS = get_type_hints(PairRow, include_extras=True)
SPLIT_COLUMNS = {"participant_id": Name, "split": str}
QUALITY_COLUMNS = {
    **dict.fromkeys(("participant_id", "session_id", "site", "path", "flag"), str),
    "modality": Kind,
    **dict.fromkeys(MEASURES, Real | Literal[""]),
}
REJECTED_COLUMNS = dict.fromkeys(("path", "reason", "remedy"), str)


def read_pairs(prepared: Path, text: Sequence[str] = TEXT_COLUMNS) -> pd.DataFrame:
    """Read pairs.tsv of a prepared folder, whose columns are the fields of `PairRow`.

    text: names of the columns that are read as text. Raises InputError, with line and column, if it does not fit.
    """
    return read_table(prepared / "pairs.tsv", COLUMNS, AGAIN, text=text)


def read_splits(prepared: Path) -> pd.DataFrame:
    """Read splits.tsv of a prepared folder as text: participant_id, split and sha256. Raises InputError."""
    return read_table(prepared / "splits.tsv", SPLIT_COLUMNS, AGAIN, text=(*SPLIT_COLUMNS, "sha256"))


def read_quality(prepared: Path) -> pd.DataFrame:
    """Read quality.tsv of a prepared folder as text; a measure that is not known is empty. Raises InputError."""
    return read_table(prepared / "quality.tsv", QUALITY_COLUMNS, AGAIN, text=tuple(QUALITY_COLUMNS))


def read_rejected(prepared: Path) -> pd.DataFrame:
    """Read rejected.tsv of a prepared folder: path, reason and remedy of each refused file. Raises InputError."""
    return read_table(prepared / "rejected.tsv", REJECTED_COLUMNS, AGAIN, text=tuple(REJECTED_COLUMNS))


def pairs_table(records: Mapping[Task, Record]) -> pd.DataFrame:
    """The table pairs.tsv of a prepared folder: one row per session and segment, or whole scan, with a usable scan.

    The columns are the fields of `PairRow`; an empty table has none. records: by session, the content of the JSON file
    that preparation wrote on it.
    """
    rows = [
        _row(task, index, scales, record["dmri_bval"])
        for task, record in records.items()
        for index, scales in enumerate(record["rows"])
        if scales
    ]
    return pd.DataFrame([asdict(row) for row in rows])


def _row(task: Task, index: int, scales: Mapping[str, float], bval: float | None) -> PairRow:
    subject, session = task.subject, task.session
    modalities = [modality for modality in Modality if f"{modality}_scale" in scales]
    paths = {m: relative(session.scans[m].path, task.root) if m in modalities else "" for m in Modality}
    return PairRow(
        participant_id=subject.participant_id,
        session_id=session.session_id,
        segment=WHOLE_SCAN if index == 0 else str(index - 1),
        site=subject.site or NA,
        diagnosis=session.diagnosis or NA,
        dx_gap_days=_or_na(session.dx_gap_days),
        scan_gap_days=session.scan_gap_days,
        age=_or_na(session.age),
        sex=subject.sex or NA,
        education=_or_na(subject.education),
        mmse=session.scores.get("mmse", NA),
        moca=session.scores.get("moca", NA),
        available=Available.BOTH if len(modalities) == 2 else Available(modalities[0]),
        fmri_path=paths[Modality.FMRI],
        fmri_scale=scales.get("fmri_scale", NA),
        dmri_path=paths[Modality.DMRI],
        dmri_scale=scales.get("dmri_scale", NA),
        dmri_bval=SHELL if bval is None else bval,
        shard=task.shard.name,
        index=index,
    )


def _or_na(value: float | None) -> Number:
    return NA if value is None else value


def quality_of(records: Mapping[Task, Record]) -> pd.DataFrame:
    """The table quality.tsv of a prepared folder: one row per usable scan, with its measures of quality and flags.

    The columns are those of `quality_table`. records: by session, the content of the JSON file that preparation wrote
    on it.
    """
    rows = []
    for task, record in records.items():
        for modality, measured in record["quality"].items():
            path = relative(task.session.scans[Modality(modality)].path, task.root)
            who = {"participant_id": task.subject.participant_id, "session_id": task.session.session_id}
            rows.append(who | {"site": task.subject.site or NA, "modality": modality, "path": path} | measured)
    return quality_table(rows)
