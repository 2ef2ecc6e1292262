"""Calibrate the shipped model's uncertainty on new participants, and measure its coverage on others."""

import sys
from pathlib import Path

import pdsynth
from pdsynth.data.pairs import Pairs

work = Path(sys.argv[1] if len(sys.argv) > 1 else "example-study")

pairs = Pairs.open(work / "prepared")
scales = pdsynth.calibrate("default", pairs, work / "calibrated", device="cpu")
for name in ("default", work / "calibrated"):
    scores = pdsynth.evaluate(pdsynth.load(name, device="cpu"), pairs.test, ceiling=False)["methods"]["pds"]
    for direction, values in scores.items():
        coverage = values["coverage_90"]["mean"]
        factor = f", SD times {scales[direction].scale:.2f}" if name != "default" else ""
        print(f"{Path(name).name:10} {direction}  90 % intervals hold {100 * coverage:.1f} %{factor}")
