"""Scores the models of a benchmark on a cohort that played no part in it, nor in any choice.

Usage: pdsynth simulate COHORT --subjects 60 --quick --seed 99; pdsynth prepare COHORT PREPARED --split 0,0,1;
python benchmarks/fresh_cohort.py PREPARED BENCHMARK [--out benchmarks/results/fresh_cohort.json]
The result has, of each method, PSNR in the brain with its 95 % interval, and `pds` less the method, paired.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from datetime import date
from pathlib import Path

import pdsynth
from pdsynth.data.pairs import Pairs

METHODS = (
    *("pds", "pds-refiner-only", "pds-ne-pa-tr", "pds-ne-pa", "pds-ne", "pds-unconditioned", "local-ridge"),
    *("unet", "gan", "pgan", "sagan", "psagan", "u-ddim", "sa-ddpm", "ldm", "dit", "adm"),
    *("gradient-boosting", "voxel-mlp", "voxelwise-ridge", "coarse-ridge", "population-mean"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prepared", type=Path)
    parser.add_argument("benchmark", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "fresh_cohort.json")
    options = parser.parse_args()
    pairs = Pairs.open(options.prepared).test
    models = {name: pdsynth.load(options.benchmark / "runs" / name / "model", "cpu") for name in METHODS}
    found = pdsynth.evaluate(models, pairs)
    result = {
        "date": date.today().isoformat(),
        "machine": f"{os.cpu_count()}-core {platform.machine().replace('_', '-')}",
        "simulated": found["simulated"],
        "n_participants": found["n_participants"],
        "psnr_brain": {
            name: {direction: scores[direction]["psnr_brain"] for direction in scores}
            for name, scores in found["methods"].items()
        },
        "pds_less": found["comparisons"],
    }
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    for row in found["comparisons"]:
        low, high = row["ci95"]
        print(row["direction"], row["against"], f"{row['psnr_brain_difference']:+.3f} [{low:+.3f}, {high:+.3f}]")


if __name__ == "__main__":
    main()
