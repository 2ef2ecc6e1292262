"""Scores of recipes by the time of their training and by the number of people that they learn from, SIMULATED.

Usage: python benchmarks/budgets.py PREPARED FRESH WORK [ENTRY ...] [--out .../budgets.json]
ENTRY is RECIPE,BUDGET[,PEOPLE[,SEED]], such as pds,1h or pds-paper:small,4h,200,1; without entries, the file's are
printed. PREPARED has the training people, of whom the first PEOPLE of the training split are used (200 if it is left
out). FRESH are people whom nothing else used; they are scored once per entry. A budget is the time of training steps on
one core of the file's machine; the number of steps stands beside it. Trainings in WORK are resumed, and an entry of the
file is not made again. Recipes without steps have the budget 0.

Per entry and direction: psnr_brain (dB) of each fresh person's whole scan. Printed: its mean, the skill (0: the
population mean, 1: the oracle), and the difference from `pds` of the same budget and people with its 95 % interval.
"""

from __future__ import annotations

import argparse
import os
import platform
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from adaptation import psnr_of_people

from pdsynth import api
from pdsynth.data.pairs import Pairs, content
from pdsynth.files import read_json, write_json
from pdsynth.methods.base import Method, MethodConfig
from pdsynth.methods.controls import Oracle
from pdsynth.resources import seconds
from pdsynth.statistics.inference import bca_interval
from pdsynth.training import COST
from pdsynth.types import Direction, Size

PEOPLE, SEED = 200, 0
TESTED, FLOOR, CEILING = "pds", "population-mean", "oracle"


def whole(entry: str) -> str:
    """The entry with the number of people and the seed, if they were left out."""
    parts = entry.split(",")
    return ",".join([*parts, *(str(PEOPLE), str(SEED))[len(parts) - 2 :]])


def made(entry: str, train: Pairs, fresh: Pairs, work: Path) -> dict[str, Any]:
    """Train an entry and score it."""
    recipe, budget, people, seed = entry.split(",")
    names = train.table["participant_id"].unique()[: int(people)]
    if len(names) < int(people):
        raise SystemExit(f"{entry}: the training split has {len(names)} people")
    chosen = train.where(train.table["participant_id"].isin(names))
    about: dict[str, Any] = {"date": date.today().isoformat()}
    if recipe == CEILING:
        method: Method = Oracle(MethodConfig(fresh.grid.shape))
    elif budget == "0":
        method = api.fit_controls(chosen, names=[recipe])[recipe]
    else:
        run = work / entry.replace(",", "_").replace(":", "-")
        name, _, size = recipe.partition(":")
        model = api.fit(
            name,
            chosen,
            run=run,
            budget=seconds(budget),
            seed=int(seed),
            device="cpu",
            resume=True,
            size=size or Size.FULL,
        )
        method = model.method
        about["cost"] = read_json(run / COST)
    of_people = psnr_of_people(method, fresh)
    return about | {"psnr_brain": {direction: np.round(people, 3).tolist() for direction, people in of_people.items()}}


def report(entries: dict[str, Any]) -> None:
    """Print a line per entry and direction."""
    for entry, found in sorted(entries.items(), key=lambda each: each[0].split(",")[1:]):
        recipe, *rest = entry.split(",")
        for direction in Direction:
            own, floor, top = (
                np.array(each["psnr_brain"][direction.value])
                for each in (found, entries[f"{FLOOR},0,{rest[1]},{SEED}"], entries[f"{CEILING},0,{rest[1]},{SEED}"])
            )
            skill = (own.mean() - floor.mean()) / (top.mean() - floor.mean())
            words = f"{entry:32s} {direction.value} {own.mean():.2f} dB, skill {skill:.2f}"
            tested = entries.get(",".join([TESTED, *rest]))
            if tested and recipe != TESTED:
                difference = own - np.array(tested["psnr_brain"][direction.value])
                low, high = bca_interval(difference)
                words += f", minus {TESTED} {difference.mean():+.2f} ({low:+.2f} to {high:+.2f})"
            steps = sum(stage["steps"] for stage in found.get("cost", {}).values())
            print(words + (f", {steps} steps" if steps else ""))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prepared", type=Path, metavar="PREPARED")
    parser.add_argument("fresh", type=Path, metavar="FRESH")
    parser.add_argument("work", type=Path, metavar="WORK")
    parser.add_argument("entries", nargs="*", metavar="ENTRY")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "budgets.json")
    given = parser.parse_args()
    torch.set_num_threads(1)
    train, fresh = Pairs.open(given.prepared).train, Pairs.open(given.fresh).test.whole_scans()
    about = {
        "machine": f"one core of {os.cpu_count()}, {platform.machine().replace('_', '-')}",
        "data": "SIMULATED",
        "train_sha256": content(given.prepared),
        "fresh_sha256": content(given.fresh),
    }
    results = read_json(given.out) or {**about, "entries": {}}
    if any(results[name] != about[name] for name in ("train_sha256", "fresh_sha256")):
        parser.error(f"{given.out} has entries of other people; name another --out")
    asked = [whole(entry) for entry in given.entries]
    people = {entry.split(",")[2] for entry in asked}
    for entry in [*(f"{name},0,{count},{SEED}" for count in people for name in (FLOOR, CEILING)), *asked]:
        if entry not in results["entries"]:
            found = made(entry, train, fresh, given.work)
            results = read_json(given.out) or results  # another call may have added its entry meanwhile
            results["entries"][entry] = found
            write_json(given.out, results)
    report(results["entries"])


if __name__ == "__main__":
    main()
