"""quality.html of a prepared folder: its participants, flagged and refused scans, registration and intensity."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from pdsynth.cohorts.cohort import by_action, by_reason
from pdsynth.data.pairs import Pairs
from pdsynth.data.rows import read_rejected
from pdsynth.data.shards import AGAIN
from pdsynth.imaging.template import tissue_template
from pdsynth.report.charts import curves, strips
from pdsynth.report.pictures import View
from pdsynth.report.rendering import render, scripts
from pdsynth.types import NA, Available, Diagnosis, InputError, Modality, Split

PAGE = "quality.html"
SHOWN = 48  # unflagged scans on the contact sheet
SHOWN_FLAGGED, SHOWN_REFUSED = 100, 200
BINS = 50
PER_SITE = 60  # most scans in the histogram of a site
UNKNOWN = "unknown"
NAMES = {Modality.FMRI: "fMRI", Modality.DMRI: "dMRI"}
MEASURES = {
    "overlap": "overlap of the brain with the template's (Dice)",
    "mutual_information": "normalised mutual information with the template (1: none, 2: equal; usual: 1.01 to 1.11)",
    "correlation": "correlation of fMRI and b0 in the brain",
    "motion_mm": "head motion: mean framewise displacement, mm",
}


def write_quality(prepared: str | Path) -> Path:
    """Write quality.html, a page to check prepared scans by eye, into the prepared folder; returns its path.

    It shows participants, flagged and refused scans, registration and intensity. It contains its images and loads
    nothing. Raises InputError if `prepared` is not a prepared folder, or if its quality.tsv is missing.
    """
    pairs = Pairs.open(prepared)
    if not (pairs.root / "quality.tsv").exists():
        raise InputError(pairs.root / "quality.tsv", "is missing", AGAIN)
    quality = pd.read_csv(pairs.root / "quality.tsv", sep="\t", keep_default_na=False, na_values=[""])
    text = ("participant_id", "session_id", "site", "flag")
    quality = quality.fillna(dict.fromkeys(text, "")).astype(dict.fromkeys(text, str))
    refused, noted = by_action(read_rejected(pairs.root).to_dict("records"), lambda row: str(row["remedy"]))
    whole = pairs.whole_scans()
    flagged = quality[quality["flag"] != ""]
    context = {
        "simulated": pairs.simulated,
        "sharing": False,
        "manifest": pairs.manifest,
        "people": whole.participants,
        "sessions": len(whole),
        "available": {name: int(n) for name, n in whole.table["available"].value_counts().items()},
        "groups": _groups(whole.table),
        "scans": len(quality),
        "flagged": flagged.head(SHOWN_FLAGGED).to_dict("records"),
        "n_flagged": len(flagged),
        "sheet": _sheet(whole, quality),
        "histograms": [(NAMES[m], curves(_histograms(whole, m), 0, 1, "signal (0 to 1)")) for m in Modality],
        "sites": sorted({_label(site) for site in whole.table["site"]}),
        "measures": _measures(quality),
        "reasons": by_reason(row["reason"] for row in refused),
        "refused": refused[:SHOWN_REFUSED],
        "n_refused": len(refused),
        "noted": noted,
    }
    return render(pairs.root / PAGE, "quality.html.j2", True, context | scripts("tables.js"))


def _label(value: str) -> str:
    return UNKNOWN if value in ("", NA) else value


def _groups(table: pd.DataFrame) -> dict[str, Any]:
    """Participants by site and diagnosis, and by split."""
    people = table.drop_duplicates("participant_id")
    counts = pd.crosstab(people["site"].map(_label), people["diagnosis"].map(_label), margins=True, margins_name="all")
    counts = counts[[name for name in (*Diagnosis, UNKNOWN, "all") if name in counts]]
    splits = people["split"].value_counts().reindex(list(Split), fill_value=0)
    return {
        "columns": list(counts.columns),
        "rows": [(name, [int(n) for n in row]) for name, row in zip(counts.index, counts.to_numpy(), strict=True)],
        "splits": {str(name): int(n) for name, n in splits.items()},
    }


def _sheet(whole: Pairs, quality: pd.DataFrame) -> list[dict[str, Any]]:
    """Three planes of flagged scans, then of other scans from the lowest to the highest overlap with the template.

    At most SHOWN_FLAGGED and SHOWN scans are drawn; the others are evenly spaced in rank. The outline of the template's
    brain is drawn on each plane.
    """
    template = tissue_template(whole.grid)["brain"] > 0.5
    view = View.around(template, whole.grid.affine)
    ranked = quality.sort_values("overlap", ignore_index=True)
    others = ranked[ranked["flag"] == ""]
    spread = np.unique(np.linspace(0, len(others) - 1, min(SHOWN, len(others))).round().astype(int))
    chosen = pd.concat([ranked[ranked["flag"] != ""].head(SHOWN_FLAGGED), others.iloc[spread]])
    rows = {(p, s): row for row, (p, s) in enumerate(whole.table[["participant_id", "session_id"]].to_numpy().tolist())}
    sheet = []
    for scan in chosen.to_dict("records"):
        row = rows.get((scan["participant_id"], scan["session_id"]))
        if row is None:  # the whole session was refused later, as a duplicate
            continue
        volume = whole.volume(Modality(scan["modality"]), row)
        planes: list[Markup] = [view.outlined(volume, template, axis) for axis in range(3)]
        sheet.append(
            {str(key): value for key, value in scan.items()}
            | {"name": NAMES[Modality(scan["modality"])], "planes": planes}
        )
    return sheet


def _histograms(whole: Pairs, modality: Modality) -> dict[str, np.ndarray]:
    """Mean share of brain voxels in each of BINS bins of the signal from 0 to 1, (BINS,) by site.

    The mean is over the first PER_SITE scans of the site. Empty for a site without a scan of the modality.
    """
    sites = whole.table["site"].map(_label)
    table = whole.table[whole.table["available"].isin([Available.BOTH, modality])]
    found = {str(site): np.zeros(0) for site in sorted(sites.unique())}
    for site, rows in table.groupby(sites):
        shares = []
        for row in rows.index[:PER_SITE]:
            inside = whole.volume(modality, row)[whole.brain(modality, row)]
            shares.append(np.histogram(inside, BINS, (0, 1))[0] / max(1, inside.size))
        found[str(site)] = np.mean(shares, axis=0)
    return found


def _measures(quality: pd.DataFrame) -> list[dict[str, Any]]:
    """One chart per modality and measure, with one row per site; charts without a known value are left out."""
    charts = []
    for modality, scans in quality.groupby("modality"):
        for measure, unit in MEASURES.items():
            by_site = {str(s): v[measure].to_numpy(float) for s, v in scans.groupby(scans["site"].map(_label))}
            if chart := strips(by_site, unit):
                charts.append({"modality": NAMES[Modality(str(modality))], "chart": chart})
    return charts
