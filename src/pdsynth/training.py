"""One training loop for every method: stages, EMA, precision, budget in steps or wall time, checkpoint, exact resume.

It knows stages, objectives and losses, and no method.
"""

from __future__ import annotations

import csv
import logging
import math
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from itertools import count
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.plugins.environments import LightningEnvironment
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

from pdsynth import stage_checkpoint
from pdsynth.data.batch import PairBatch
from pdsynth.data.pairs import Pairs
from pdsynth.files import complete_or_absent, read_json, write_json
from pdsynth.methods.base import Method, Stage
from pdsynth.networks.ema import EMA
from pdsynth.networks.flops import counted_flops
from pdsynth.resources import PRECISIONS, resolve_device, resolve_precision
from pdsynth.stage_checkpoint import CompleteCheckpoints

WARMUP = 0.03  # part of a stage over which the learning rate rises
CLIP = 1.0  # gradient norm
LOG_EVERY = 25  # steps
BEGUN_AS = "training.json"  # of a run: the precision that it was begun with
COST = "cost.json"  # of a run: steps, seconds and FLOPs (multiplications and additions apart) of each stage
COLUMNS = ["stage", "step", "seconds", "term", "value"]  # of metrics.csv


class StepBatches(IterableDataset):
    """The batches of a stage from step `first` on, without end.

    Batch number i is a function of the seed and i alone, so that a resumed run sees what an uninterrupted one would.
    """

    def __init__(self, pairs: Pairs, stage: Stage, seed: int, first: int) -> None:
        self.pairs, self.stage, self.seed, self.first = pairs, stage, seed, first

    def __iter__(self) -> Iterator[PairBatch]:
        # devices that train together draw different batches
        rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
        for step in count(self.first):
            yield self.pairs.patches(self.stage.patch, self.stage.batch_size, [self.seed, rank], step)


class StageModule(pl.LightningModule):
    """One stage under Lightning: steps each objective in turn, then the moving average."""

    def __init__(self, method: Method, stage: Stage, seed: int, steps: int | None, budget: float | None) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.method, self.stage, self.seed, self.steps, self.budget = method, stage, seed, steps, budget
        self.ema = EMA(nn.ModuleList([o.module for o in stage.objectives]), stage.ema_decay)
        self.step, self.elapsed, self.flops = 0, 0.0, 0
        self.latest: dict[str, torch.Tensor] = {}
        self._clock: float | None = None

    @property
    def progress(self) -> float:
        """Part of this stage that is done, by steps or by wall time."""
        by_steps = self.step / self.steps if self.steps else 0.0
        by_time = self.elapsed / self.budget if self.budget else 0.0
        return min(max(by_steps, by_time), 1.0)

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        return [
            torch.optim.AdamW(
                [p for p in o.module.parameters() if p.requires_grad],
                lr=o.learning_rate,
                weight_decay=o.weight_decay,
                fused=True,
            )
            for o in self.stage.objectives
        ]

    def on_fit_start(self) -> None:
        self._clock = time.monotonic()

    def training_step(self, batch: PairBatch, index: int) -> None:
        optimizers = self.optimizers()
        optimizers = optimizers if isinstance(optimizers, list) else [optimizers]
        decay = 0.5 * (1 + math.cos(math.pi * self.progress))
        rate = min(1.0, self.progress / WARMUP + 1e-3) * decay
        drawn = self.seed * 1_000_003 + self.step * 1009 + self.global_rank
        generator = torch.Generator(self.device).manual_seed(drawn)
        self.latest = {}
        with nullcontext() if self.flops else counted_flops() as counter:
            self._optimise(batch, generator, optimizers, rate)
        if counter is not None:
            self.flops = counter.get_total_flops()
        self.ema.update()
        self.step += 1
        now = time.monotonic()
        self.elapsed = self._longest(self.elapsed + now - (self._clock or now))
        self._clock = now
        if self.progress >= 1:
            self.trainer.should_stop = True

    def _optimise(self, batch: PairBatch, generator: torch.Generator, optimizers: Sequence[Any], rate: float) -> None:
        """One step of each objective in turn."""
        for objective, optimizer in zip(self.stage.objectives, optimizers, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = objective.learning_rate * rate
            self.toggle_optimizer(optimizer)
            terms = objective.loss(batch, generator)
            optimizer.zero_grad()
            self.manual_backward(torch.stack(list(terms.values())).sum())
            # Lightning clips no fused optimiser under autocast, so it is done here, on gradients without a loss scale
            scaler = getattr(self.trainer.precision_plugin, "scaler", None)
            if scaler is not None:
                scaler.unscale_(optimizer.optimizer)
            nn.utils.clip_grad_norm_(objective.module.parameters(), CLIP)
            optimizer.step()
            self.untoggle_optimizer(optimizer)
            self.latest |= {f"{objective.name}/{k}": v.detach() for k, v in terms.items()}

    def _longest(self, seconds: float) -> float:
        """The longest wall time of all ranks: one that stopped or saved by its own clock would wait for the others."""
        if self.trainer.world_size == 1:
            return seconds  # and a GPU need not wait for its queue
        clock = torch.tensor(seconds, dtype=torch.float64, device=self.device)
        return float(self.trainer.strategy.reduce(clock, reduce_op="max"))

    def transfer_batch_to_device(self, batch: PairBatch, device: torch.device, index: int) -> PairBatch:
        return batch.to(device)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["pdsynth"] = {
            "step": self.step,
            "elapsed": self.elapsed,
            "flops": self.flops,
            "ema": self.ema.state_dict(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        kept = checkpoint["pdsynth"]
        self.step, self.elapsed, self.flops = kept["step"], kept["elapsed"], kept.get("flops", 0)
        self.ema.load_state_dict(kept["ema"])


class Journal(Callback):
    """A bar with the time left, rows of metrics.csv, and a checkpoint every few minutes and at the end.

    Of devices that train together the first shows and writes; all take part in a checkpoint.
    """

    def __init__(self, run: Path, checkpoint: Path, every_seconds: float = 120) -> None:
        self.metrics, self.cost, self.checkpoint = run / "metrics.csv", run / COST, checkpoint
        self.every, self.saved = every_seconds, 0.0
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[loss]}"),
            transient=True,
        )

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        assert isinstance(module, StageModule)
        self.saved = module.elapsed
        self.bar.disable = not trainer.is_global_zero
        self.bar.start()
        self.task = self.bar.add_task(module.stage.name, total=1.0, loss="")
        if trainer.is_global_zero:
            self._forget_rows_after(module.stage.name, module.step)

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        assert isinstance(module, StageModule)
        if trainer.is_global_zero and (module.step % LOG_EVERY == 0 or module.progress >= 1):
            terms = {k: round(float(v), 6) for k, v in module.latest.items()}
            self.bar.update(self.task, completed=module.progress, loss=f"loss {sum(terms.values()):.4f}")
            self._write(module, terms)
        if module.elapsed - self.saved > self.every:
            self._save(trainer, module)

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        assert isinstance(module, StageModule)
        self.bar.stop()
        if trainer.is_global_zero:
            spent = {"steps": module.step, "seconds": round(module.elapsed, 1), "gflop_per_step": module.flops / 1e9}
            write_json(self.cost, read_json(self.cost) | {module.stage.name: spent})
        self._save(trainer, module)

    def on_exception(self, trainer: pl.Trainer, module: pl.LightningModule, exception: BaseException) -> None:
        self.bar.stop()  # else its thread draws over the error

    def _save(self, trainer: pl.Trainer, module: StageModule) -> None:
        trainer.save_checkpoint(self.checkpoint)  # by CompleteCheckpoints, on the first device
        self.saved = module.elapsed

    def _forget_rows_after(self, stage: str, step: int) -> None:
        """Drop the rows of steps that no checkpoint holds: they are trained, and written, again."""
        kept = [COLUMNS]
        if self.metrics.exists():
            with self.metrics.open(newline="") as file:
                whole = [row for row in csv.reader(file) if len(row) == len(COLUMNS)][1:]  # a killed run cuts its last
            kept += [row for row in whole if row[0] != stage or int(row[1]) <= step]
        with complete_or_absent(self.metrics) as temporary, temporary.open("w", newline="") as file:
            csv.writer(file).writerows(kept)

    def _write(self, module: StageModule, terms: dict[str, float]) -> None:
        with self.metrics.open("a", newline="") as file:
            writer = csv.writer(file)
            for term, value in terms.items():
                writer.writerow([module.stage.name, module.step, round(module.elapsed, 1), term, value])


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
    devices: int | str = 1,
    strategy: str = "auto",
) -> Method:
    """Fit a method's closed-form state, then train its stages on the training rows, and return it in eval mode.

    The budget is a number of steps, or wall time in seconds, for all stages together by their shares. It counts
    training steps only: closed-form fits, before and after, and the estimates that a stage caches come on top. With
    `resume`, training goes on from the checkpoints in `run`; by steps, the result equals that of an uninterrupted run.
    A stage that goes on, under a larger budget, begins the later ones anew. precision is Lightning's "32-true",
    "bf16-mixed" or "16-mixed"; where it is None, that which the run was begun with, else the device's fast one
    (`resolve_precision`). A CPU never takes 16-mixed.

    With several devices, strategy is Lightning's "ddp" for a method whose one objective trains all its networks, and
    "ddp_find_unused_parameters_true" for one, such as pds-paper or a GAN, that trains some of them at a time.

    Raises ValueError for another precision, one other than a resumed run's, a device that is not here, and where
    neither steps nor budget is given to a method that has stages.
    """
    run, device = Path(run), resolve_device(device)
    folder = run / "checkpoints"
    precision = chosen_precision(run, precision, device, resume)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(run / BEGUN_AS, {"precision": precision})
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    # on Lightning itself, and on frozen networks, which are meant to stay in eval mode
    warnings.filterwarnings("ignore", message=".*treespec.*|.*not resumable.*|.*in eval mode.*")
    torch.set_flush_denormal(True)  # denormals made one run ten times slower
    try:
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
            module = StageModule(
                method,
                stage,
                seed + 7919 * number,
                max(1, round(steps * share)) if steps else None,
                budget * share if budget else None,
            )
            if not _restore(module, checkpoints[number]):
                # each holds the whole method, so it would bring back this stage's networks as they were
                _remove(*checkpoints[number + 1 :])
                journal = Journal(run, checkpoints[number])
                accelerator = {"cpu": "cpu", "cuda": "gpu"}[device]
                _train_stage(module, train, journal, accelerator, devices, strategy, precision)
            module.ema.copy_to_module()
            method.eval()
        method.to(device).complete(train)  # Lightning has brought it back to the CPU
    finally:
        torch.set_flush_denormal(False)  # other code in this process may need them
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
    with stage_checkpoint.fitting(checkpoint):
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


def _train_stage(
    module: StageModule,
    train: Pairs,
    journal: Journal,
    accelerator: str,
    devices: int | str,
    strategy: str,
    precision: str,
) -> None:
    """Train a stage to its end, from its checkpoint where there is one."""
    trainer = pl.Trainer(
        accelerator=accelerator,
        devices=devices,
        strategy=strategy,
        precision=precision,  # type: ignore[arg-type]
        max_epochs=-1,
        max_steps=-1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        callbacks=[journal],
        # else a cluster's job must ask for as many tasks as devices, and no more; and Lightning would write as it does
        plugins=[LightningEnvironment(), CompleteCheckpoints()],
    )
    module.method.to(trainer.strategy.root_device)  # where `prepare` makes its estimates
    if module.stage.prepare is not None:
        train = module.stage.prepare(train)
    module.method.train()
    batches = StepBatches(train, module.stage, module.seed, module.step)
    ckpt_path = journal.checkpoint if journal.checkpoint.exists() else None
    trainer.fit(module, DataLoader(batches, batch_size=None), ckpt_path=ckpt_path, weights_only=True)
