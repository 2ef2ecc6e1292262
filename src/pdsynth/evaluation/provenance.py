"""Provenance in the manifest of `evaluate`: the models, and counts of training and scored participants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pandas as pd

from pdsynth.cohorts.cohort import asks_for_action, by_reason
from pdsynth.data.pairs import Pairs
from pdsynth.data.rows import read_quality, read_rejected
from pdsynth.types import NA
from pdsynth.weights import without_scans

if TYPE_CHECKING:
    from pdsynth.synthesis import Model

GROUPED = ["split", "site", "diagnosis", "sex"]


def provenance(models: Mapping[str, Model], pairs: Pairs) -> dict[str, Any]:
    """Content of a manifest about the scored models (key `models`) and the prepared folder (key `data`).

    `models` has, by name, the SHA-256 of the weights (sha256), the name of the method, the card (record of the
    training, here without the SHA-256 of the training scans) and the settings of the method. `data` describes whole
    scans of `pairs`: the name of the prepared folder (cohort); whether it is simulated; settings and date of its
    preparation (prepared); n_participants, n_sessions; sessions by available scans (available); participants by split,
    site, diagnosis and sex (groups); number, mean, SD and range of their known ages in years by split (ages). In groups
    and ages, a participant counts once, with the first session. rejected: number of refused files by reason; flagged:
    numbers of scans (scans) and of those that quality control flagged (flagged). Both are of the whole folder, None if
    it has no table of them.
    """
    return {"models": {name: _model(model) for name, model in models.items()}, "data": _data(pairs)}


def _model(model: Model) -> dict[str, Any]:
    return {
        "sha256": model.sha256,
        "method": model.method.name,
        "card": without_scans(model.card),
        "settings": asdict(model.method.config),
    }


def _data(pairs: Pairs) -> dict[str, Any]:
    sessions = pairs.whole_scans().table
    people = sessions.drop_duplicates("participant_id")
    counts = people.reindex(columns=GROUPED).fillna(NA).groupby(GROUPED).size().reset_index(name="participants")
    rejected = read_rejected(pairs.root).to_dict("records") if (pairs.root / "rejected.tsv").exists() else None
    refused = None if rejected is None else [row["reason"] for row in rejected if asks_for_action(row["remedy"])]
    quality = read_quality(pairs.root) if (pairs.root / "quality.tsv").exists() else None
    return {
        "cohort": pairs.root.name,
        "simulated": pairs.simulated,
        "prepared": {key: pairs.manifest.get(key) for key in ("version", "started", "parameters", "seed", "outputs")},
        "n_participants": len(people),
        "n_sessions": len(sessions),
        "available": {str(name): int(n) for name, n in sessions["available"].value_counts().sort_index().items()},
        "groups": counts.to_dict("records"),
        "ages": {str(split): _spread(group["age"]) for split, group in people.groupby("split")},
        "rejected": None if refused is None else by_reason(refused),
        "flagged": None if quality is None else {"scans": len(quality), "flagged": int((quality["flag"] != "").sum())},
    }


def _spread(column: pd.Series) -> dict[str, float | int | None]:
    """Number ("known"), mean, SD, min and max of the known values; None for a measure that needs more values."""
    known = pd.to_numeric(column, errors="coerce").dropna()
    measures = {"mean": known.mean(), "sd": known.std(ddof=1), "min": known.min(), "max": known.max()}
    rounded = {name: None if pd.isna(value) else round(float(value), 2) for name, value in measures.items()}
    return {"known": len(known), **rounded}
