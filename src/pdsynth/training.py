"""One training loop for every method: stages, EMA, precision, budget in steps or wall time, checkpoint, exact resume.

It knows stages, objectives and losses, and no method.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins.environments.lightning import find_free_network_port

from pdsynth import stage_checkpoint
from pdsynth.data.pairs import Pairs
from pdsynth.files import read_json, write_json
from pdsynth.journal import COST, Journal
from pdsynth.methods.base import Method
from pdsynth.resources import PRECISIONS, refuse_more_devices, resolve_device, resolve_precision
from pdsynth.stage_training import Place, Rank, StageModule, train_stage
from pdsynth.workers import Workers

BEGUN_AS = "training.json"  # of a run: the precision and the number of devices that it was begun with


@dataclass(frozen=True)
class StagePart:
    """A stage of a method by its number, with its seed and its part of the run's steps and seconds."""

    number: int
    seed: int
    steps: int | None
    budget: float | None

    def of(self, method: Method) -> StageModule:
        """The stage of this method, to be trained."""
        return StageModule(method, method.stages()[self.number], self.seed, self.steps, self.budget)


def train(
    method: Method,
    train: Pairs,
    run: str | Path,
    *,
    seed: int,
    steps: int | None = None,
    budget: float | None = None,
    device: str = "auto",
    resume: bool = False,
    precision: str | None = None,
    devices: int = 1,
) -> Method:
    """Fit a method's closed-form state, then train its stages on the training rows, and return it in eval mode.

    The budget is a number of steps, or wall time in seconds, for all stages together by their shares. It counts
    training steps only: closed-form fits, before and after, and the estimates that a stage caches come on top. With
    `resume`, training goes on from the checkpoints in `run`; by steps, the result equals that of an uninterrupted run.
    A stage that goes on, under a larger budget, begins the later ones anew. precision is Lightning's "32-true",
    "bf16-mixed" or "16-mixed"; where it is None, that which the run was begun with, else the device's fast one
    (`resolve_precision`). A CPU never takes 16-mixed.

    With several `devices`, that many processes of this machine train together, each on batches of its own, and average
    their gradients: on "cpu" of one thread each, on "cuda" of one GPU each. A program that calls this with several must
    guard its main module, as Python's multiprocessing asks. The bytes are a function of the seed and of `devices`.

    Raises ValueError for another precision, and one or a number of devices other than a resumed run's; for a device, or
    a number of them, that is not here; and where neither steps nor budget is given to a method that has stages.
    """
    run, device = Path(run), resolve_device(device)
    folder = run / "checkpoints"
    refuse_more_devices(device, devices)
    precision = chosen_precision(run, precision, device, resume)
    begun = read_json(run / BEGUN_AS).get("devices", 1)
    if resume and any(folder.glob("*.ckpt")) and begun != devices:
        raise ValueError(f"{run} was begun on {begun} devices, not {devices}. Give --devices {begun}, or another run.")
    place = Place(device, precision, devices)
    folder.mkdir(parents=True, exist_ok=True)
    several = {"devices": devices} if devices > 1 else {}  # without it a run is of one, as those of 0.1.0 are
    write_json(run / BEGUN_AS, {"precision": precision, **several})
    with quiet_lightning(), flushed_denormals():
        method.sd_scale.fill_(1)  # what is trained anew is to be calibrated anew
        method.fit(train, torch.Generator().manual_seed(seed))
        stages = method.stages()
        if stages and not (steps or budget):
            raise ValueError("neither steps nor a budget is given. Set --steps or --budget.")
        total = sum(stage.share for stage in stages)
        checkpoints = [folder / f"{number}-{stage.name}.ckpt" for number, stage in enumerate(stages)]
        if not resume:
            _remove(run / "metrics.csv", run / COST, *checkpoints)
        for number, stage in enumerate(stages):
            share = stage.share / total
            part = StagePart(
                number,
                seed + 7919 * number,
                max(1, round(steps * share)) if steps else None,
                budget * share if budget else None,
            )
            module = part.of(method)
            if not _restore(module, checkpoints[number]):
                # each holds the whole method, so it would bring back this stage's networks as they were
                _remove(*checkpoints[number + 1 :])
                if devices == 1:
                    train_stage(module, train, Journal(run, checkpoints[number]), checkpoints[number], place)
                else:
                    _train_together(method, part, train, run, checkpoints[number], place)
                    _restore(module, checkpoints[number])
            module.ema.copy_to_module()
            method.eval()
        method.to(device).complete(train)  # Lightning has brought it back to the CPU
    return method.cpu().eval()


def chosen_precision(run: Path, asked: str | None, device: str, resume: bool, default: str = "bf16-mixed") -> str:
    """The precision of a run: as asked, else as it was begun, else the default, or the device's faster one for it.

    Raises ValueError for a word that is none, and where another is asked than the run was begun with.
    """
    if asked is not None and asked not in PRECISIONS:
        raise ValueError(f"there is no precision {asked!r} here. Choose {', '.join(PRECISIONS)}.")
    if asked == "16-mixed":
        asked = resolve_precision(asked, device)
    begun = read_json(run / BEGUN_AS).get("precision") if resume else None
    if resume and begun is None and any((run / "checkpoints").glob("*.ckpt")):
        begun = "bf16-mixed"  # by a version that knew no other
    if asked and begun and asked != begun:
        raise ValueError(f"{run} was begun in {begun}, not {asked}. Leave out --precision, or begin another run.")
    return asked or begun or resolve_precision(default, device)


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Inside the block Lightning gives no advice; afterwards its loggers and Python's warnings are as they were."""
    before = {log: log.level for log in map(logging.getLogger, ("pytorch_lightning", "lightning_fabric"))}
    for log in before:
        log.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            # on Lightning itself, and on frozen networks, which are meant to stay in eval mode
            warnings.filterwarnings("ignore", message=".*treespec.*|.*not resumable.*|.*in eval mode.*")
            yield
    finally:
        for log, level in before.items():
            log.setLevel(level)


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """Inside the block denormal numbers count as zero (they made one run ten times slower); afterwards as before."""
    before = float(torch.tensor([1e-310], dtype=torch.float64) * 1) == 0  # torch sets the switch, but does not show it
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def _remove(*paths: Path) -> None:
    for path in paths:
        path.unlink(missing_ok=True)
        if path.suffix == stage_checkpoint.SUFFIX:
            stage_checkpoint.record_of(path).unlink(missing_ok=True)


def _restore(module: StageModule, checkpoint: Path) -> bool:
    """Take a stage's clock from its checkpoint, and its weights if it is finished; returns whether it is.

    Raises InputError for a checkpoint that is damaged, or whose weights or optimisers are not this stage's.
    """
    if not checkpoint.exists():
        return False
    kept = stage_checkpoint.read(checkpoint)
    with stage_checkpoint.restoring(checkpoint):
        module.on_load_checkpoint(kept)
        finished = module.progress >= 1
        if finished:
            module.load_state_dict(kept["state_dict"])
        else:
            _refuse_others(module, kept)
    return finished


def _refuse_others(module: StageModule, kept: dict[str, Any]) -> None:
    """Raise ValueError or KeyError where Lightning could not take over the weights or the optimisers."""
    shapes = {name: value.shape for name, value in module.state_dict().items()}
    if shapes != {name: value.shape for name, value in kept["state_dict"].items()}:
        raise ValueError("its weights are not those of this stage")
    for optimizer, state in zip(module.configure_optimizers(), kept["optimizer_states"], strict=True):
        optimizer.load_state_dict(state)


def _train_together(
    method: Method,
    part: StagePart,
    train: Pairs,
    run: Path,
    checkpoint: Path,
    place: Place,
) -> None:
    """Train a stage in one process per device; its checkpoint then holds what they have learned."""
    work = partial(_train_rank, method.cpu(), part, train, run, checkpoint, place, find_free_network_port())
    for _ in Workers(place.devices).run(work, range(place.devices), name=lambda rank: f"{run}, process {rank}"):
        pass


def _train_rank(
    method: Method,
    part: StagePart,
    train: Pairs,
    run: Path,
    checkpoint: Path,
    place: Place,
    port: int,
    rank: int,
) -> None:
    """The work of one of the processes: Lightning lets the first alone write rows and checkpoints."""
    method = copy.deepcopy(method)  # its tensors have come in memory that all ranks share
    module = part.of(method)
    _restore(module, checkpoint)
    with quiet_lightning(), flushed_denormals():
        train_stage(module, train, Journal(run, checkpoint), checkpoint, place, Rank(rank, port))
