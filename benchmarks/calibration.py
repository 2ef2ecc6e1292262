"""What calibration makes of the 90 % intervals of people who took no part in it, by the number of those who did.

Usage: python benchmarks/calibration.py MODEL CALIBRATION_PREPARED TEST_PREPARED [--out FILE.json]
The calibrating participants are those outside the test split of the one folder, drawn DRAWS times for each of NUMBERS;
the others are the test split of the other, which shares nobody with it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from datetime import date
from pathlib import Path

import numpy as np

import pdsynth
from pdsynth.data.pairs import Pairs
from pdsynth.evaluation.calibration import conformal_scale, interval_ratios
from pdsynth.types import Direction

NUMBERS = (9, 15, 30, 60, 120)
DRAWS = 40


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("calibration", type=Path, metavar="CALIBRATION_PREPARED")
    parser.add_argument("test", type=Path, metavar="TEST_PREPARED")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "calibration.json")
    options = parser.parse_args()
    every = Pairs.open(options.calibration)
    known = every.where((every.table["split"] != "test") & (every.table["available"] == "both")).whole_scans()
    others = Pairs.open(options.test).test.whole_scans()
    method, generator, rows = pdsynth.load(options.model, "cpu").method, np.random.default_rng(0), []
    for direction in Direction:
        ratios, unseen = (interval_ratios(method, pairs, direction) for pairs in (known, others))
        rows.append({"direction": direction.value, "participants": 0, "scale": 1.0, "held": held(unseen, 1.0)})
        for number in NUMBERS:
            drawn = [generator.permutation(len(ratios))[:number] for _ in range(DRAWS)]
            scales = [conformal_scale([ratios[i] for i in chosen]) for chosen in drawn]
            shares = [held(unseen, scale) for scale in scales]
            row = {"direction": direction.value, "participants": number, "scale": round(float(np.mean(scales)), 3)}
            row |= {"held": round(float(np.mean(shares)), 4), "held_sd": round(float(np.std(shares, ddof=1)), 4)}
            rows.append(row)
            print(row, flush=True)
    result = {
        "date": date.today().isoformat(),
        "machine": f"{os.cpu_count()}-core {platform.machine().replace('_', '-')}",
        "data": "SIMULATED",
        "model": options.model,
        "test_participants": len(others),
        "draws": DRAWS,
        "rows": rows,
    }
    options.out.write_text(json.dumps(result, indent=1) + "\n")


def held(ratios: list[np.ndarray], scale: float) -> float:
    """Share of voxels within their interval times scale, the mean over participants."""
    return round(float(np.mean([np.mean(each <= scale) for each in ratios])), 4)


if __name__ == "__main__":
    main()
