"""Coverage of the 90 % intervals after calibration, by the number of participants used for calibration.

Usage: python benchmarks/calibration.py MODEL PREPARED [TEST_PREPARED] [--site NAME] [--out FILE.json]
Calibration uses participants outside the test split of PREPARED: for each of NUMBERS, that many are drawn, DRAWS times.
Coverage is measured on other participants: the test split of TEST_PREPARED, a folder without common participants, or
those who were not drawn. MODEL was trained on none of them. --site selects the participants of one site ("randomised":
the site of simulated participants whose acquisition parameters are drawn at random).
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
from pdsynth.evidence.calibration.compute import conformal_scale, interval_ratios
from pdsynth.types import Direction

NUMBERS = (9, 15, 30, 60, 120)
DRAWS = 40


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("prepared", type=Path, metavar="PREPARED")
    parser.add_argument("test", type=Path, nargs="?", metavar="TEST_PREPARED")
    parser.add_argument("--site")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "calibration.json")
    options = parser.parse_args()
    method, generator, rows = pdsynth.load(options.model, "cpu").method, np.random.default_rng(0), []
    people = [
        chosen(path, options.site, test) for path, test in ((options.prepared, False), (options.test, True)) if path
    ]
    for direction in Direction:
        ratios, *tested = (interval_ratios(method, each, direction) for each in people)
        rows.append(
            {"direction": direction.value, "participants": 0, "scale": 1.0, "held": held([ratios, *tested][-1], 1)}
        )
        for number in (n for n in NUMBERS if tested or n <= len(ratios) // 2):
            scales, shares = [], []
            for _ in range(DRAWS):
                drawn = generator.permutation(len(ratios))
                scales.append(conformal_scale([ratios[i] for i in drawn[:number]]))
                shares.append(held(tested[0] if tested else [ratios[i] for i in drawn[number:]], scales[-1]))
            row = {"direction": direction.value, "participants": number, "scale": round(float(np.mean(scales)), 3)}
            row |= {"held": round(float(np.mean(shares)), 4), "held_sd": round(float(np.std(shares, ddof=1)), 4)}
            rows.append(row)
            print(row, flush=True)
    result = {
        "date": date.today().isoformat(),
        "machine": f"{os.cpu_count()}-core {platform.machine().replace('_', '-')}",
        "data": "SIMULATED",
        "model": Path(options.model).name,
        "site": options.site,
        "participants": [each.participants for each in people],
        "draws": DRAWS,
        "rows": rows,
    }
    options.out.write_text(json.dumps(result, indent=1) + "\n")


def chosen(prepared: Path, site: str | None, test: bool) -> Pairs:
    """Whole scans of participants with both modalities inside or outside the test split, of one site if given."""
    pairs = Pairs.open(prepared)
    keep = (pairs.table["available"] == "both") & ((pairs.table["split"] == "test") == test)
    return pairs.where(keep & (pairs.table["site"] == site if site else True)).whole_scans()


def held(ratios: list[np.ndarray], scale: float) -> float:
    """Coverage: share of voxels whose ratio is at most scale, mean over participants."""
    return round(float(np.mean([np.mean(each <= scale) for each in ratios])), 4)


if __name__ == "__main__":
    main()
