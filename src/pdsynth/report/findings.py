"""What the evidence beyond image quality found of the method under test, in words: facts by name, from its tables."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from pdsynth.evaluation.completion import verdict
from pdsynth.evaluation.diagnosis import PERMUTED, SYNTHESISED
from pdsynth.evaluation.effect_completion import RECTIFIED
from pdsynth.files import read_json
from pdsynth.report import tables
from pdsynth.report.tables import Row, direction_of, number, rows_of, spread

DIFFERENCE = 0.04  # of accuracy: that between the paper's 68 and 64 %


def findings(root: Path, tested: str) -> dict[str, str]:
    """Facts of the tables that are in the results folder; "" where a table has nothing of the method."""
    found: dict[str, str] = {}
    for name, tell in {
        tables.EFFECTS: _effects,
        tables.COMPLETED_EFFECTS: _worth,
        tables.DIAGNOSIS: _diagnosis,
        tables.COMPLETION: _completion,
        tables.POWER: _power,
        tables.SITES: _sites,
    }.items():
        found |= tell(rows_of(root / name) or [], tested)
    return found | _probes(root / tables.PROBES)


def _effects(rows: list[Row], tested: str) -> dict[str, str]:
    own = _of(rows, tested)
    groups = [f"{number(row, 'n_AD', 0)} AD and {number(row, 'n_NC', 0)} NC" for row in own[:1]]
    return {
        "effects": _by_direction(own, "slope"),
        "effect_people": "".join(groups),
        "reliability": _by_direction(own, "reliability"),
    }


def _worth(rows: list[Row], tested: str) -> dict[str, str]:
    return {"worth": _by_direction([row for row in _of(rows, tested) if row["arm"] == RECTIFIED], "worth")}


def _diagnosis(rows: list[Row], tested: str) -> dict[str, str]:
    alone = [row for row in rows if not row.get("method")]
    return {
        "diagnosed": _by_scheme(_of(rows, tested)),
        "diagnosed_real": _by_scheme([row for row in alone if row["scheme"].startswith("real")]),
        "classes": "".join(_classes(row) for row in alone[:1]),
        "permuted": "".join(spread(row, "balanced_accuracy") for row in alone if row["scheme"] == PERMUTED),
    }


def _classes(row: Row) -> str:
    """The diagnoses that were told apart.

    >>> _classes({"confusion": '{"NC": {}, "MCI": {}, "AD": {}}'})
    'NC, MCI and AD'
    """
    *others, last = json.loads(row["confusion"])
    return f"{', '.join(others)} and {last}"


def _completion(rows: list[Row], tested: str) -> dict[str, str]:
    own = [row for row in _of(rows, tested) if row["arm"] == SYNTHESISED]
    return {"completion": verdict(pd.DataFrame(own)) if own else ""}


def _power(rows: list[Row], tested: str) -> dict[str, str]:
    told = (
        f"{number(row, 'needed_independent', 0)} where errors are independent, "
        f"{number(row, 'needed_half_shared', 0)} where half of them are shared"
        for row in rows
        if row["difference"] == DIFFERENCE
    )
    return {"needed": "".join(told)}


def _sites(rows: list[Row], tested: str) -> dict[str, str]:
    told = (f"{direction_of(row)} at {row['site']} {spread(row, 'difference')} dB" for row in rows)
    return {"unseen_sites": "; ".join(told)}


def _probes(path: Path) -> dict[str, str]:
    """From rows that are in words already."""
    rows = {key: probe.get("rows", []) for key, probe in read_json(path).items()}
    return {
        "membership": "; ".join(f"{row[0]} {row[-1]}" for row in rows.get("memorisation", [])),
        "lesions": "; ".join(f"{row[1]} {row[2]} in {row[0]}" for row in rows.get("lesions", [])),
        "counterfactual": "; ".join(f"{row[0]} {row[1]}" for row in rows.get("counterfactual", [])),
    }


def _of(rows: list[Row], tested: str) -> list[Row]:
    return [row for row in rows if row.get("method") == tested]


def _by_direction(rows: list[Row], name: str) -> str:
    return "; ".join(f"{direction_of(row)} {spread(row, name)}" for row in rows if row.get(name) is not None)


def _by_scheme(rows: list[Row]) -> str:
    return "; ".join(f"{row['scheme']} {spread(row, 'balanced_accuracy')}" for row in rows)
