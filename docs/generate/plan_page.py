"""The page that plans a study: hours, storage, memory and cost, computed from measured units."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pdsynth.recipes import RECIPES

URI = "how-to/plan.md"
UNITS = Path(__file__).parents[2] / "benchmarks" / "results" / "plan_units.json"
PAIRS = (500, 5_000, 56_000)
TRAIN, TEST = 0.8, 0.1  # fractions of the participants, the default of `prepare --split`
PRICE = 0.05  # per core hour: an example, not a quotation
MISSING = "not measured"
STEPS = ("prepare", "train", "synthesize", "evaluate")


@dataclass(frozen=True)
class Machine:
    """A machine to plan for: its name, the processes of one thread that it runs at a time, and whether it has GPUs."""

    name: str
    processes: int
    gpus: bool = False


MACHINES = (
    Machine("laptop, 2 processes", 2),
    Machine("workstation, 8 processes", 8),
    Machine("one GPU, 8 processes", 8, gpus=True),
    Machine("8 GPUs, 64 processes", 64, gpus=True),
    Machine("CPU cluster, 100 processes", 100),
)


def plan(units: dict[str, Any], pairs: int, machine: Machine, spacing: int) -> dict[str, float | None]:
    """Hours of each step of a study, and its core hours; None for what was not measured.

    A study prepares `pairs` pairs, trains `pds` on 80 % of them, evaluates it on 10 %, and synthesises as many missing
    scans as it has pairs. units: the content of plan_units.json. spacing: voxel size of the grid, mm. Steps that run in
    processes take pairs * seconds of one / speed. The speed is the number of processes; for `prepare` and `synthesize`,
    it is multiplied by the efficiency that was measured with two. Training takes steps * seconds of a step, and a fit
    in closed form whose time is proportional to the pairs; it runs on one machine, whatever the number of processes.
    The core hours are those of single processes. The sum is None if a part of it is.
    """
    copied, four = units["copied"], spacing == 4
    step, training = copied["training_step_seconds"], copied["training"]
    evaluation = copied["evaluate"][str(spacing)]["local-ridge"]
    prepare = pairs * units["prepare"][str(spacing)]["processor_seconds"]
    synthesize = pairs * units["synthesize"]["processor_seconds"] if four else None
    evaluate = TEST * pairs * evaluation
    steps, fit = RECIPES["pds"].steps * step["pds"], TRAIN * pairs * training["fit_seconds_per_participant"]
    train = steps + fit if four and not machine.gpus else None
    parts = (prepare, synthesize, evaluate, None if train is None else steps * step["threads"] + fit)
    total = None if None in parts else sum(part for part in parts if part is not None)

    def speed(step: str) -> float:
        efficiency = copied["speed_of_two_jobs"][step] / 2
        return machine.processes * efficiency if machine.processes > 1 else 1

    def hours(seconds: float | None, speed: float = 1) -> float | None:
        return None if seconds is None else seconds / speed / 3600

    return {
        "prepare": hours(prepare, speed("prepare")),
        "train": hours(train),
        "synthesize": hours(synthesize, speed("synthesize")),
        "evaluate": hours(evaluate, machine.processes),
        "core hours": hours(total),
    }


def gigabytes(units: dict[str, Any], pairs: int, spacing: int) -> tuple[float, float]:
    """GB of the prepared folder, and of as many synthesised scans (estimate and SD) as pairs."""
    pair = units["prepare"][str(spacing)]
    return pairs * (pair["bytes"] + pair["record_bytes"]) / 1e9, pairs * units["synthesize"]["bytes"] / 1e9


def shown(value: float | None) -> str:
    """A number with two digits, or without decimals from 10 on; below 0.1 that it is so.

    >>> shown(0.0312), shown(0.312), shown(1234.5), shown(None)
    ('under 0.1', '0.31', '1,234', 'not measured')
    """
    if value is None:
        return MISSING
    if value < 0.1:
        return "under 0.1"
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def page() -> str:
    """The page in Markdown: the text of plan.md.j2 with the units and the tables."""
    units = json.loads(UNITS.read_text())
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        autoescape=False,
        keep_trailing_newline=True,
    )
    return templates.get_template("plan.md.j2").render(
        units=units,
        copied=units["copied"],
        four=units["prepare"]["4"],
        two=units["prepare"]["2"],
        steps=RECIPES["pds"].steps,
        price=PRICE,
        missing=MISSING,
        hours={spacing: list(_hours(units, spacing)) for spacing in (4, 2)},
        storage=list(_storage(units)),
        seconds=lambda unit: f"{unit['processor_seconds']:.1f} s",
        mb=lambda value: f"{value:,.0f} MB",
        disk=lambda pair: f"{(pair['bytes'] + pair['record_bytes']) / 1e6:.2f} MB",
    )


def _hours(units: dict[str, Any], spacing: int) -> Iterator[list[str]]:
    for pairs in PAIRS:
        for machine in MACHINES:
            found = plan(units, pairs, machine, spacing)
            yield [f"{pairs:,}", machine.name, *(shown(found[step]) for step in STEPS)]


def _storage(units: dict[str, Any]) -> Iterator[list[str]]:
    for pairs in PAIRS:
        for spacing in (4, 2):
            total = plan(units, pairs, MACHINES[0], spacing)["core hours"]
            memory, cost = units["prepare"][str(spacing)]["resident_mb"], None if total is None else total * PRICE
            numbers = (*gigabytes(units, pairs, spacing), memory, total, cost)
            yield [f"{pairs:,}", f"{spacing} mm", *map(shown, numbers)]
