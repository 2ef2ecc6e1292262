"""Result tables by their file names, and their cells in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pdsynth.report import words
from pdsynth.results.tables import read_table
from pdsynth.types import Direction

EFFECTS, COMPLETED_EFFECTS = "effects.tsv", "completed_effects.tsv"
AGREEMENT, GROUPS = "agreement.tsv", "groups.tsv"
DIAGNOSIS, PATTERN_LOSS, COMPLETION, POWER = "table5.tsv", "table9.tsv", "completion.tsv", "power.tsv"
EMBEDDING, SEPARATION = "embedding.tsv", "separation.tsv"
SITES, PROBES = "sites.tsv", "probes.json"
BY_ROI, BY_DIAGNOSE = (
    (EFFECTS, COMPLETED_EFFECTS, AGREEMENT, GROUPS),
    (DIAGNOSIS, PATTERN_LOSS, COMPLETION, POWER, EMBEDDING, SEPARATION),
)

Row = dict[str, Any]


def rows_of(path: Path) -> list[Row] | None:
    """Rows of a table, what is n/a or empty as None; None where there is no such file."""
    if not path.exists():
        return None
    table = read_table(path)
    return table.astype(object).where(table.notna() & (table != ""), None).to_dict("records") or None  # type: ignore[return-value]


def direction_of(row: Row) -> str:
    """The row's direction in words.

    >>> direction_of({"direction": "fmri_to_dmri"})
    'fMRI → dMRI'
    """
    return words.DIRECTIONS[Direction(row["direction"])]


def number(row: Row, name: str, decimals: int = 2) -> str:
    """A cell rounded; a dash where it holds nothing."""
    return words.number(row.get(name), decimals)


def spread(row: Row, name: str, decimals: int = 2) -> str:
    """A cell with its interval, where it has one.

    >>> spread({"r": 0.5, "r_low": 0.41, "r_high": 0.6}, "r")
    '0.50 (0.41 to 0.60)'
    """
    between = words.interval(row.get(f"{name}_low"), row.get(f"{name}_high"), decimals)
    return f"{number(row, name, decimals)}{f' ({between})' if between else ''}"


def p_value(value: float | None) -> str:
    """To three decimals; a dash where there was no test.

    >>> p_value(0.0004)
    '< 0.001'
    """
    if value is None:
        return "\N{EN DASH}"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
