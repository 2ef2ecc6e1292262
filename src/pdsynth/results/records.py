"""Conversion of dataclasses to JSON and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from enum import StrEnum
from math import isfinite, nan
from types import NoneType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

Record = TypeVar("Record")


def to_json(record: Any) -> dict[str, Any]:
    """A dataclass as a dict for JSON; a number that is not finite becomes None (null).

    >>> from pdsynth.statistics.resampling import Estimate
    >>> to_json(Estimate(0.5, 0.25, nan))
    {'value': 0.5, 'low': 0.25, 'high': None}
    """
    found: dict[str, Any] = _finite(asdict(record))
    return found


def from_json(kind: type[Record], content: Mapping[str, Any]) -> Record:
    """The inverse of `to_json`: a dataclass of type `kind`; null becomes nan in a field of type float.

    Types of fields are str, int, float, bool, StrEnum, dict, another such dataclass, a list of these, or a union of one
    of these with None. Keys of `content` without a field are ignored. Raises KeyError, TypeError or ValueError if the
    key of a field is missing or its value has another type.

    >>> from pdsynth.statistics.resampling import Estimate
    >>> from_json(Estimate, {"value": 0.5, "low": 0.25, "high": None})
    Estimate(value=0.5, low=0.25, high=nan)
    """
    hints = get_type_hints(kind)
    return kind(**{field.name: _value(hints[field.name], content[field.name]) for field in fields(kind)})  # type: ignore[arg-type]


def _value(hint: Any, value: Any) -> Any:
    kinds = get_args(hint)
    if NoneType in kinds:
        return None if value is None else _value(kinds[0], value)
    if get_origin(hint) is list:
        return [_value(kinds[0], each) for each in value]
    if get_origin(hint) is dict:
        return dict(value)
    if is_dataclass(hint):
        return from_json(hint, value)  # type: ignore[arg-type]
    if hint is float:
        return nan if value is None else float(value)
    if issubclass(hint, StrEnum):
        return hint(value)
    if not isinstance(value, hint):
        raise TypeError(f"{value!r} does not have the type {hint.__name__}")
    return value


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not isfinite(value) else value
