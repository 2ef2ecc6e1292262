"""Spread of scores over repeated trainings of a recipe, which intervals over participants do not include.

Usage: python benchmarks/seeds.py TRAIN_PREPARED TEST_PREPARED [--recipe NAME ...] [--budget 5m] [--out FILE.json]
Each recipe is trained with each of SEEDS on the training split of one folder, and scored on the test split of another
folder without common participants.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
from datetime import date
from pathlib import Path

import numpy as np

from pdsynth import fit
from pdsynth.atlas import evidence_regions, region_means
from pdsynth.data.pairs import Pairs
from pdsynth.evaluation.estimates import predictions
from pdsynth.evaluation.metrics import dilate, psnr
from pdsynth.evidence.effects.compute import effect_recovery
from pdsynth.resources import seconds
from pdsynth.types import Direction

SEEDS = (1, 2, 3)
RECIPES = ("pds", "pds-ne", "unet")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", type=Path, metavar="TRAIN_PREPARED")
    parser.add_argument("test", type=Path, metavar="TEST_PREPARED")
    parser.add_argument("--recipe", nargs="+", default=RECIPES, metavar="NAME")
    parser.add_argument("--budget", default="5m")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "seeds.json")
    options = parser.parse_args()
    train, test = Pairs.open(options.train).train, Pairs.open(options.test).test.whole_scans()
    atlas, groups, sites = evidence_regions(test.grid), test.table["diagnosis"].tolist(), test.table["site"].tolist()
    real = {d: np.stack([test.volume(d.target, row) for row in range(len(test))]) for d in Direction}
    rows = []
    for recipe in options.recipe:
        found: dict[str, list[tuple[float, float]]] = {d.value: [] for d in Direction}
        for seed in SEEDS:
            with tempfile.TemporaryDirectory() as run:
                model = fit(recipe, train, run=run, budget=seconds(options.budget), seed=seed, device="cpu")
            for d in Direction:
                outputs = predictions(model.method, test, d)
                scores = [psnr(outputs[i], real[d][i], dilate(test.brain(d.target, i))) for i in range(len(test))]
                means = (region_means(volumes, atlas) for volumes in (real[d], outputs))
                effect = effect_recovery(*means, groups, sites=sites)
                found[d.value].append((float(np.mean(scores)), effect.slope.value))
                print(recipe, seed, d.value, found[d.value][-1], flush=True)
        for direction, values in found.items():
            names = ("psnr_brain", "effect_slope")
            columns = dict(zip(names, np.array(values).T, strict=True))
            scores_of_seeds = {name: [round(float(v), 3) for v in column] for name, column in columns.items()}
            spread = {f"{name}_sd": round(float(np.std(column, ddof=1)), 4) for name, column in columns.items()}
            rows.append({"recipe": recipe, "direction": direction, **scores_of_seeds, **spread})
    result = {
        "date": date.today().isoformat(),
        "machine": f"{os.cpu_count()}-core {platform.machine().replace('_', '-')}",
        "data": "SIMULATED",
        "budget": options.budget,
        "seeds": SEEDS,
        "train_participants": train.participants,
        "test_participants": len(test),
        "rows": rows,
    }
    options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
