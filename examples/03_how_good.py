"""Score the shipped model and two controls on participants with both scans, with own and with shuffled sources."""

import sys
from pathlib import Path

import pdsynth
from pdsynth import api

work = Path(sys.argv[1] if len(sys.argv) > 1 else "example-study")

if __name__ == "__main__":
    cohort = pdsynth.cohorts.bids(work / "bids")
    model = pdsynth.load("default", device="cpu")
    pairs = pdsynth.prepare(
        cohort, out=work / "prepared", split=(0.5, 0.0, 0.5), preprocessing=model.preprocessing, jobs=2
    )
    controls = api.fit_controls(pairs.train, names=("population-mean", "local-ridge"))
    results = pdsynth.evaluate({"default": model, **controls}, pairs.test)
    for name, directions in results["methods"].items():
        for direction, scores in directions.items():
            own, low, high = scores["psnr_brain"]["mean"], *scores["psnr_brain"]["ci95"]
            shuffled = scores["shuffled_source_psnr_brain"]["mean"]
            print(f"{name:16} {direction}  {own:.1f} dB ({low:.1f} to {high:.1f}), another's source {shuffled:.1f}")
