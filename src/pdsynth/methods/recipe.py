"""A named run of a method: what stands behind `--recipe NAME`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Recipe:
    """A run that can be named on the command line. steps: 0 for a method that is fitted in closed form.

    small: what changes for a CPU's budget (`--size small`), the wiring being the same; empty where nothing does.
    precision is Lightning's word for a device that is fast at it; `resolve_precision` says what else stands in.
    """

    name: str
    summary: str
    method: str
    settings: dict[str, Any] = field(default_factory=dict)
    steps: int = 0
    small: dict[str, Any] = field(default_factory=dict)
    precision: str = "bf16-mixed"
