"""Scores and audits methods on participants who have both scans, and saves the results (see `archive`)."""

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
from pdsynth.evaluation.metrics import PRIMARY, dilate, image_quality, psnr
from pdsynth.methods.base import Method, MethodConfig
from pdsynth.methods.controls import Oracle
from pdsynth.results import patterns
from pdsynth.results.archive import KEYS, SAVED_SCANS, SECONDS, Archive, image_name
from pdsynth.statistics.inference import bca_interval, holm, paired_permutation
from pdsynth.types import Available, Direction, Modality

ORACLE = Oracle.name
MIN_SAMPLES = 3
BLOCK = 16  # scans in memory at a time, about 2 MB each at 4 mm; enough for the threads that score them
CACHED_BATCHES = 4  # about 7 MB each at 4 mm; a scan and its donor are needed by several calls in a row


def evaluate(
    methods: dict[str, Method],
    pairs: Pairs,
    out: Path | None = None,
    *,
    seed: int = 0,
    samples: int = 0,
    sample_steps: int = 8,
    ceiling: bool = True,
    atlas: Atlas | None = None,
) -> dict[str, Any]:
    """Score every method in both directions on whole scans; returns the content of metrics.json.

    methods: by name; the first one is the method under test, and it is compared with every other one except the oracle.
    Sessions that lack a scan are left out. A method receives source scans only, never targets or masks. If the data
    hold simulated truth volumes and `ceiling` is true, `oracle`, E[target | shared anatomy], is added as upper limit.

    Image quality is always that of the estimate. If a method gives an SD with its estimate, the SD is scored too. For a
    generative method and `samples` of 3 or more, the uncertainty is scored from that number of samples instead, each
    drawn in `sample_steps` sampling steps; with fewer, none is drawn. Scores of the sessions of a participant are
    averaged before the mean over participants and its BCa 95 % interval are computed. If `out` is given, the results
    are written into this folder, with the mean signal of every scan in the regions of `atlas`. None means the regions
    of the paper with hippocampi and amygdalae. Everything except the key `times` is the same in every run with the same
    seed. Raises ValueError if there are no methods, if fewer than two participants have both scans, and if a method
    returns values that are not finite.

    Memory holds blocks of 16 scans, for any number of scans. Each method and direction is one pass over the scans, and
    computes the features of the sources again. Scores of the whole set are accumulated or read the real scans again.
    """
    pairs = pairs.whole_scans()
    pairs = pairs.where(pairs.table["available"] == Available.BOTH)
    if not methods:
        raise ValueError("there is no method to evaluate; name at least one model.")
    if pairs.table["participant_id"].nunique() < 2:
        raise ValueError(
            f"{len(pairs)} session(s) with both scans are too few; prepare a split of 2 participants or more."
        )
    scans = _Scans(pairs, seed)
    with_oracle = scans.has_oracle and (ceiling or ORACLE in methods)
    methods = {name: method for name, method in methods.items() if name != ORACLE}
    if with_oracle:
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
            is_sampled = method.generative and samples >= MIN_SAMPLES
            draws = _Draws(samples, sample_steps, seed) if is_sampled else None
            from_samples += [name] * is_sampled
            for direction in Direction:
                progress.update(task, description=f"Evaluating {name}")
                scores = _score(method, direction, scans, atlas, draws, workers)
                per_scan = pd.DataFrame(scores.rows, columns=scores.columns)
                keys = scans.table[KEYS].assign(method=name, direction=direction.value)
                rows.append(pd.concat([keys, per_scan], axis=1))
                regions[direction.target, name] = scores.regions
                summary[name][direction.value] = _intervals(per_scan, scans.table, seed) | scores.scalars
                times[name][direction.value] = {SECONDS: float(np.median(scores.seconds))}
                if archive is not None:
                    archive.save_images(image_name(name, direction), scores.images)
                if archive is not None and scores.sd:
                    archive.save_images(f"{image_name(name, direction)}_std", scores.sd)
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
        region_table = patterns.describe_regions(atlas, pairs.grid)
        patterns.save(patterns.Patterns(patterns.people_of(scans.table), region_table, regions), archive.out)
        archive.finish(result, table)
    return result


def source_only(batch: PairBatch, direction: Direction, method: Method) -> PairBatch:
    """A copy of the batch whose only volumes are the sources of one direction, on the method's device.

    Target volumes and masks are removed, so that no method can use them. Only the oracle, an upper limit for simulated
    data, also gets the simulated truth.
    """
    truth = batch.oracle if isinstance(method, Oracle) else {}
    source = replace(batch, sources={direction: batch.sources[direction]}, targets={}, masks={}, oracle=truth)
    return source.to(_device(method))


def predictions(method: Method, pairs: Pairs, direction: Direction) -> np.ndarray:
    """The scans that a method synthesises, (rows, X, Y, Z) float32: one per row of `pairs`, from its source scan.

    Raises ValueError if the method returns a value that is not finite.
    """
    return np.stack([mean for mean, _ in estimates(method, pairs, direction)])


def estimates(method: Method, pairs: Pairs, direction: Direction) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """Yield for each row of `pairs` the scan that a method synthesises and its SD, (X, Y, Z) float32 each.

    They are made from the source scan of that row only. The SD is None if the method gives none. Raises ValueError if a
    value is not finite.
    """
    method.eval()
    for row in range(len(pairs)):
        with torch.inference_mode():
            batch = pairs.batch(np.array([row]), directions=[direction])
            mean, sd = method.estimate(source_only(batch, direction, method), direction)
        yield _volume(mean, method), None if sd is None else _volume(sd, method)


class _Scans:
    """The evaluated scans. Each is read from the prepared folder when it is needed, and is not kept in memory.

    For each of N scans: site; person, the index of its participant; donor, the row of the scan of another participant
    whose source replaces its own in the audit. first: row of the first scan of each participant. Masks by direction,
    (X, Y, Z): common, the intersection of the dilated brains of all scans, and common_first, that of the first scans.
    """

    def __init__(self, pairs: Pairs, seed: int) -> None:
        self.pairs, self.table, self.has_oracle = pairs.streamed(), pairs.table, pairs.has_oracle
        names, self.site = (self.table[column].astype(str).tolist() for column in ("participant_id", "site"))
        people, self.first, self.person = np.unique(names, return_index=True, return_inverse=True)
        self.donor = self.first[shuffle_sources(len(people), seed=seed)[self.person]]
        self.common = {d: self._intersection(d, range(len(self))) for d in Direction}
        self.common_first = {d: self._intersection(d, self.first) for d in Direction}
        self.batch = lru_cache(maxsize=CACHED_BATCHES)(self._batch)

    def __len__(self) -> int:
        return len(self.pairs)

    def blocks(self) -> Iterator[range]:
        """The rows in blocks of at most BLOCK."""
        for start in range(0, len(self), BLOCK):
            yield range(start, min(start + BLOCK, len(self)))

    def real(self, row: int, direction: Direction) -> np.ndarray:
        """The real target, (X, Y, Z)."""
        return self.pairs.volume(direction.target, row)

    def mask(self, row: int, direction: Direction) -> np.ndarray:
        """The brain mask of the real target, dilated by one voxel, (X, Y, Z) bool."""
        return dilate(self.pairs.brain(direction.target, row))

    def targets(self, direction: Direction) -> Iterator[np.ndarray]:
        """The candidates for the identification of a prediction, in blocks (b, V): the first scan of each participant.

        With one scan per participant, a prediction is never compared with a second scan of the same participant.
        """
        for start in range(0, len(self.first), BLOCK):
            rows = self.first[start : start + BLOCK].tolist()
            yield np.stack([self.real(row, direction)[self.common_first[direction]] for row in rows])

    def source(self, row: int, direction: Direction, method: Method) -> PairBatch:
        """A batch of the source of the scan in this row, without its target (see `source_only`)."""
        return source_only(self.batch(row, direction), direction, method)

    def donor_source(self, row: int, direction: Direction, method: Method) -> PairBatch:
        """The batch of `source`, but with the source volume of the donor (another participant, drawn at random).

        The site remains that of the scan in this row. The b value is the donor's if the source is the dMRI, and that of
        the target if the target is the dMRI.
        """
        own, other = (self.source(i, direction, method) for i in (row, int(self.donor[row])))
        bval = other.bval if direction is Direction.DMRI_TO_FMRI else own.bval
        return replace(own, sources=other.sources, oracle=other.oracle, bval=bval)

    def _batch(self, row: int, direction: Direction) -> PairBatch:
        return self.pairs.batch(np.array([row]), directions=[direction])

    def _intersection(self, direction: Direction, rows: Iterable[int]) -> np.ndarray:
        """The voxels that are in the masks of all rows, (X, Y, Z)."""
        return reduce(np.logical_and, (self.mask(int(row), direction) for row in rows))


@dataclass(frozen=True)
class _Draws:
    """The samples that give the SD of a generative method: their number per scan, sampling steps and seed."""

    number: int
    steps: int
    seed: int


@dataclass(frozen=True, eq=False)
class _Synthesised:
    """A synthesised scan with the real one; all volumes are (X, Y, Z).

    mask: dilated brain of the real scan. image: synthesised from the scan's own source in `seconds`. from_donor:
    synthesised from the source of another participant. sd is None if the method gives no SD. uncertainty: scores of the
    SD, or of the samples that it was computed from.
    """

    row: int
    real: np.ndarray
    mask: np.ndarray
    image: np.ndarray
    seconds: float
    from_donor: np.ndarray
    sd: np.ndarray | None
    uncertainty: dict[str, float]

    def quality(self) -> dict[str, float]:
        """Values of the image quality metrics by name."""
        return image_quality(self.image, self.real, self.mask)


@dataclass
class _Scored:
    """Scores of a method in one direction; arrays and lists are in the order of the scans.

    regions: region means, (scans, R). columns: names of the metrics per scan; rows: their values, one tuple per scan.
    scalars: scores of the whole set by name. seconds: time of each synthesis from the own source. images, sd: volumes
    of the first SAVED_SCANS scans, (X, Y, Z) float16; sd is empty if the method gives no SD.

    Results of a scan are copied into one array and into tuples. Small arrays that remain between large ones would
    prevent the release of the memory of the large ones.
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
    """Score a method in one pass over the scans; one block of them is in memory at a time."""
    result, within = _Scored(np.empty((len(scans), len(atlas)))), WithinSite()
    identification = Identification(partial(scans.targets, direction))
    common, common_first = scans.common[direction], scans.common_first[direction]
    for block in scans.blocks():
        synthesised = [_synthesise(method, direction, scans, row, draws) for row in block]
        for one, quality in zip(synthesised, workers.map(_Synthesised.quality, synthesised), strict=True):
            shuffled = {"shuffled_source_psnr_brain": psnr(one.from_donor, one.real, one.mask)}
            scores = quality | shuffled | one.uncertainty
            result.columns = list(scores)
            result.rows.append(tuple(scores.values()))
            result.regions[one.row] = region_means(one.image, atlas)
            result.seconds.append(one.seconds)
            within.add(one.image[common], one.real[common], scans.site[one.row])
            if one.row < SAVED_SCANS:
                result.images.append(one.image.astype(np.float16))
                result.sd += [] if one.sd is None else [one.sd.astype(np.float16)]
        first = [one for one in synthesised if one.row in scans.first]
        if first:
            persons = scans.person[[one.row for one in first]]
            identification.add(np.stack([one.image[common_first] for one in first]), persons)
        del synthesised, first  # frees their memory before the next block
    result.scalars = {
        "identification_rate": identification.rate,
        "within_site_r": within.r,
        "within_site_slope": within.slope,
    }
    return result


def _synthesise(method: Method, direction: Direction, scans: _Scans, row: int, draws: _Draws | None) -> _Synthesised:
    """Synthesise the scan in a row from its own source and from that of its donor, and score its SD or its samples."""
    real, mask, batch = scans.real(row, direction), scans.mask(row, direction), scans.source(row, direction, method)
    start = time.perf_counter()
    estimate, model_sd = method.estimate(batch, direction)
    image = _volume(estimate, method)
    seconds = time.perf_counter() - start
    from_donor = _volume(method.predict(scans.donor_source(row, direction, method), direction), method)
    sd = None if model_sd is None else _volume(model_sd, method)
    uncertainty = {} if sd is None else uncertainty_of_sd(image, sd, real, mask)
    if draws is not None:
        generator = torch.Generator(_device(method)).manual_seed(draws.seed * 1_000_003 + row)
        samples = (method.sample(batch, direction, generator, draws.steps) for _ in range(draws.number))
        volumes = np.stack([_volume(sample, method) for sample in samples])
        sd, uncertainty = volumes.std(0, ddof=1), uncertainty_of_samples(volumes, real, mask)
    return _Synthesised(row, real, mask, image, seconds, from_donor, sd, uncertainty)


def _volume(tensor: torch.Tensor, method: Method) -> np.ndarray:
    """The volume (X, Y, Z) float32 of a tensor (1, 1, X, Y, Z). Raises ValueError if a value is not finite."""
    volume = tensor[0, 0].detach().float().cpu().numpy()
    if not np.isfinite(volume).all():
        bad = int((~np.isfinite(volume)).sum())
        raise ValueError(f"method {method.name!r} returned {bad} values that are not finite.")
    return volume


def _device(method: Method) -> torch.device:
    return next((t.device for t in [*method.parameters(), *method.buffers()]), torch.device("cpu"))


def _intervals(per_scan: pd.DataFrame, table: pd.DataFrame, seed: int) -> dict[str, dict[str, Any]]:
    """Mean over participants and 95 % bootstrap interval (keys "mean" and "ci95") of each metric.

    A participant's scans are averaged first. A limit of the interval is None if it cannot be estimated.
    """
    people = per_scan.groupby(table["participant_id"].to_numpy()).mean()
    return {
        str(metric): {
            "mean": float(values.mean()),
            "ci95": [_finite(v) for v in bca_interval(values.to_numpy(), seed=seed)],
        }
        for metric, values in people.items()
    }


def comparisons(table: pd.DataFrame, names: list[str], seed: int) -> list[dict[str, Any]]:
    """Comparison of the first method with every other method but the oracle, by PSNR in the brain (primary endpoint).

    table: the scores of every scan, with the columns method, direction, participant_id and psnr_brain. names: the
    methods. The result has one dict per direction and other method: the difference `psnr_brain_difference` (dB), first
    method minus the other, mean over participants; its BCa 95 % interval `ci95` (a limit is None if it cannot be
    estimated); and `p` of a paired permutation test. All these tests form one family of Holm's correction, which gives
    `p_holm`.
    """
    people = table.groupby(["method", "direction", "participant_id"])[PRIMARY].mean()
    rows: list[dict[str, Any]] = []
    for direction in Direction:
        for other in names[1:]:
            if other == ORACLE:
                continue
            a, b = (people[name, direction.value].to_numpy() for name in (names[0], other))
            rows.append(
                {
                    "direction": direction.value,
                    "method": names[0],
                    "against": other,
                    "psnr_brain_difference": float(np.mean(a - b)),
                    "ci95": [_finite(v) for v in bca_interval(a - b, seed=seed)],
                    "p": paired_permutation(a, b, seed=seed),
                }
            )
    for row, p in zip(rows, holm([row["p"] for row in rows]), strict=True):
        row["p_holm"] = float(p)
    return rows


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
