"""Score the models of a benchmark on fresh SIMULATED participants, whom nothing else used, under the benchmark's names.

Usage: python benchmarks/fresh_scores.py BENCHMARK FRESH OUT [RECIPE ...] [--jobs 2]
BENCHMARK is a folder of `pdsynth benchmark`; FRESH is a folder of `pdsynth prepare --split 0,0,1`. OUT is written as by
`pdsynth evaluate`, and `pdsynth roi OUT` and `pdsynth diagnose OUT` add to it. A model of `evaluate --model` has a name
of its own, so that these two would not find the recipes that they compare, such as population-mean and pds-ne-pa.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pdsynth import api, folders, manifest
from pdsynth.data.pairs import Pairs
from pdsynth.evaluation.provenance import provenance
from pdsynth.results.entries import run_folder

RECIPES = (
    *("pds", "local-ridge", "unet", "gan", "pds-ne", "pds-ne-pa", "pds-ne-pa-tr", "pds-refiner-only"),
    *("population-mean", "site-mean"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("benchmark", type=Path)
    parser.add_argument("fresh", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("recipes", nargs="*", default=RECIPES)
    parser.add_argument("--jobs", type=int, default=2)
    given = parser.parse_args()
    weights = {name: run_folder(given.benchmark, name) / "model" for name in given.recipes}
    models = {name: api.load(folder, "cpu") for name, folder in weights.items()}
    pairs, inputs = Pairs.open(given.fresh), [given.fresh, *weights.values()]
    with (
        folders.making(given.out, inputs=inputs) as work,
        manifest.recorded(work.folder, "evaluate", inputs=inputs, seed=0, split="test", samples=0) as entries,
    ):
        entries |= provenance(models, pairs)
        api.evaluate(models, pairs.test, work.folder, samples=0, jobs=given.jobs)


if __name__ == "__main__":
    main()
