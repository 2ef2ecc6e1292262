"""The training loop of all methods: stages, EMA, precision, budget in steps or wall time, checkpoints, exact resume.

It depends on the interface of stages, objectives and losses only, not on any method.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from lightning_fabric.plugins.environments.lightning import find_free_network_port
from pydantic import BaseModel, Field

from pdsynth import schemas, stage_checkpoint
from pdsynth.data.pairs import Pairs
from pdsynth.files import write_json
from pdsynth.journal import COST, Journal
from pdsynth.methods.base import Method, Stage
from pdsynth.options import TrainOptions
from pdsynth.progress import working
from pdsynth.ranks import Rank, run_together
from pdsynth.resources import PRECISIONS, refuse_more_devices, resolve_device, resolve_precision
from pdsynth.stage_training import Hardware, StageModule, train_stage

BEGUN_AS = "training.json"  # precision, devices and parts of a batch at the start of a run


class _Begun(BaseModel):
    precision: Literal[PRECISIONS]  # type: ignore[valid-type]
    devices: Annotated[int, Field(ge=1)] = 1
    accumulate: Annotated[int, Field(ge=1)] = 1


@dataclass(frozen=True)
class StagePart:
    """One stage of a method in a training run: its number from 0, its seed, its limits and its files.

    seed: of the batches and the noise. accumulate: number of parts of a device's batch. steps, budget: the share of
    this stage in the steps and in the seconds of the run; None means no such limit. run: folder of the run. checkpoint:
    path of the stage's checkpoint file.
    """

    number: int
    seed: int
    accumulate: int
    steps: int | None
    budget: float | None
    run: Path
    checkpoint: Path

    def of(self, method: Method) -> StageModule:
        """The Lightning module that trains this stage of `method`, before its first step."""
        stage = method.stages()[self.number]
        return StageModule(method, stage, self.seed, self.steps, self.budget, self.accumulate)

    def train(self, module: StageModule, train: Pairs, hardware: Hardware, rank: Rank | None = None) -> None:
        """Train the stage until it is complete, from its checkpoint if there is one.

        The losses are written into the file metrics.csv of the run. module: the Lightning module of this stage, from
        `of`; its method is trained in place. train: the training pairs. hardware: device, number of devices and
        precision. rank: this process among those that train together; None for one device.
        """
        train_stage(module, train, Journal(self.run, self.checkpoint), self.checkpoint, hardware, rank)


def train(method: Method, train: Pairs, run: str | Path, options: TrainOptions) -> Method:
    """Train a method in place on the training pairs, and return it in eval mode on the CPU.

    First the calibration of its SD and its correction for a new scanner are reset, and the state that has a closed-form
    solution is fitted; then each stage (part of the training with its own networks and losses) is trained. `run` is the
    folder for checkpoints and metrics.csv. The limits are options.steps, a number of steps, and options.budget, wall
    time in seconds. Each is divided among all stages by their shares, with one step per stage at least; if both are
    given, the first one that is reached ends a stage. The limits apply to training steps only; closed-form fits and
    cached estimates take further time.

    With options.resume, training continues from the checkpoints in `run`; without it, they are removed. If the limit is
    in steps, the result equals that of an uninterrupted run. If a stage is continued under a larger limit, the later
    stages are trained again from the start. options.precision is "32-true", "bf16-mixed" or "16-mixed" (names of
    Lightning). None means the precision of the resumed run, or the fast one of the device. On a CPU, "16-mixed" is
    always replaced.

    If options.devices is above 1, as many processes of this machine train together: each has an equal part of every
    batch, and one thread ("cpu") or one GPU ("cuda"), and their gradients are averaged. options.accumulate divides the
    part of a device further; it takes these parts one after the other. The result is that of one device and one part,
    but for rounding. Fits in closed form and cached estimates are computed once, in this process. If a process dies,
    the others are ended within 5 seconds. A program that calls this function with several devices must guard its main
    module, as Python's multiprocessing requires. On a CPU, the bytes of the result depend on the seed, the number of
    devices and options.accumulate only.

    Raises ValueError for an unknown precision, for a precision or a number of devices or parts other than those of the
    resumed run, for a device that does not exist or too many of them, for batches that cannot be divided evenly, for
    negative steps or budget, and if neither steps nor budget is given for a method with stages. Raises InputError if a
    checkpoint is damaged or belongs to another method, and if a process that trains dies.
    """
    run, device, devices = Path(run), resolve_device(options.device), options.devices
    folder = run / "checkpoints"
    refuse_more_devices(device, devices)
    precision = chosen_precision(run, options, device)
    refuse_uneven(method.stages(), options)
    several = {name: n for name in ("devices", "accumulate") if (n := getattr(options, name)) > 1}
    earlier = _begun_as(run)
    if options.resume and any(folder.glob("*.ckpt")):
        for name in ("devices", "accumulate"):
            if earlier.get(name, 1) != several.get(name, 1):
                problem = f"was begun with --{name} {earlier.get(name, 1)}, not {several.get(name, 1)}"
                raise ValueError(f"{run} {problem}. Give --{name} {earlier.get(name, 1)}, or another run.")
    hardware = Hardware(device, precision, devices)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(run / BEGUN_AS, {"precision": precision, **several})
    with quiet_lightning(), flushed_denormals():
        method.sd_scale.fill_(1)  # a new training needs a new calibration, and a new correction
        method.uncorrect()
        with working(f"Fitting {method.name}"):
            method.fit(train, torch.Generator().manual_seed(options.seed))
        stages = method.stages()
        if stages and not (options.steps or options.budget):
            raise ValueError("neither steps nor a budget is given. Set --steps or --budget.")
        if min(options.steps or 0, options.budget or 0) < 0:
            raise ValueError("steps or budget is negative. Set --steps or --budget to a number above 0.")
        total = sum(stage.share for stage in stages)
        checkpoints = [folder / f"{number}-{stage.name}.ckpt" for number, stage in enumerate(stages)]
        if not options.resume:
            _remove(run / "metrics.csv", run / COST, *checkpoints)
        for number, stage in enumerate(stages):
            share = stage.share / total
            part = StagePart(
                number=number,
                seed=options.seed + 7919 * number,
                accumulate=options.accumulate,
                steps=max(1, round(options.steps * share)) if options.steps else None,
                budget=options.budget * share if options.budget else None,
                run=run,
                checkpoint=checkpoints[number],
            )
            module = part.of(method)
            if not _restore(module, part.checkpoint):
                # each holds the whole method, and would restore an earlier state of this stage's networks
                _remove(*checkpoints[number + 1 :])
                rows = train
                if module.stage.prepare is not None:
                    method.to(device)  # it computes its estimates there, once for all devices
                    rows = module.stage.prepare(train)
                if devices == 1:
                    part.train(module, rows, hardware)
                else:
                    _train_together(method, part, rows, hardware)
                    _restore(module, part.checkpoint)
            module.ema.copy_to_module()
            method.eval()
        with working(f"Completing {method.name}"):
            method.to(device).complete(train)  # Lightning moved it to the CPU after training
    return method.cpu().eval()


def refuse_uneven(stages: Sequence[Stage], options: TrainOptions) -> None:
    """Raise ValueError unless devices and parts, by options.devices and options.accumulate, divide each stage's batch.

    stages: those of the method to train.
    """
    if options.accumulate < 1:
        raise ValueError(f"a batch needs a part, not {options.accumulate}. Give --accumulate 1 or more.")
    parts = options.devices * options.accumulate
    for stage in stages:
        if stage.batch_size % parts:
            raise ValueError(
                f"the batches of the stage {stage.name}, of {stage.batch_size}, cannot be divided into {parts} equal "
                f"parts (--devices {options.devices}, --accumulate {options.accumulate}). Change these, or set a batch "
                f"size that is a multiple of {parts} (--set)."
            )


def chosen_precision(run: Path, options: TrainOptions, device: str, default: str = "bf16-mixed") -> str:
    """The precision of a training run, one of "32-true", "bf16-mixed" and "16-mixed".

    It is options.precision if this is given, else that of the resumed run, else `default`. A default that is slow on
    the device ("cpu" or "cuda") is replaced by a faster one, and so is "16-mixed" on a CPU. run: folder of the run.
    Raises ValueError for an unknown precision, and for another one than that of the resumed run.
    """
    precision = options.precision
    if precision is not None and precision not in PRECISIONS:
        raise ValueError(f"there is no precision {precision!r} here. Choose {', '.join(PRECISIONS)}.")
    if precision == "16-mixed":
        precision = resolve_precision(precision, device)
    earlier = _begun_as(run).get("precision") if options.resume else None
    if options.resume and earlier is None and any((run / "checkpoints").glob("*.ckpt")):
        earlier = "bf16-mixed"  # the only precision of older versions
    if precision and earlier and precision != earlier:
        raise ValueError(f"{run} was begun in {earlier}, not {precision}. Leave out --precision, or begin another run.")
    return precision or earlier or resolve_precision(default, device)


def _begun_as(run: Path) -> dict[str, Any]:
    """The content of training.json of a run; {} if there is none. Raises InputError if it does not fit."""
    path = run / BEGUN_AS
    remedy = "restore it, or begin another run"
    return schemas.read_object(path, _Begun, remedy) if path.exists() else {}


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Suppress the log messages of the library Lightning below the level WARNING, and some warnings, in the block.

    The warnings are those that do not concern the user, such as on networks in eval mode. The earlier levels of the
    loggers and filters of warnings are restored afterwards.
    """
    before = {log: log.level for log in map(logging.getLogger, ("pytorch_lightning", "lightning_fabric"))}
    for log in before:
        log.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            # warnings of Lightning on its own code, and on frozen networks, which stay in eval mode on purpose
            warnings.filterwarnings("ignore", message=".*treespec.*|.*not resumable.*|.*in eval mode.*")
            yield
    finally:
        for log, level in before.items():
            log.setLevel(level)


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """Treat floating-point numbers too small for full precision (denormals) as zero in the block, which is faster.

    Such numbers slowed one run by a factor of 10. The earlier state of torch is restored afterwards.
    """
    before = float(torch.tensor([1e-310], dtype=torch.float64) * 1) == 0  # torch can set this state but not read it
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
    """Restore a stage's step and time from its checkpoint; return whether the stage is finished.

    The weights of a finished stage are restored too; those of an unfinished one are restored later, by Lightning.
    Raises InputError if the checkpoint is damaged, or has the weights or optimisers of another stage.
    """
    if not checkpoint.exists():
        return False
    state = stage_checkpoint.read(checkpoint)
    with stage_checkpoint.restoring(checkpoint):
        module.on_load_checkpoint(state)
        finished = module.progress >= 1
        if finished:
            module.load_state_dict(state["state_dict"])
        else:
            _refuse_others(module, state)
    return finished


def _refuse_others(module: StageModule, checkpoint: dict[str, Any]) -> None:
    """Raise ValueError or KeyError if Lightning could not restore the weights or the optimisers."""
    shapes = {name: value.shape for name, value in module.state_dict().items()}
    if shapes != {name: value.shape for name, value in checkpoint["state_dict"].items()}:
        raise ValueError("its weights are not those of this stage")
    for optimizer, state in zip(module.configure_optimizers(), checkpoint["optimizer_states"], strict=True):
        optimizer.load_state_dict(state)


def _train_together(method: Method, part: StagePart, train: Pairs, hardware: Hardware) -> None:
    """Train a stage in one process per device. The trained weights are then in its checkpoint."""
    work = partial(_train_rank, method.cpu(), part, train, hardware, find_free_network_port())
    run_together(work, hardware.devices, part.run)


def _train_rank(method: Method, part: StagePart, train: Pairs, hardware: Hardware, port: int, rank: int) -> None:
    """The work of one of the processes. Only the first one writes rows and checkpoints."""
    method = copy.deepcopy(method)  # its tensors are in memory that all ranks share
    module = part.of(method)
    _restore(module, part.checkpoint)
    with quiet_lightning(), flushed_denormals():
        part.train(module, train, hardware, Rank(rank, port))
