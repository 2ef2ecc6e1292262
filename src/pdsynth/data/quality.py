"""Flags doubtful scans of a cohort: by their notes, and outliers by alignment with the template and head motion."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

COLUMNS = (
    "participant_id",
    "session_id",
    "site",
    "modality",
    "path",
    "coverage",
    "overlap",
    "mutual_information",
    "correlation",
    "motion_mm",
    "flag",
)
WORSE = {"overlap": -1, "mutual_information": -1, "correlation": -1, "motion_mm": 1}  # sign of bad deviations
FAR = 4.0  # robust standard deviations from the median of the modality
ENOUGH = 10  # scans, at least, for an estimate of median and deviation
# Correlation of fMRI and b0 below which they do not show one head in one place: 0.44 to 0.85 in 300 SIMULATED pairs,
# 0.75 or more in real ones, and -0.05 where one of the two was upside down.
LEAST_CORRELATION = 0.25
DECIMALS = 4


def quality_table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Table of the quality of scans, one row per scan; the column `flag` holds doubts and names outlying measures.

    rows: one dict per scan, with participant_id, session_id, site, modality, path and the measures. These are coverage
    (share of the template brain in the field of view, 0..1), overlap (Dice coefficient with the template brain, 0..1),
    mutual_information (normalised, with the template, 1..2), correlation of a dMRI with the session's fMRI (-1..1), and
    motion_mm (mean framewise displacement). An unknown measure is None or absent. The key notes, a list of texts, may
    be absent; its texts become part of `flag`, which is "" for a scan without doubts. Measures are rounded to four
    decimals.

    A measure other than coverage is outlying if it is more than 4 robust SDs from the median of the scans of its
    modality on the bad side: above for motion_mm, below for the others. A modality with fewer than 10 known values of a
    measure has no outliers in it, nor one of which most values are equal. A correlation below 0.25 is flagged, too.
    """
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    table["flag"] = ["; ".join([*row.get("notes", []), *_apart(row.get("correlation"))]) for row in rows]
    for measure, sign in WORSE.items():
        values = table[measure].astype(float)
        for _, group in values.groupby(table["modality"]):
            for place in group.index[sign * deviations(group.to_numpy()) > FAR]:
                outlier = f"{measure} {values[place]:.3f} where others of its modality have {group.median():.3f}"
                table.loc[place, "flag"] = "; ".join(filter(None, [table.loc[place, "flag"], outlier]))
        table[measure] = values.round(DECIMALS)
    return table.assign(coverage=table["coverage"].astype(float).round(DECIMALS))


def _apart(correlation: float | None) -> list[str]:
    """The flag of a dMRI scan that does not agree with its session's fMRI; empty if it does, or if this is unknown."""
    if correlation is None or not correlation < LEAST_CORRELATION:
        return []
    return [f"agrees little with the session's fMRI (correlation {correlation:.2f}): look at both in a viewer"]


def deviations(values: np.ndarray) -> np.ndarray:
    """Distance of each value from the median, in robust standard deviations (1.4826 MAD), with its sign: (n,).

    MAD is the median distance from the median. The result is zero for a NaN, and for all values if fewer than 10 are
    known or their MAD is zero.

    >>> deviations(np.array([1.0, 1.1, 0.9, 1.2, 0.8, 1.0, 1.1, 0.9, 1.0, 9.0])).round().tolist()[-2:]
    [0.0, 54.0]
    """
    known = values[np.isfinite(values)]
    if len(known) < ENOUGH:
        return np.zeros(len(values))
    spread = 1.4826 * np.median(np.abs(known - np.median(known)))
    return np.nan_to_num((values - np.median(known)) / spread) if spread > 0 else np.zeros(len(values))
