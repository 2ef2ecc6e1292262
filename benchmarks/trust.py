"""Whether the round trip of `pdsynth synthesize` tells good outputs from bad ones, and how well its intervals cover.

Usage: python benchmarks/trust.py PREPARED [PREPARED ...] [--model default] [--adapted MODEL ...] [--out trust.json]
Each folder is SIMULATED and has a test split of people whom the model has not seen; `--adapted` names one model per
folder, adapted to its scanner. Per test person and direction: PSNR of the output in the brain of the real target, and
two scores that need no target, `round_trip_db` and the mean SD that the model gives. Per score, over the people of
each folder and over all:

rejection: outputs are left out in the order of the score, the worst first. The mean error of the rest, averaged over
    all shares that are left, lies between that of a random order (0) and that of the order of the true errors (1).
worst_fifth: probability that a score ranks an output of the worst fifth below another output; 0.5 is chance.

coverage: share of voxels whose real value is in the 90 % interval, of the model and of the adapted one.
"""

from __future__ import annotations

import argparse
import platform
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import roc_auc_score

from pdsynth import api
from pdsynth.data.pairs import Pairs
from pdsynth.evaluation.estimates import source_only
from pdsynth.evaluation.metrics import dilate, psnr
from pdsynth.evidence.calibration.compute import interval_ratios
from pdsynth.files import write_json
from pdsynth.methods.base import Method
from pdsynth.synthesis import round_trip_psnr
from pdsynth.types import Direction

SCORES = ("round_trip_db", "minus_sd")
RESAMPLES = 1000


@torch.inference_mode()
def scored(method: Method, pairs: Pairs, folder: str) -> pd.DataFrame:
    """One row per whole scan and direction, with the columns folder, direction, error (mean squared) and SCORES."""
    rows = []
    for row in range(len(pairs)):
        for direction in Direction:
            batch = source_only(pairs.batch(np.array([row]), directions=[direction]), direction, method)
            estimate, sd = method.estimate(batch, direction)
            real, brain = pairs.volume(direction.target, row), dilate(pairs.brain(direction.target, row))
            source = batch.sources[direction]
            bval = float(pairs.table["dmri_bval"].iloc[row])
            rows.append(
                {
                    "folder": folder,
                    "direction": direction.value,
                    "error": 10 ** (-psnr(estimate[0, 0].numpy(), real, brain) / 10),
                    "round_trip_db": round_trip_psnr(method, source, estimate, direction, bval),
                    "minus_sd": np.nan if sd is None else -float(sd[source.brain > 0].mean()),
                }
            )
    return pd.DataFrame(rows)


def rejection(score: np.ndarray, error: np.ndarray) -> float:
    """1 if the score orders the errors perfectly, 0 for a random order; negative if it is worse than that."""

    def left(order: np.ndarray) -> float:
        sums = np.cumsum(error[order])
        return float(np.mean(sums / np.arange(1, len(sums) + 1)))

    best, random = left(np.argsort(error)), error.mean()
    return float((random - left(np.argsort(-score))) / (random - best))


def worst_fifth(score: np.ndarray, error: np.ndarray) -> float:
    """Area under the ROC curve for the outputs with the largest fifth of the errors."""
    return float(roc_auc_score(error >= np.quantile(error, 0.8), -score))


def summary(table: pd.DataFrame) -> dict[str, Any]:
    """Both measures of each score with 95 % bootstrap intervals over outputs, and the number of outputs."""
    generator = np.random.default_rng(0)
    found: dict[str, Any] = {"outputs": len(table), "psnr": round(float(-10 * np.log10(table["error"]).mean()), 2)}
    error = table["error"].to_numpy()
    draws = [generator.integers(len(table), size=len(table)) for _ in range(RESAMPLES)]
    for name in SCORES:
        score = table[name].to_numpy()
        for measure in (rejection, worst_fifth):
            low, high = np.quantile([measure(score[d], error[d]) for d in draws], [0.025, 0.975])
            found[f"{name} {measure.__name__}"] = [round(v, 3) for v in (measure(score, error), low, high)]
    return found


def coverage(method: Method, pairs: Pairs) -> dict[str, float]:
    """Share of voxels inside the 90 % interval, the mean over people, by direction."""
    inside = {d: [np.mean(each <= 1) for each in interval_ratios(method, pairs, d)] for d in Direction}
    return {direction.value: round(float(np.mean(shares)), 3) for direction, shares in inside.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prepared", type=Path, nargs="+")
    parser.add_argument("--model", default="default")
    parser.add_argument("--adapted", nargs="*", default=[])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "trust.json")
    given = parser.parse_args()
    method = api.load(given.model, "cpu").method
    tests = {folder.name: Pairs.open(folder).test.whole_scans() for folder in given.prepared}
    table = pd.concat([scored(method, pairs, name) for name, pairs in tests.items()])
    results: dict[str, Any] = {"date": date.today().isoformat(), "machine": platform.machine(), "data": "SIMULATED"}
    for direction, rows in table.groupby("direction"):
        results[str(direction)] = {"all": summary(rows)} | {
            str(name): summary(part) for name, part in rows.groupby("folder")
        }
    adapted = dict(zip(tests, given.adapted, strict=False))
    results["coverage"] = {
        name: {"as it is": coverage(method, pairs)}
        | ({"adapted": coverage(api.load(adapted[name], "cpu").method, pairs)} if name in adapted else {})
        for name, pairs in tests.items()
    }
    write_json(given.out, results)
    print(results)


if __name__ == "__main__":
    main()
