"""Gain of `pdsynth adapt` on three SIMULATED scanners that the model has not seen, by the number of pairs.

Usage: python benchmarks/adaptation.py WORK [--model default] [--out benchmarks/results/adaptation.json]
Each scanner has protocols and coil of its own, and 70 people: up to 50 to adapt, 20 in the test split. PSNR in the
brain of the test people, in dB: of the model as it is, adapted with 3 to 50 pairs or with single scans (of 10 or 50
people, half of whom have the fMRI and half the dMRI), and of `local-ridge` and `population-mean`, fitted on 50 pairs;
of `local-ridge` and of `pds`, trained for 1,500 steps, on 200 other people, too. `coverage` has the share of voxels
inside the 90 % intervals, as it is and after adaptation with 10 pairs.
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import date
from pathlib import Path

import numpy as np
from torch import Tensor
from trust import coverage

from pdsynth import api
from pdsynth.adaptation import adapt
from pdsynth.cohorts.bids import bids
from pdsynth.cohorts.simulated import sites
from pdsynth.cohorts.simulated.cohort import simulate
from pdsynth.cohorts.simulated.sites import DmriProtocol, FmriProtocol, Site
from pdsynth.data.batch import PairBatch
from pdsynth.data.pairs import Pairs
from pdsynth.data.prepare import prepare
from pdsynth.evaluation.estimates import predictions
from pdsynth.evaluation.metrics import dilate, psnr
from pdsynth.files import write_json
from pdsynth.methods.base import Method
from pdsynth.types import Available, Direction

PAIRS, SINGLE, PEOPLE, MANY = (3, 5, 10, 20, 50), (10, 50), 70, 200
COVERED = 10  # pairs after which coverage is measured
CONTROLS = ("local-ridge", "population-mean")  # fitted on the pairs of 50
STEPS = 1500  # of `pds`: as many as five minutes of a free core permit, whatever else the machine does
SCANNERS = [
    Site(
        "short",
        FmriProtocol(1000, 22, 55, (3.0, 3.0, 3.0), 200, 60),
        DmriProtocol(4000, 60, (2.5, 2.5, 2.5), 700, 2, 30, 30),
        coil_strength=1.4, psf_mm=1.0, shift_mm=8, scale=400,
    ),
    Site(
        "strong",
        FmriProtocol(2500, 38, 85, (3.5, 3.5, 3.5), 150, 70),
        DmriProtocol(7000, 95, (3.0, 3.0, 3.0), 2000, 2, 30, 20),
        coil_strength=0.2, psf_mm=2.5, shift_mm=14, scale=1200,
    ),
    Site(
        "smooth",
        FmriProtocol(1800, 30, 70, (4.2, 4.2, 4.2), 150, 90),
        DmriProtocol(9000, 80, (4.0, 4.0, 4.0), 1400, 2, 30, 35),
        coil_strength=1.0, psf_mm=4.0, shift_mm=5, scale=700,
    ),
]  # fmt: skip


def psnr_of_people(method: Method, pairs: Pairs) -> dict[str, list[float]]:
    """PSNR in the dilated brain (dB) of each row of the pairs, by direction."""
    found = {}
    for direction in Direction:
        volumes = predictions(method, pairs, direction)
        rows = range(len(pairs))
        real = [(pairs.volume(direction.target, row), dilate(pairs.brain(direction.target, row))) for row in rows]
        found[direction.value] = [float(psnr(v, t, m)) for v, (t, m) in zip(volumes, real, strict=True)]
    return found


def quality(method: Method, pairs: Pairs) -> dict[str, float]:
    """PSNR in the dilated brain, the mean over people, by direction."""
    return {direction: float(np.mean(people)) for direction, people in psnr_of_people(method, pairs).items()}


@contextmanager
def remembered(method: Method) -> Iterator[None]:
    """In the block, keep the estimates of this kind of method by their source: each adaptation needs the same ones."""
    kind, known = type(method), dict[tuple[Direction, bytes], tuple[Tensor, Tensor | None]]()
    estimate = kind.predict_with_sd

    def lookup(self: Method, batch: PairBatch, direction: Direction) -> tuple[Tensor, Tensor | None]:
        key = direction, batch.sources[direction].volume.numpy().tobytes()
        if key not in known:
            known[key] = estimate(self, batch, direction)
        return known[key]

    kind.predict_with_sd = lookup
    try:
        yield
    finally:
        kind.predict_with_sd = estimate


def single(pairs: Pairs) -> Pairs:
    """The pairs as if every second person had the fMRI alone, and the others the dMRI."""
    available = [(Available.FMRI, Available.DMRI)[row % 2] for row in range(len(pairs))]
    return Pairs(pairs.root, pairs.table.assign(available=available), pairs.manifest, pairs.volumes)


def adapted(model: str, pairs: Pairs, test: Pairs, out: Path) -> dict[str, object]:
    """PSNR of the model adapted with these pairs, and how it was adapted, by direction."""
    found = adapt(model, pairs, out, "cpu")
    return {
        "psnr_brain": quality(api.load(out, "cpu").method, test),
        "adaptation": {d.value: {k: v for k, v in asdict(each).items() if v == v} for d, each in found.items()},
    }


def prepared(work: Path, scanner: Site, people: int, seed: int, split: tuple[float, float, float]) -> Pairs:
    """The pairs of people simulated on a scanner; what `work` has already is kept."""
    name = scanner.name if people == PEOPLE else f"{scanner.name}-{people}-people"
    folder, out = work / name, work / f"{name}-prepared"
    if not folder.exists():
        simulate(folder, people, seed=seed, sites=[scanner.name], quick=True, truth=False)
    if not (out / "pairs.tsv").exists():
        prepare(bids(folder), out, split=split)
    return Pairs.open(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--model", default="default")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "adaptation.json")
    options = parser.parse_args()
    results: dict[str, dict[str, object]] = {}
    for number, scanner in enumerate(SCANNERS):
        sites.SITES[scanner.name] = scanner
        pairs = prepared(options.work, scanner, PEOPLE, 880 + number, (50 / PEOPLE, 0, 20 / PEOPLE))
        train, test = pairs.train, pairs.test
        names = train.table["participant_id"].unique()
        of: dict[str, object] = {"as it is": quality(api.load(options.model, "cpu").method, test)}
        few = {count: train.where(train.table["participant_id"].isin(names[:count])) for count in {*PAIRS, *SINGLE}}
        with remembered(api.load(options.model, "cpu").method):
            for count in PAIRS:
                out = options.work / f"{scanner.name}-{count}"
                of[f"{count} pairs"] = adapted(options.model, few[count], test, out)
            for count in SINGLE:
                out = options.work / f"{scanner.name}-single-{count}"
                of[f"single scans of {count}"] = adapted(options.model, single(few[count]), test, out)
        controls = api.fit_controls(train, names=CONTROLS)
        of |= {f"{name}, 50 pairs": quality(control, test) for name, control in controls.items()}
        many = prepared(options.work, scanner, MANY, 990 + number, (1, 0, 0)).train
        of[f"local-ridge, {MANY} other people"] = quality(api.fit_controls(many, names=CONTROLS[:1])[CONTROLS[0]], test)
        run = options.work / f"{scanner.name}-{MANY}-people-pds"
        of[f"pds, {MANY} other people"] = quality(api.fit("pds", many, run=run, steps=STEPS, resume=True).method, test)
        of["coverage"] = {
            "as it is": coverage(api.load(options.model, "cpu").method, test),
            f"{COVERED} pairs": coverage(api.load(options.work / f"{scanner.name}-{COVERED}", "cpu").method, test),
        }
        results[scanner.name] = of
        print(scanner.name, of, flush=True)
        about = {"date": date.today().isoformat(), "machine": platform.machine(), "data": "SIMULATED"}
        write_json(options.out, about | {"scanners": results})


if __name__ == "__main__":
    main()
