"""One training loop for every method: stages, EMA, precision, budget in steps or wall time, checkpoint, exact resume.

It knows stages, objectives and losses, and no method.
"""

from __future__ import annotations

import csv
import logging
import math
import time
import warnings
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

from pdsynth.data.pairs import PairBatch, Pairs
from pdsynth.methods.base import Method, Stage
from pdsynth.networks.ema import EMA

WARMUP = 0.03  # part of a stage over which the learning rate rises
CLIP = 1.0  # gradient norm
LOG_EVERY = 25  # steps


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
        self.step, self.elapsed = 0, 0.0
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
        for objective, optimizer in zip(self.stage.objectives, optimizers, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = objective.learning_rate * rate
            self.toggle_optimizer(optimizer)
            terms = objective.loss(batch, generator)
            optimizer.zero_grad()
            self.manual_backward(torch.stack(list(terms.values())).sum())
            # Lightning clips no fused optimiser under autocast; bf16 has no loss scale that would forbid it
            nn.utils.clip_grad_norm_(objective.module.parameters(), CLIP)
            optimizer.step()
            self.untoggle_optimizer(optimizer)
            self.latest |= {f"{objective.name}/{k}": v.detach() for k, v in terms.items()}
        self.ema.update()
        self.step += 1
        now = time.monotonic()
        self.elapsed += now - (self._clock or now)
        self._clock = now
        if self.progress >= 1:
            self.trainer.should_stop = True

    def transfer_batch_to_device(self, batch: PairBatch, device: torch.device, index: int) -> PairBatch:
        return batch.to(device)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["pdsynth"] = {"step": self.step, "elapsed": self.elapsed, "ema": self.ema.state_dict()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        kept = checkpoint["pdsynth"]
        self.step, self.elapsed = kept["step"], kept["elapsed"]
        self.ema.load_state_dict(kept["ema"])


class Journal(Callback):
    """A bar with the time left, rows of metrics.csv, and a checkpoint every few minutes and at the end."""

    def __init__(self, run: Path, checkpoint: Path, every_seconds: float = 120) -> None:
        self.run, self.checkpoint, self.every, self.saved = run, checkpoint, every_seconds, time.monotonic()
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
        self.bar.start()
        self.task = self.bar.add_task(module.stage.name, total=1.0, loss="")

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        assert isinstance(module, StageModule)
        if module.step % LOG_EVERY == 0 or module.progress >= 1:
            terms = {k: round(float(v), 6) for k, v in module.latest.items()}
            self.bar.update(self.task, completed=module.progress, loss=f"loss {sum(terms.values()):.4f}")
            self._write(module, terms)
        if time.monotonic() - self.saved > self.every:
            self._save(trainer)

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.bar.stop()
        self._save(trainer)

    def _save(self, trainer: pl.Trainer) -> None:
        partial = self.checkpoint.with_suffix(".partial")
        trainer.save_checkpoint(partial)
        if trainer.is_global_zero:
            partial.replace(self.checkpoint)
        self.saved = time.monotonic()

    def _write(self, module: StageModule, terms: dict[str, float]) -> None:
        path = self.run / "metrics.csv"
        new = not path.exists()
        with path.open("a", newline="") as file:
            writer = csv.writer(file)
            if new:
                writer.writerow(["stage", "step", "seconds", "term", "value"])
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
    precision: str = "32-true",
    devices: int | str = 1,
    strategy: str = "auto",
) -> Method:
    """Fit a method's closed-form state, then train its stages on the training rows, and return it in eval mode.

    The budget is a number of steps, or wall time in seconds, for all stages together by their shares. With `resume`,
    training goes on from the checkpoints in `run`; by steps, the result equals that of an uninterrupted run.
    precision is Lightning's "32-true" or "bf16-mixed". Raises ValueError for another one, and where neither steps nor
    budget is given to a method that has stages.
    """
    if precision not in ("32-true", "bf16-mixed"):
        raise ValueError(f"there is no precision {precision!r} here. Choose 32-true or bf16-mixed.")
    run = Path(run)
    run.mkdir(parents=True, exist_ok=True)
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*treespec.*|.*not resumable.*")  # Lightning's own business
    torch.set_flush_denormal(True)  # denormals made one run ten times slower
    try:
        method.fit(train, torch.Generator().manual_seed(seed))
        stages = method.stages()
        if stages and not (steps or budget):
            raise ValueError("neither steps nor a budget is given. Set --steps or --budget.")
        total = sum(stage.share for stage in stages)
        for number, stage in enumerate(stages):
            share = stage.share / total
            checkpoint = run / "checkpoints" / f"{number}-{stage.name}.ckpt"
            checkpoint.parent.mkdir(exist_ok=True)
            if not resume:
                checkpoint.unlink(missing_ok=True)
            _train_stage(
                method,
                stage,
                train,
                checkpoint,
                seed=seed + 7919 * number,
                steps=max(1, round(steps * share)) if steps else None,
                budget=budget * share if budget else None,
                trainer={
                    "accelerator": {"auto": "auto", "cpu": "cpu", "cuda": "gpu"}[device],
                    "devices": devices,
                    "strategy": strategy,
                    "precision": precision,
                },
            )
    finally:
        torch.set_flush_denormal(False)  # other code in this process may need them
    return method.cpu().eval()


def _train_stage(
    method: Method,
    stage: Stage,
    train: Pairs,
    checkpoint: Path,
    *,
    seed: int,
    steps: int | None,
    budget: float | None,
    trainer: dict[str, Any],
) -> None:
    finished = False
    if checkpoint.exists():
        kept = torch.load(checkpoint, map_location="cpu", weights_only=True)
        finished = bool(kept["pdsynth"]["step"] >= steps) if steps else kept["pdsynth"]["elapsed"] >= (budget or 0)
    module = StageModule(method, stage, seed, steps, budget)
    if finished:
        module.load_state_dict(kept["state_dict"])
        module.ema.load_state_dict(kept["pdsynth"]["ema"])
    else:
        if stage.prepare is not None:
            train = stage.prepare(train)
        method.train()
        first = int(kept["pdsynth"]["step"]) if checkpoint.exists() else 0
        batches = StepBatches(train, stage, seed, first)
        pl.Trainer(
            **trainer,
            max_epochs=-1,
            max_steps=-1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            callbacks=[Journal(checkpoint.parent.parent, checkpoint)],
        ).fit(
            module,
            DataLoader(batches, batch_size=None),
            ckpt_path=checkpoint if checkpoint.exists() else None,
            weights_only=True,
        )
    module.ema.copy_to_module()
    method.eval()
