"""synthesised.tsv, the table of a synthesis: one row per scan of the dataset, with its outcome and the reason."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from pdsynth.files import write_table
from pdsynth.schemas import read_table
from pdsynth.types import counted
from pdsynth.weights import weights_sha256

TABLE = "synthesised.tsv"
COLUMNS = (
    "participant_id", "session_id", "source", "target", "status", "file", "draws", "round_trip_db", "reason", "remedy",
)  # fmt: skip
NEEDED = ("participant_id", "session_id", "source", "target", "status", "reason")  # an older table may lack the others
KEY = list(COLUMNS[:4])
NOT_MADE = "not made"
LEAST_ROUND_TRIP = 23  # dB; below it the source of a volume of the shipped model is to be checked (decision 0032)
REPAIR = (  # the advice for a volume below this limit
    "Repair its faults and synthesise again. If nothing can be repaired, do not use the volume before you have "
    "measured the model on such scans."
)
HAS_BOTH = "the session has its"  # begins the reason why nothing is synthesised from a scan of a pair
AGAIN = "restore it, or synthesise again with --overwrite"


def least_round_trip(model_sha256: str) -> float | None:
    """The round_trip_db (dB) below which a source is to be checked; None, because unknown, but for the shipped model.

    model_sha256: digest of the weights of the model that made the volume.

    >>> least_round_trip(weights_sha256("default")), least_round_trip("another")
    (23, None)
    """
    return LEAST_ROUND_TRIP if model_sha256 == weights_sha256("default") else None


def read_outcomes(path: Path) -> pd.DataFrame:
    """Read synthesised.tsv as text, with all columns; raises InputError if it does not fit.

    status: made, not made, skipped or refused.
    """
    table = read_table(path, dict.fromkeys(NEEDED, str), AGAIN, others=str, text=COLUMNS)
    return table.reindex(columns=list(COLUMNS), fill_value="")


def write_outcomes(path: Path, rows: Sequence[dict[str, str]]) -> None:
    """Write the rows of this run into synthesised.tsv; rows of other scans, from earlier runs, remain."""
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    if path.exists():
        before = read_outcomes(path)
        known = set(map(tuple, table[KEY].to_numpy().tolist()))
        files = set(filter(None, table["file"]))
        cells = before[[*KEY, "file"]].to_numpy().tolist()
        stays = [tuple(row[:-1]) not in known and row[-1] not in files for row in cells]
        table = pd.concat([before[stays], table])
    write_table(path, table.sort_values(KEY, ignore_index=True))


def doubts(table: pd.DataFrame) -> list[tuple[str, str]]:
    """Source scan and doubt, as text, of each volume that was made from a doubtful scan; table: synthesised.tsv.

    A source is given as in this table, by its path in the dataset. The list is empty if no such scan was doubtful.
    """
    rows = table[(table["status"] == "made") & (table["reason"] != "")]
    return [(str(source), str(reason)) for source, reason in rows[["source", "reason"]].to_numpy().tolist()]


def paired_people(table: pd.DataFrame) -> int:
    """The number of participants with both scans in a session, by the reasons in synthesised.tsv (table)."""
    return int(table["participant_id"][table["reason"].str.startswith(HAS_BOTH)].nunique())


def round_trips(table: pd.DataFrame) -> list[tuple[str, float]]:
    """Source scan and round_trip_db of each volume in synthesised.tsv (table) that has this value, the lowest first."""
    known = table[table["round_trip_db"] != ""]
    scores = zip(known["source"].astype(str), known["round_trip_db"].astype(float), strict=True)
    return sorted(scores, key=lambda each: each[1])


def trust(table: pd.DataFrame, model_sha256: str) -> str:
    """The range of round_trip_db, and the limit below which a source is to be checked, in words; "" without a value.

    table: synthesised.tsv, of volumes by the model whose weights have the digest model_sha256.

    >>> trust(pd.DataFrame({"source": "a.nii.gz", "round_trip_db": ["24.11"]}), weights_sha256("default"))
    '24.11 dB here; check a source below 23 dB'
    """
    if not (decibels := [value for _, value in round_trips(table)]):
        return ""
    least = least_round_trip(model_sha256)
    values = " to ".join(f"{value:.2f}" for value in sorted({decibels[0], decibels[-1]}))
    limit = "no limit is known for this model" if least is None else f"check a source below {least} dB"
    return f"{values} dB here; {limit}"


def low_trust(table: pd.DataFrame, model_sha256: str) -> str:
    """A warning of the volumes whose round_trip_db is below the limit, with the advice; "" if there is none.

    table: synthesised.tsv, of volumes by the model whose weights have the digest model_sha256.
    """
    least, trips = least_round_trip(model_sha256), round_trips(table)
    low = 0 if least is None else sum(decibels < least for _, decibels in trips)
    if not low:
        return ""
    scan, lowest = trips[0]
    volumes = f"{counted(low, 'volume')} with round_trip_db below {least}: the lowest is {lowest:.2f} dB, from {scan}"
    return f"{volumes}. Check the source scan. {REPAIR}"


def not_made(table: pd.DataFrame) -> int:
    """Number of rows of synthesised.tsv (table) with the status "not made": the target was scanned, but refused."""
    return int((table["status"] == NOT_MADE).sum())
