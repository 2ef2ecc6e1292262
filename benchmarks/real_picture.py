"""A picture of real scans, hidden in turn, and of the scans that a model synthesises in their place.

Usage: python benchmarks/real_picture.py BIDS [BIDS ...] [--model default] [--out docs/images/real-volunteers.png]
Each folder has one participant with both scans. A row shows one person and one direction: the source, the synthesised
scan and the hidden scan in the same three planes, on the voxels of the source. The hidden scan is registered rigidly to
the source. Each image is scaled by its own median in the brain.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from detail import Pair

from pdsynth.cohorts.bids import bids
from pdsynth.synthesis import Model
from pdsynth.types import Direction, Modality

HEIGHTS = (0.4, 0.55, 0.7)  # of the planes, as shares of the brain's extent
BRIGHTEST = 2.2  # medians of the brain
NAMES = {Modality.FMRI: "BOLD", Modality.DMRI: "DWI"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, metavar="BIDS")
    parser.add_argument("--model", default="default")
    parser.add_argument("--out", type=Path, default=Path("docs/images/real-volunteers.png"))
    options = parser.parse_args()
    model = Model.load(options.model, "cpu")
    rows = []
    for folder in options.folders:
        session = next(session for _, session in bids(folder) if len(session.scans) == 2)
        pair = Pair.of(session.scans, model)
        for direction in Direction:
            source, real = pair.standard[direction.source], pair.hidden(direction)
            made = pair.synthesised(model, direction)
            brain = source.native_brain & (real > 0)
            images = [np.where(brain, v / np.median(v[brain]), 0) for v in (source.mean.data, made.data, real)]
            z = np.flatnonzero(brain.any((0, 1)))
            planes = [z[int(share * (len(z) - 1))] for share in HEIGHTS]
            names = [f"{NAMES[direction.source]} (source)", f"{NAMES[direction.target]}, synthesised"]
            names.append(f"{NAMES[direction.target]}, real")
            box = tuple(slice(w.min(), w.max() + 1) for w in np.nonzero(brain)[:2])
            rows.append([(name, [image[(*box, p)] for p in planes]) for name, image in zip(names, images, strict=True)])
    figure, axes = plt.subplots(len(rows), 9, figsize=(13.5, 1.75 * len(rows)), facecolor="black")
    for row, panels in zip(axes, rows, strict=True):
        for third, (name, planes_of) in enumerate(panels):
            for k, plane in enumerate(planes_of):
                axis = row[3 * third + k]
                axis.imshow(np.rot90(plane), cmap="gray", vmin=0, vmax=BRIGHTEST, interpolation="nearest")
                axis.axis("off")
            row[3 * third + 1].set_title(name, color="white", fontsize=11)
    figure.tight_layout(pad=0.3)
    figure.savefig(options.out, dpi=75, facecolor="black")


if __name__ == "__main__":
    main()
