"""Install a trained model as the shipped model: fp16 weights and its card, with the commands that produced it.

pdsynth simulate cohort --subjects 700 --quick --randomise 0.65 --seed 7101 --anatomies heads --anatomies-share 0.65
pdsynth prepare cohort prepared --split 0.97,0.03,0
pdsynth train prepared run --recipe pds --budget 40m --seed 1 --device cpu
python benchmarks/detail_network.py heads people run/detailed --model run/model
python benchmarks/ship_model.py run/detailed

heads: the label maps 01 to 10 of real heads that SynthSeg (Billot et al. 2023, Apache-2.0) was trained on.
"""

from __future__ import annotations

import argparse
from datetime import date
from pathlib import Path

from pdsynth.methods import checkpoint
from pdsynth.weights import DEFAULT, weights_sha256

LIMIT_MB = 15
COMMANDS = [line.strip() for line in (__doc__ or "").splitlines() if line.strip().startswith(("pdsynth ", "python "))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    options = parser.parse_args()
    method, card = checkpoint.load(options.model)
    card |= {
        "made_by": COMMANDS,
        "made_on": f"{date.today().isoformat()}, one CPU thread (x86-64 with AVX512-BF16)",
        "training_data": "SIMULATED participants only: 65 % from label maps of ten real heads, 35 % from a template; "
        "65 % with drawn acquisitions, 35 % at three sites; the network for detail from fMRI to dMRI: 103 others from "
        "the same heads",
    }
    folder = checkpoint.save(method, DEFAULT, card, half=True)
    size = (folder / "model.safetensors").stat().st_size / 1e6
    if size > LIMIT_MB:
        raise SystemExit(f"the model has {size:.1f} MB, more than the limit of {LIMIT_MB} MB for the shipped model")
    print(f"{folder}: {size:.1f} MB, sha256 {weights_sha256(folder)}")


if __name__ == "__main__":
    main()
