"""Rows of result tables for the tests of what is made of them."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, TypeVar, get_type_hints

from pdsynth.statistics.resampling import Estimate

Row = TypeVar("Row")
NAN = float("nan")
UNKNOWN: dict[Any, Any] = {str: "", int: 0, float: NAN, bool: False, Estimate: Estimate(NAN, NAN, NAN)}


def filled(row: type[Row], **given: Any) -> Row:
    """A row with the given fields, the others being not known (numbers of participants 0)."""
    hints = get_type_hints(row)
    return row(**{field.name: UNKNOWN[hints[field.name]] for field in fields(row) if field.name not in given} | given)
