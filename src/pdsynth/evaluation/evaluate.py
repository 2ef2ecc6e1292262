"""Scores and audits methods on the paired test participants, and keeps what the report needs (see `archive`)."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache
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
    identification_rate,
    shuffle_sources,
    uncertainty_of_samples,
    uncertainty_of_sd,
    within_site_r,
    within_site_slope,
)
from pdsynth.evaluation.metrics import dilate, image_quality, psnr
from pdsynth.methods.base import Method, MethodConfig
from pdsynth.methods.controls import Oracle
from pdsynth.results import patterns
from pdsynth.results.archive import KEYS, Archive, image_name
from pdsynth.statistics.inference import bca_interval, holm, paired_permutation
from pdsynth.types import Direction, Modality

ORACLE = Oracle.name
FEWEST_SAMPLES = 3


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
    `out` where given, with the means of the atlas's regions (default: `evidence_regions`) of every scan. Raises
    ValueError where there are no methods, fewer than two paired participants, or a method returns values that are not
    finite.
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
    archive = Archive(Path(out), pairs) if out is not None else None
    atlas = atlas or evidence_regions(pairs.grid)
    regions: dict[tuple[Modality, str], np.ndarray] = {
        (d.target, patterns.REAL): region_means(scans.real[d], atlas) for d in Direction
    }
    rows: list[pd.DataFrame] = []
    summary: dict[str, dict[str, Any]] = {name: {} for name in methods}
    from_samples: list[str] = []
    workers = ThreadPoolExecutor(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2)
    with workers, torch.inference_mode(), Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("Evaluating", total=len(methods) * len(Direction))
        for name, method in methods.items():
            method.eval()
            draws = samples if method.generative and samples >= FEWEST_SAMPLES else 0
            from_samples += [name] * (draws > 0)
            for direction in Direction:
                progress.update(task, description=f"Evaluating {name}")
                images, stated, scored, scalars = _score(method, direction, scans, workers)
                sd, honesty = (
                    _sampled(method, direction, scans, seed, draws, sample_steps)
                    if draws
                    else (stated, _stated(images, stated, direction, scans))
                )
                scored = scored if honesty is None else scored.join(honesty)
                keys = scans.table[KEYS].assign(method=name, direction=direction.value)
                rows.append(pd.concat([keys, scored], axis=1))
                regions[direction.target, name] = region_means(images, atlas)
                summary[name][direction.value] = _intervals(scored, scans.table, seed) | scalars
                if archive is not None:
                    archive.keep(image_name(name, direction), images)
                if archive is not None and sd is not None:
                    archive.keep(f"{image_name(name, direction)}_std", sd)
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
    }
    if archive is not None:
        described = patterns.describe_regions(atlas, pairs.grid)
        patterns.save(patterns.Patterns(patterns.people_of(scans.table), described, regions), archive.out)
        archive.finish(result, table)
    return result


def source_only(batch: PairBatch, direction: Direction, method: Method) -> PairBatch:
    """What a method may see of a batch, on its device: the source, and of the target what only the oracle is told."""
    told = batch.oracle if isinstance(method, Oracle) else {}
    kept = replace(batch, sources={direction: batch.sources[direction]}, targets={}, masks={}, oracle=told)
    return kept.to(_device(method))


def predictions(method: Method, pairs: Pairs, direction: Direction) -> np.ndarray:
    """The method's estimate of each row's target, (rows, X, Y, Z) float32, from its source alone."""
    return np.stack([mean for mean, _ in estimates(method, pairs, direction)])


def estimates(method: Method, pairs: Pairs, direction: Direction) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """The estimate and the SD that the method states, if it does, of each row's target, (X, Y, Z) float32 each."""
    method.eval()
    for row in range(len(pairs)):
        with torch.inference_mode():
            mean, sd = method.estimate(source_only(pairs.batch(np.array([row])), direction, method), direction)
        yield _volume(mean, method), None if sd is None else _volume(sd, method)


class _Scans:
    """The evaluated scans: real volumes, dilated masks, and batches of one with their own or another's source."""

    def __init__(self, pairs: Pairs, seed: int) -> None:
        self.pairs, self.table = pairs, pairs.table
        self.has_oracle = pairs.has_oracle
        people, self.person = np.unique(self.table["participant_id"].to_numpy(str), return_inverse=True)
        other = shuffle_sources(len(people), seed=seed)
        self.donor = np.array([int(np.argmax(self.person == other[p])) for p in self.person])
        self.real = {d: np.stack([pairs.volume(d.target, i) for i in range(len(pairs))]) for d in Direction}
        brains = {d: [pairs.brain(d.target, i) for i in range(len(pairs))] for d in Direction}
        self.masks = {d: np.stack([dilate(b) for b in brains[d]]) for d in Direction}
        self.batch = lru_cache(maxsize=32)(self._batch)  # each holds about 10 MB

    def __len__(self) -> int:
        return len(self.pairs)

    def _batch(self, row: int) -> PairBatch:
        return self.pairs.batch(np.array([row]))

    def own(self, row: int, direction: Direction, method: Method) -> PairBatch:
        """The scan's source without anything of its target, which only the oracle is told."""
        return source_only(self.batch(row), direction, method)

    def shuffled(self, row: int, direction: Direction, method: Method) -> PairBatch:
        """The same with the source (and its b value) of another participant; site and wanted b value stay."""
        mine, other = (self.own(i, direction, method) for i in (row, int(self.donor[row])))
        bval = other.bval if direction is Direction.DMRI_TO_FMRI else mine.bval
        return replace(mine, sources=other.sources, oracle=other.oracle, bval=bval)


def _score(
    method: Method, direction: Direction, scans: _Scans, workers: ThreadPoolExecutor
) -> tuple[np.ndarray, np.ndarray | None, pd.DataFrame, dict[str, float]]:
    """Predictions and their SD (scans, X, Y, Z), metrics of each scan, and the scalars of the whole set."""
    seconds, predictions, spreads, misled = [], [], [], []
    for row in range(len(scans)):
        batch = scans.own(row, direction, method)
        started = time.perf_counter()
        estimate, sd = method.estimate(batch, direction)
        predictions.append(_volume(estimate, method))
        seconds.append(time.perf_counter() - started)
        spreads += [] if sd is None else [_volume(sd, method)]
        misled.append(_volume(method.predict(scans.shuffled(row, direction, method), direction), method))
    real, masks = scans.real[direction], scans.masks[direction]
    scored = pd.DataFrame(list(workers.map(image_quality, predictions, real, masks)))
    scored["shuffled_source_psnr_brain"] = [psnr(*each) for each in zip(misled, real, masks, strict=True)]
    images, sites, common = np.stack(predictions), scans.table["site"].tolist(), masks.all(0)
    scalars = {
        "identification_rate": _identification(images, real, masks, scans.person),
        "within_site_r": within_site_r(images[:, common], real[:, common], sites),
        "within_site_slope": within_site_slope(images[:, common], real[:, common], sites),
        "seconds_per_volume": float(np.median(seconds)),
    }
    return images, np.stack(spreads) if spreads else None, scored, scalars


def _stated(images: np.ndarray, sd: np.ndarray | None, direction: Direction, scans: _Scans) -> pd.DataFrame | None:
    """Audit of the SD that a method states, a row a scan."""
    if sd is None:
        return None
    each = zip(images, sd, scans.real[direction], scans.masks[direction], strict=True)
    return pd.DataFrame([uncertainty_of_sd(*one) for one in each])


def _sampled(
    method: Method, direction: Direction, scans: _Scans, seed: int, samples: int, steps: int
) -> tuple[np.ndarray, pd.DataFrame]:
    """SD of a generative method's draws (scans, X, Y, Z) and its audit, a row a scan."""
    spreads, scored = [], []
    for row, (real, mask) in enumerate(zip(scans.real[direction], scans.masks[direction], strict=True)):
        batch = scans.own(row, direction, method)
        generator = torch.Generator(_device(method)).manual_seed(seed * 1_000_003 + row)
        drawn = (method.sample(batch, direction, generator, steps) for _ in range(samples))
        draws = np.stack([_volume(draw, method) for draw in drawn])
        spreads.append(draws.std(0, ddof=1))
        scored.append(uncertainty_of_samples(draws, real, mask))
    return np.stack(spreads), pd.DataFrame(scored)


def _volume(tensor: torch.Tensor, method: Method) -> np.ndarray:
    """(1, 1, X, Y, Z) -> (X, Y, Z) float32."""
    volume = tensor[0, 0].detach().float().cpu().numpy()
    if not np.isfinite(volume).all():
        bad = int((~np.isfinite(volume)).sum())
        raise ValueError(f"method {method.name!r} returned {bad} values that are not finite.")
    return volume


def _device(method: Method) -> torch.device:
    return next((t.device for t in [*method.parameters(), *method.buffers()]), torch.device("cpu"))


def _identification(predictions: np.ndarray, real: np.ndarray, masks: np.ndarray, person: np.ndarray) -> float:
    """Identification among the first scans of the participants, so that nobody competes with themselves."""
    first = np.unique(person, return_index=True)[1]
    return identification_rate(predictions[first], real[first], masks[first])


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
