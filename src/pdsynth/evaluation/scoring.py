"""Scores blocks of scans in one process or several, and puts the scores of a method in one direction together."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import lru_cache, partial
from itertools import groupby
from pathlib import Path

import numpy as np
import torch

from pdsynth.atlas import Atlas, region_means
from pdsynth.evaluation.audit import WithinSite, nearest, uncertainty_of_samples, uncertainty_of_sd
from pdsynth.evaluation.estimates import device_of, volume_of
from pdsynth.evaluation.metrics import image_quality, psnr
from pdsynth.evaluation.scans import Scans
from pdsynth.methods import checkpoint
from pdsynth.methods.base import Method, registry
from pdsynth.resources import give_back_memory
from pdsynth.results.archive import SAVED_SCANS
from pdsynth.types import Direction
from pdsynth.workers import Workers

MIN_SAMPLES = 3


@dataclass(frozen=True)
class Draws:
    """The samples that give the SD of a generative method: their number per scan, sampling steps and seed."""

    number: int
    steps: int
    seed: int

    def audited(self, method: Method) -> bool:
        """Whether the uncertainty of this method is scored from samples."""
        return method.generative and self.number >= MIN_SAMPLES


@dataclass(frozen=True)
class Task:
    """One block of scans to score: name of the method, direction of synthesis, and rows of the scans."""

    method: str
    direction: Direction
    rows: range


@dataclass
class Part:
    """Scores of one block of scans; arrays and lists are in the order of its rows.

    columns: names of the metrics per scan; rows: their values, one tuple per scan. regions: region means, (rows, R).
    seconds: time of each synthesis from the own source. inside: synthesised values over the voxels of
    `Scans.common_first`, (rows, V) float32. identified: for the first scans of participants, whether the nearest real
    scan is that of the participant. images, sd: volumes of those rows below SAVED_SCANS, (X, Y, Z) float16; sd is empty
    if the method gives no SD.

    Results of a scan are copied into arrays of the whole block and into tuples. Small arrays that remain between large
    ones would prevent the release of the memory of the large ones.
    """

    task: Task
    regions: np.ndarray
    inside: np.ndarray
    columns: list[str] = field(default_factory=list)
    rows: list[tuple[float, ...]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    identified: list[bool] = field(default_factory=list)
    images: list[np.ndarray] = field(default_factory=list)
    sd: list[np.ndarray] = field(default_factory=list)


@dataclass(frozen=True)
class Scorer:
    """Scores blocks of scans. method: function that gives a method by its name."""

    scans: Scans
    atlas: Atlas
    draws: Draws
    method: Callable[[str], Method]

    def score(self, task: Task) -> Part:
        """The scores of a block. One scan and its synthesised volumes are in memory at a time."""
        scans, direction, method = self.scans, task.direction, self.method(task.method)
        common_first = scans.common_first[direction]
        voxels = int(common_first.sum())
        part = Part(task, np.empty((len(task.rows), len(self.atlas))), np.empty((len(task.rows), voxels), np.float32))
        saved = sum(row < SAVED_SCANS for row in task.rows)
        images, sds = np.empty((2, saved, *scans.pairs.grid.shape), np.float16)
        for place, row in enumerate(task.rows):
            give_back_memory()
            image, sd, scores, seconds = self._scored(method, direction, row)
            part.columns = list(scores)
            part.rows.append(tuple(scores.values()))
            part.regions[place] = region_means(image, self.atlas)
            part.inside[place] = image[common_first]
            part.seconds.append(seconds)
            if row < SAVED_SCANS:
                images[place] = image
                part.images.append(images[place])
            if row < SAVED_SCANS and sd is not None:
                sds[place] = sd
                part.sd.append(sds[place])
        first = np.isin(task.rows, scans.first)
        if first.any():
            found = nearest(part.inside[first], scans.targets(direction), scans.centre[direction])
            part.identified = (found == scans.person[list(task.rows)][first]).tolist()
        return part

    @torch.inference_mode()
    def _scored(
        self, method: Method, direction: Direction, row: int
    ) -> tuple[np.ndarray, np.ndarray | None, dict[str, float], float]:
        """Synthesise the scan in a row from its own source and from that of its donor, and score both.

        Returns the volume from the own source, its SD (that of the method, or of samples; None without one), its scores
        by name, and the seconds of this synthesis.
        """
        scans = self.scans
        real, mask, batch = scans.real(row, direction), scans.mask(row, direction), scans.source(row, direction, method)
        start = time.perf_counter()
        estimate, model_sd = method.estimate(batch, direction)
        image = volume_of(estimate, method)
        seconds = time.perf_counter() - start
        from_donor = volume_of(method.estimate(scans.donor_source(row, batch, direction, method), direction)[0], method)
        sd = None if model_sd is None else volume_of(model_sd, method)
        uncertainty = {} if sd is None else uncertainty_of_sd(image, sd, real, mask)
        if self.draws.audited(method):
            generator = torch.Generator(device_of(method)).manual_seed(self.draws.seed * 1_000_003 + row)
            drawn = (method.sample(batch, direction, generator, self.draws.steps) for _ in range(self.draws.number))
            volumes = np.stack([volume_of(sample, method) for sample in drawn])
            sd, uncertainty = volumes.std(0, ddof=1), uncertainty_of_samples(volumes, real, mask)
        shuffled = {"shuffled_source_psnr_brain": psnr(from_donor, real, mask)}
        return image, sd, image_quality(image, real, mask) | shuffled | uncertainty, seconds


@dataclass
class Scored:
    """Scores of a method in one direction, of all scans: the parts of its blocks together, in the order of the scans.

    scalars: scores of the whole set by name. The other attributes are those of `Part`.
    """

    method: str
    direction: Direction
    columns: list[str]
    rows: list[tuple[float, ...]]
    regions: np.ndarray
    seconds: list[float]
    images: list[np.ndarray]
    sd: list[np.ndarray]
    scalars: dict[str, float]


def scored(
    methods: Mapping[str, Method],
    scans: Scans,
    atlas: Atlas,
    draws: Draws,
    workers: Workers,
    progress: Callable[[int, int], None],
) -> Iterator[Scored]:
    """Yield the scores of every method in both directions, in this order.

    The scans are divided among the workers, whose number does not change the scores. Memory holds a block of scans per
    process. progress(finished, blocks) is called after each block. Raises ValueError for a
    method that other processes cannot load.
    """
    tasks = [Task(name, direction, rows) for name in methods for direction in Direction for rows in scans.blocks()]
    with ExitStack() as stack:
        if workers.several:
            folder = stack.enter_context(workers.scratch())
            method: Callable[[str], Method] = _Saved.of(methods, folder)
        else:
            method = methods.__getitem__
        run = secrets.token_hex(8)
        stack.callback(_SCORERS.pop, run, None)
        parts = workers.in_order(
            partial(_score, run),
            tasks,
            name=lambda task: f"scans {task.rows[0] + 1} to {task.rows[-1] + 1} by {task.method}",
            start=partial(_begin, run, Scorer(scans, atlas, draws, method)),
        )
        reported = _reported(parts, len(tasks), progress)
        for (name, direction), group in groupby(reported, key=lambda part: (part.task.method, part.task.direction)):
            yield _together(name, direction, group, scans, len(atlas))


_SCORERS: dict[str, Scorer] = {}  # of the runs that this process takes part in


def _begin(run: str, scorer: Scorer) -> None:
    _SCORERS[run] = scorer


def _score(run: str, task: Task) -> Part:
    return _SCORERS[run].score(task)


@dataclass(frozen=True)
class _Saved:
    """Methods that another process loads from a folder, one at a time. folders, devices: by the name of the method."""

    folders: dict[str, Path]
    devices: dict[str, torch.device]

    @classmethod
    def of(cls, methods: Mapping[str, Method], folder: Path) -> _Saved:
        """Save methods into a folder. Raises ValueError for a class that no module of `pdsynth.methods` registers."""
        for name, method in methods.items():
            known = type(method).__module__.startswith("pdsynth.methods.")
            if not known or registry().get(method.name) is not type(method):
                raise ValueError(f"{name} is not a method of pdsynth.methods, which other processes load. Use one job.")
        folders = {name: folder / str(number) for number, name in enumerate(methods)}
        for name, method in methods.items():
            checkpoint.save(method, folders[name], {})
        return cls(folders, {name: device_of(method) for name, method in methods.items()})

    def __call__(self, name: str) -> Method:
        return _loaded(self.folders[name], self.devices[name])


@lru_cache(maxsize=1)
def _loaded(folder: Path, device: torch.device) -> Method:
    return checkpoint.load(folder)[0].to(device)


def _reported(parts: Iterator[Part], total: int, progress: Callable[[int, int], None]) -> Iterator[Part]:
    for number, part in enumerate(parts, start=1):
        progress(number, total)
        yield part


def _together(name: str, direction: Direction, parts: Iterator[Part], scans: Scans, regions: int) -> Scored:
    """The scores of all blocks of a method in one direction, which come in the order of the scans."""
    whole = Scored(name, direction, [], [], np.empty((len(scans), regions)), [], [], [], {})
    within, identified = WithinSite(), []
    common = scans.common[direction]
    among_first = common[scans.common_first[direction]]
    for part in parts:
        for place, row in enumerate(part.task.rows):
            within.add(part.inside[place, among_first], scans.real(row, direction)[common], scans.site[row])
        part.inside = part.inside[:0].copy()  # the iterators hold this part while the next one is scored
        whole.columns = part.columns
        whole.rows += part.rows
        whole.seconds += part.seconds
        whole.images += part.images
        whole.sd += part.sd
        whole.regions[part.task.rows] = part.regions  # copied, since small arrays would remain between large ones
        identified += part.identified
        give_back_memory()
    whole.scalars = {
        "identification_rate": float(np.mean(identified)),
        "within_site_r": within.r,
        "within_site_slope": within.slope,
    }
    return whole
