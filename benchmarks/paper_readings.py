"""Scores of readings of the paper: `pds-paper:small` with some of its settings changed, and the population mean.

Usage: python benchmarks/paper_readings.py PREPARED WORK [--set NAME=VALUE ...] [--budget 1h] [--out FILE.json]
One call trains and scores one entry on one core; FILE.json has all entries. An entry that is in the file is not trained
again, and a stopped training resumes from its checkpoint in WORK. `--set` accepts the settings of `pds-paper`
(docs/departures.md); the entry without changes is `pds-paper:small` itself. An entry has psnr_brain (dB, mean over the
test participants and its 95 % interval) of the refined output, and the mean of psnr_brain of the drafts.
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

from pdsynth import api
from pdsynth.data.pairs import Pairs, content
from pdsynth.evaluation.metrics import dilate, psnr
from pdsynth.files import read_json, write_json
from pdsynth.methods.pds_paper import PDSPaper, readings
from pdsynth.recipes import build
from pdsynth.resources import seconds
from pdsynth.statistics.inference import bca_interval
from pdsynth.training import COST
from pdsynth.types import Direction

RECIPE, CONTROL, SEED = "pds-paper", "population-mean", 0


def entry_name(settings: dict[str, str], budget: str) -> str:
    """The key of an entry: its settings, sorted by name, and the budget."""
    return " ".join([*(f"{name}={value}" for name, value in sorted(settings.items())), f"budget={budget}"])


@torch.inference_mode()
def psnr_of(method: PDSPaper, test: Pairs) -> tuple[dict[str, Any], dict[str, float]]:
    """psnr_brain (dB) of one refined sample per test participant, with its interval, and the mean of the drafts.

    Both are clipped to [0, 1] and compared in the dilated brain mask of the real scan.
    """
    refined_scores: dict[str, Any] = {}
    draft_scores: dict[str, float] = {}
    for direction in Direction:
        scores = []
        for row in range(len(test)):
            batch = test.batch(np.array([row]))
            draft = method.draft(batch, direction, torch.Generator().manual_seed(row), method.config.steps)
            real, brain = test.volume(direction.target, row), dilate(test.brain(direction.target, row))
            volumes = (method.refined(draft, batch, direction), draft)
            scores.append([psnr(volume.clamp(0, 1)[0, 0].numpy(), real, brain) for volume in volumes])
        refined, drafts = np.array(scores).T
        ci95 = list(bca_interval(refined, seed=SEED))
        refined_scores[direction.value] = {"mean": float(refined.mean()), "ci95": ci95}
        draft_scores[direction.value] = round(float(drafts.mean()), 3)
    return refined_scores, draft_scores


def psnr_brain(scores: dict[str, Any]) -> dict[str, Any]:
    """The mean and interval of psnr_brain in each direction."""
    return {direction: score["psnr_brain"] for direction, score in scores.items()}


def trained_and_scored(pairs: Pairs, work: Path, settings: dict[str, str], budget: str) -> dict[str, Any]:
    """Train and score one entry of the file. The run is in a subfolder of `work`; a stopped run is resumed."""
    run = work / entry_name(settings, budget).replace(" ", "_")
    model = api.fit(
        RECIPE,
        pairs.train,
        run=run,
        budget=seconds(budget),
        seed=SEED,
        device="cpu",
        resume=True,
        size="small",
        settings=settings,
    )
    test = pairs.test.whole_scans()
    method = model.method
    assert isinstance(method, PDSPaper)
    scores, drafts = psnr_of(method, test)
    return {
        "date": date.today().isoformat(),
        "readings": {name: getattr(method.config, name) for name in readings()},
        "changed": settings,
        "budget": budget,
        "cost": read_json(run / COST),
        "psnr_brain": scores,
        "draft_psnr_brain": drafts,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prepared", type=Path, metavar="PREPARED")
    parser.add_argument("work", type=Path, metavar="WORK")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--budget", default="1h")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "paper_readings.json")
    given = parser.parse_args()
    torch.set_num_threads(1)
    pairs = Pairs.open(given.prepared)
    settings = dict(change.split("=", 1) for change in given.set)
    build(RECIPE, pairs.train, size="small", changes=settings)  # raises an error for an unknown setting
    cohort = {
        "machine": f"one core of {os.cpu_count()}, {platform.machine().replace('_', '-')}",
        "data": "SIMULATED" if pairs.simulated else pairs.root.name,
        "prepared_sha256": content(given.prepared),
        "train_participants": pairs.train.participants,
        "test_participants": pairs.test.participants,
    }
    results = read_json(given.out)
    if results and results["prepared_sha256"] != cohort["prepared_sha256"]:
        parser.error(f"{given.out} has entries of another prepared folder; name another --out")
    if not results:
        control = api.fit_controls(pairs.train, names=[CONTROL])
        scores = api.evaluate(control, pairs.test, ceiling=False)["methods"][CONTROL]
        results = cohort | {CONTROL: psnr_brain(scores), "entries": {}}
    name = entry_name(settings, given.budget)
    if name not in results["entries"]:
        entry = trained_and_scored(pairs, given.work, settings, given.budget)
        # another call may have added its entry during the training
        results = read_json(given.out) or results
        results["entries"][name] = entry
        write_json(given.out, results)
    entry = results["entries"][name]
    for direction in Direction:
        scored = (entry["psnr_brain"][direction]["mean"], entry["draft_psnr_brain"][direction])
        mean = results[CONTROL][direction]["mean"]
        print(f"{direction}: {scored[0]:.2f} dB, drafts {scored[1]:.2f}, {CONTROL} {mean:.2f}  ({name})")


if __name__ == "__main__":
    main()
