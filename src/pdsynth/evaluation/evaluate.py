"""Scores and audits methods on the paired test participants, and keeps what the report needs (see `archive`)."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial, reduce
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from rich.console import Console
from rich.progress import Progress

from pdsynth.atlas import Atlas, evidence_regions, region_means
from pdsynth.data.batch import PairBatch
from pdsynth.data.pairs import Pairs
from pdsynth.evaluation.audit import (
    Identification,
    WithinSite,
    shuffle_sources,
    uncertainty_of_samples,
    uncertainty_of_sd,
)
from pdsynth.evaluation.metrics import dilate, image_quality, psnr
from pdsynth.methods.base import Method, MethodConfig
from pdsynth.methods.controls import Oracle
from pdsynth.results import patterns
from pdsynth.results.archive import KEYS, SECONDS, SHOWN_SCANS, Archive, image_name
from pdsynth.statistics.inference import bca_interval, holm, paired_permutation
from pdsynth.types import Direction, Modality

ORACLE = Oracle.name
FEWEST_SAMPLES = 3
BLOCK = 16  # scans in memory at a time, about 2 MB each at 4 mm; enough for the threads that score them
LATEST = 4  # batches to keep, about 7 MB each at 4 mm: two of them serve several calls in a row


def evaluate(
    methods: dict[str, Method],
    pairs: Pairs,
    out: Path | None = None,
    seed: int = 0,
    samples: int = 0,
    sample_steps: int = 8,
    ceiling: bool = True,
    atlas: Atlas | None = None,
) -> dict[str, Any]:
    """Score every method in both directions on the whole-scan means of paired participants; returns metrics.json.

    The first method is the one under test: it is compared with each other one. A method sees sources only, never
    targets or masks. On simulated data `oracle`, E[target | shared anatomy], is added where the `ceiling` is wanted.
    Uncertainty is audited as a method states it; with samples >= 3, that of a generative method from so many draws
    instead. Sessions are averaged within a participant before the mean and its BCa 95 % interval are taken. Writes to
    `out` where given, with the means of the atlas's regions (default: `evidence_regions`) of every scan. All but the
    block `times` is the same in every run. Raises ValueError where there are no methods, fewer than two paired
    participants, or a method returns values that are not finite.

    Memory holds BLOCK scans, however many there are: each method and direction is one pass over them. What needs the
    whole set is summed up scan by scan (`WithinSite`), or reads the real scans again from the prepared folder, where
    they lie anyway (`Identification`); so there are no scratch files. The price is that source views are made anew in
    every pass.
    """
    pairs = pairs.whole_scans()
    pairs = pairs.where(pairs.table["available"] == "both")
    if not methods:
        raise ValueError("there is no method to evaluate; name at least one model.")
    if pairs.table["participant_id"].nunique() < 2:
        raise ValueError(f"{len(pairs)} paired scan(s) can't be evaluated; prepare a split of 2 participants or more.")
    scans = _Scans(pairs, seed)
    wanted = ceiling or ORACLE in methods
    methods = {name: method for name, method in methods.items() if name != ORACLE}
    if scans.has_oracle and wanted:
        methods[ORACLE] = Oracle(MethodConfig(pairs.grid.shape))
    archive = Archive(Path(out), scans.pairs) if out is not None else None
    atlas = atlas or evidence_regions(pairs.grid)
    regions: dict[tuple[Modality, str], np.ndarray] = {
        (d.target, patterns.REAL): np.stack([region_means(scans.real(row, d), atlas) for row in range(len(scans))])
        for d in Direction
    }
    rows: list[pd.DataFrame] = []
    summary: dict[str, dict[str, Any]] = {name: {} for name in methods}
    times: dict[str, dict[str, Any]] = {name: {} for name in methods}
    from_samples: list[str] = []
    workers = ThreadPoolExecutor(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2)
    with workers, torch.inference_mode(), Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("Evaluating", total=len(methods) * len(Direction))
        for name, method in methods.items():
            method.eval()
            drawn = method.generative and samples >= FEWEST_SAMPLES
            draws = _Draws(samples, sample_steps, seed) if drawn else None
            from_samples += [name] * drawn
            for direction in Direction:
                progress.update(task, description=f"Evaluating {name}")
                found = _score(method, direction, scans, atlas, draws, workers)
                scored = pd.DataFrame(found.rows, columns=found.columns)
                keys = scans.table[KEYS].assign(method=name, direction=direction.value)
                rows.append(pd.concat([keys, scored], axis=1))
                regions[direction.target, name] = found.regions
                summary[name][direction.value] = _intervals(scored, scans.table, seed) | found.scalars
                times[name][direction.value] = {SECONDS: float(np.median(found.seconds))}
                if archive is not None:
                    archive.keep(image_name(name, direction), found.images)
                if archive is not None and found.sd:
                    archive.keep(f"{image_name(name, direction)}_std", found.sd)
                progress.advance(task)
    table = pd.concat(rows, ignore_index=True)
    splits = sorted(set(scans.table["split"])) if "split" in scans.table else []
    result = {
        "simulated": pairs.simulated,
        "split": "+".join(splits),
        "n_participants": int(scans.table["participant_id"].nunique()),
        "n_scans": len(scans),
        "seed": seed,
        "samples": samples,
        "uncertainty_from_samples": from_samples,
        "methods": summary,
        "comparisons": comparisons(table, list(methods), seed),
        "times": times,
    }
    if archive is not None:
        described = patterns.describe_regions(atlas, pairs.grid)
        patterns.save(patterns.Patterns(patterns.people_of(scans.table), described, regions), archive.out)
        archive.finish(result, table)
    return result


def source_only(batch: PairBatch, direction: Direction, method: Method) -> PairBatch:
    """What a method may see of a batch, on its device: the source; the oracle alone sees the simulated truth too."""
    truth = batch.oracle if isinstance(method, Oracle) else {}
    kept = replace(batch, sources={direction: batch.sources[direction]}, targets={}, masks={}, oracle=truth)
    return kept.to(_device(method))


def predictions(method: Method, pairs: Pairs, direction: Direction) -> np.ndarray:
    """The method's estimate of each row's target, (rows, X, Y, Z) float32, from its source alone."""
    return np.stack([mean for mean, _ in estimates(method, pairs, direction)])


def estimates(method: Method, pairs: Pairs, direction: Direction) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """The estimate and the SD that the method states, if it does, of each row's target, (X, Y, Z) float32 each."""
    method.eval()
    for row in range(len(pairs)):
        with torch.inference_mode():
            batch = pairs.batch(np.array([row]), directions=[direction])
            mean, sd = method.estimate(source_only(batch, direction, method), direction)
        yield _volume(mean, method), None if sd is None else _volume(sd, method)


class _Scans:
    """The evaluated scans, each read from the prepared folder where it is needed, and then let go.

    site and person are of each scan (person: the place of the participant among all), first is the first scan of each
    participant. By direction, (X, Y, Z): everywhere, where the dilated brains of all scans meet, and compared, where
    those of the first scans meet.
    """

    def __init__(self, pairs: Pairs, seed: int) -> None:
        self.pairs, self.table, self.has_oracle = pairs.streamed(), pairs.table, pairs.has_oracle
        names, self.site = (self.table[column].astype(str).tolist() for column in ("participant_id", "site"))
        people, self.first, self.person = np.unique(names, return_index=True, return_inverse=True)
        self.donor = self.first[shuffle_sources(len(people), seed=seed)[self.person]]
        self.everywhere = {d: self._common(d, range(len(self))) for d in Direction}
        self.compared = {d: self._common(d, self.first) for d in Direction}
        self.batch = lru_cache(maxsize=LATEST)(self._batch)

    def __len__(self) -> int:
        return len(self.pairs)

    def blocks(self) -> Iterator[range]:
        """The rows, BLOCK of them at a time."""
        for start in range(0, len(self), BLOCK):
            yield range(start, min(start + BLOCK, len(self)))

    def real(self, row: int, direction: Direction) -> np.ndarray:
        """The real target, (X, Y, Z)."""
        return self.pairs.volume(direction.target, row)

    def mask(self, row: int, direction: Direction) -> np.ndarray:
        """The target's brain, dilated, (X, Y, Z)."""
        return dilate(self.pairs.brain(direction.target, row))

    def targets(self, direction: Direction) -> Iterator[np.ndarray]:
        """The targets that predictions are identified among, in blocks (b, V): the first scan of each participant.

        So nobody competes with another scan of their own.
        """
        for start in range(0, len(self.first), BLOCK):
            rows = self.first[start : start + BLOCK].tolist()
            yield np.stack([self.real(row, direction)[self.compared[direction]] for row in rows])

    def own(self, row: int, direction: Direction, method: Method) -> PairBatch:
        """The scan's source without anything of its target; the oracle alone sees more."""
        return source_only(self.batch(row, direction), direction, method)

    def shuffled(self, row: int, direction: Direction, method: Method) -> PairBatch:
        """The same with the source (and its b value) of another participant; site and wanted b value stay."""
        mine, other = (self.own(i, direction, method) for i in (row, int(self.donor[row])))
        bval = other.bval if direction is Direction.DMRI_TO_FMRI else mine.bval
        return replace(mine, sources=other.sources, oracle=other.oracle, bval=bval)

    def _batch(self, row: int, direction: Direction) -> PairBatch:
        return self.pairs.batch(np.array([row]), directions=[direction])

    def _common(self, direction: Direction, rows: Iterable[int]) -> np.ndarray:
        """Where the masks of the rows meet."""
        return reduce(np.logical_and, (self.mask(int(row), direction) for row in rows))


@dataclass(frozen=True)
class _Draws:
    """How the uncertainty of a generative method is sampled."""

    number: int
    steps: int
    seed: int


@dataclass(frozen=True, eq=False)
class _Synthesised:
    """A scan as a method synthesised it, beside the real one; volumes are (X, Y, Z).

    image is from its own source, and took `seconds`; misled is from another participant's source. sd is None where
    there is none; honesty is the audit of the sd, or of the draws that gave it.
    """

    row: int
    real: np.ndarray
    mask: np.ndarray
    image: np.ndarray
    seconds: float
    misled: np.ndarray
    sd: np.ndarray | None
    honesty: dict[str, float]

    def quality(self) -> dict[str, float]:
        """The metrics of image."""
        return image_quality(self.image, self.real, self.mask)


@dataclass
class _Scored:
    """The scores of a method in one direction; all is in the order of the scans.

    regions: their means, (scans, R). columns, rows: the metrics, their names and those of each scan. scalars: those of
    the whole set. images, sd: of the first SHOWN_SCANS scans, (X, Y, Z) float16; sd is empty where there is none.

    What stays of a scan is written into one array and into tuples: small arrays that outlive the large ones around
    them would keep their memory from being given back.
    """

    regions: np.ndarray
    columns: list[str] = field(default_factory=list)
    rows: list[tuple[float, ...]] = field(default_factory=list)
    scalars: dict[str, float] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    images: list[np.ndarray] = field(default_factory=list)
    sd: list[np.ndarray] = field(default_factory=list)


def _score(
    method: Method, direction: Direction, scans: _Scans, atlas: Atlas, draws: _Draws | None, workers: ThreadPoolExecutor
) -> _Scored:
    """One pass over the scans, of which one block is in memory at a time."""
    found, within = _Scored(np.empty((len(scans), len(atlas)))), WithinSite()
    identified = Identification(partial(scans.targets, direction))
    everywhere, compared = scans.everywhere[direction], scans.compared[direction]
    for block in scans.blocks():
        made = [_synthesise(method, direction, scans, row, draws) for row in block]
        for one, quality in zip(made, workers.map(_Synthesised.quality, made), strict=True):
            shuffled = {"shuffled_source_psnr_brain": psnr(one.misled, one.real, one.mask)}
            scores = quality | shuffled | one.honesty
            found.columns = list(scores)
            found.rows.append(tuple(scores.values()))
            found.regions[one.row] = region_means(one.image, atlas)
            found.seconds.append(one.seconds)
            within.add(one.image[everywhere], one.real[everywhere], scans.site[one.row])
            if one.row < SHOWN_SCANS:
                found.images.append(one.image.astype(np.float16))
                found.sd += [] if one.sd is None else [one.sd.astype(np.float16)]
        first = [one for one in made if one.row in scans.first]
        if first:
            identified.add(np.stack([one.image[compared] for one in first]), scans.person[[one.row for one in first]])
        del made, first  # before the next block is made
    found.scalars = {
        "identification_rate": identified.rate,
        "within_site_r": within.r,
        "within_site_slope": within.slope,
    }
    return found


def _synthesise(method: Method, direction: Direction, scans: _Scans, row: int, draws: _Draws | None) -> _Synthesised:
    real, mask, batch = scans.real(row, direction), scans.mask(row, direction), scans.own(row, direction, method)
    started = time.perf_counter()
    estimate, stated = method.estimate(batch, direction)
    image = _volume(estimate, method)
    seconds = time.perf_counter() - started
    misled = _volume(method.predict(scans.shuffled(row, direction, method), direction), method)
    sd = None if stated is None else _volume(stated, method)
    honesty = {} if sd is None else uncertainty_of_sd(image, sd, real, mask)
    if draws is not None:
        generator = torch.Generator(_device(method)).manual_seed(draws.seed * 1_000_003 + row)
        drawn = (method.sample(batch, direction, generator, draws.steps) for _ in range(draws.number))
        volumes = np.stack([_volume(draw, method) for draw in drawn])
        sd, honesty = volumes.std(0, ddof=1), uncertainty_of_samples(volumes, real, mask)
    return _Synthesised(row, real, mask, image, seconds, misled, sd, honesty)


def _volume(tensor: torch.Tensor, method: Method) -> np.ndarray:
    """(1, 1, X, Y, Z) -> (X, Y, Z) float32."""
    volume = tensor[0, 0].detach().float().cpu().numpy()
    if not np.isfinite(volume).all():
        bad = int((~np.isfinite(volume)).sum())
        raise ValueError(f"method {method.name!r} returned {bad} values that are not finite.")
    return volume


def _device(method: Method) -> torch.device:
    return next((t.device for t in [*method.parameters(), *method.buffers()]), torch.device("cpu"))


def _intervals(scored: pd.DataFrame, table: pd.DataFrame, seed: int) -> dict[str, dict[str, Any]]:
    """Mean and interval of each metric over participants."""
    people = scored.groupby(table["participant_id"].to_numpy()).mean()
    return {
        str(metric): {
            "mean": float(values.mean()),
            "ci95": [_finite(v) for v in bca_interval(values.to_numpy(), seed=seed)],
        }
        for metric, values in people.items()
    }


def comparisons(table: pd.DataFrame, names: list[str], seed: int) -> list[dict[str, Any]]:
    """Primary endpoint: psnr_brain of the first method against each other one, one Holm family over directions."""
    people = table.groupby(["method", "direction", "participant_id"])["psnr_brain"].mean()
    found: list[dict[str, Any]] = []
    for direction in Direction:
        for other in names[1:]:
            if other == ORACLE:
                continue
            a, b = (people[name, direction.value].to_numpy() for name in (names[0], other))
            found.append(
                {
                    "direction": direction.value,
                    "method": names[0],
                    "against": other,
                    "psnr_brain_difference": float(np.mean(a - b)),
                    "ci95": [_finite(v) for v in bca_interval(a - b, seed=seed)],
                    "p": paired_permutation(a, b, seed=seed),
                }
            )
    for row, p in zip(found, holm([row["p"] for row in found]), strict=True):
        row["p_holm"] = float(p)
    return found


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
