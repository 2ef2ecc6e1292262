"""Training of one stage of a method by Lightning: batches, steps and moving average, on one device or several."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.plugins.environments import LightningEnvironment
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

from pdsynth.data.batch import PairBatch
from pdsynth.data.pairs import Pairs
from pdsynth.draws import Draws
from pdsynth.methods.base import ADDED, Method, Stage
from pdsynth.networks.ema import EMA
from pdsynth.networks.flops import counted_flops
from pdsynth.ranks import Rank, Together, average_gradients
from pdsynth.stage_checkpoint import CompleteCheckpoints

WARMUP = 0.03  # fraction of a stage over which the learning rate rises
CLIP = 1.0  # largest norm of the gradient
AHEAD = 2  # batches that are read before they are needed
ACCELERATORS = {"cpu": "cpu", "cuda": "gpu"}


class StepBatches(IterableDataset):
    """The training batches of a stage, from step number `first` on, without end: each a `PairBatch` of patches.

    pairs: the training pairs. stage: gives the edge of the patches and their number per batch. rank: number, from 0, of
    the device, of `ranks` that divide each batch among them in equal parts. The batch of step i depends only on i and
    the seed, so that a resumed run gets the same batches as an uninterrupted one.
    """

    def __init__(self, pairs: Pairs, stage: Stage, seed: int, first: int, rank: int = 0, ranks: int = 1) -> None:
        self.pairs, self.stage, self.seed, self.first, self.rank, self.ranks = pairs, stage, seed, first, rank, ranks

    def __iter__(self) -> Iterator[PairBatch]:
        steps = count(self.first)
        thread = ThreadPoolExecutor(1)  # it reads the next batches while a step runs
        waiting = deque(thread.submit(self._batch, step) for step in islice(steps, AHEAD))
        try:
            while True:
                batch = waiting.popleft().result()
                waiting.append(thread.submit(self._batch, next(steps)))
                yield batch
        finally:
            thread.shutdown(cancel_futures=True)

    def _batch(self, step: int) -> PairBatch:
        patch, size = self.stage.patch, self.stage.batch_size
        return self.pairs.patches(patch, size, [self.seed], step, self.rank, self.ranks)


class StageModule(pl.LightningModule):
    """One stage (part) of the training of a method, as a Lightning module.

    Each step minimises the losses of the stage one after the other, each by one step of its own optimiser, and then
    updates the moving average of the weights, `ema`. The stage ends after `steps` steps or `budget` seconds, whichever
    is reached first; None means no such limit. seed: of the batches and the noise. accumulate: number of equal parts of
    a device's batch, whose gradients are added up. step, elapsed: steps and seconds so far, also of a resumed run.
    flops: operations of one step on all devices (see `counted_flops`), 0 before the first.
    """

    def __init__(
        self,
        method: Method,
        stage: Stage,
        seed: int,
        steps: int | None,
        budget: float | None,
        accumulate: int = 1,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.method, self.stage, self.seed, self.steps, self.budget = method, stage, seed, steps, budget
        self.ema = EMA(nn.ModuleList([o.module for o in stage.objectives]), stage.ema_decay)
        self.accumulate, self.step, self.elapsed, self.flops = accumulate, 0, 0.0, 0
        self._latest: dict[str, torch.Tensor] = {}
        self._clock: float | None = None

    @property
    def progress(self) -> float:
        """Fraction of this stage that is complete, from 0 to 1: by steps or by wall time, whichever is larger.

        It is 0 for a stage without limits.
        """
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
        # the same on all devices: each takes its part of the numbers of the whole batch
        generator = torch.Generator(self.device).manual_seed(self.seed * 1_000_003 + self.step * 1009)
        self._latest = {}
        with nullcontext() if self.flops else counted_flops() as counter:
            self._optimise(batch, generator, optimizers, rate)
        if counter is not None:
            self.flops = counter.get_total_flops() * self.trainer.world_size
        self.ema.update()
        self.step += 1
        now = time.monotonic()
        self.elapsed = self._longest(self.elapsed + now - (self._clock or now))
        self._clock = now
        if self.progress >= 1:
            self.trainer.should_stop = True

    def _optimise(self, batch: PairBatch, generator: torch.Generator, optimizers: Sequence[Any], rate: float) -> None:
        """One optimiser step for each objective in turn, by the mean gradient of all parts of the batch."""
        first = self.global_rank * self.accumulate
        for objective, optimizer in zip(self.stage.objectives, optimizers, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = objective.learning_rate * rate
            self.toggle_optimizer(optimizer)
            optimizer.zero_grad()
            state = generator.get_state()
            for number, own in enumerate(batch.parts(self.accumulate), first):
                generator.set_state(state)  # each part draws for the whole batch
                draws = Draws(generator, number, self.accumulate * self.trainer.world_size)
                terms = {k: v / self.accumulate for k, v in objective.loss(own, draws).items()}
                self.manual_backward(torch.stack(list(terms.values())).sum())
                for k, v in terms.items():
                    name = f"{objective.name}/{k}"
                    self._latest[name] = self._latest.get(name, 0) + v.detach()
            average_gradients(objective.module.parameters())
            # Lightning does not clip for fused optimisers under autocast; here the loss scale is removed first
            scaler = getattr(self.trainer.precision_plugin, "scaler", None)
            if scaler is not None:
                scaler.unscale_(optimizer.optimizer)
            nn.utils.clip_grad_norm_(objective.module.parameters(), CLIP)
            optimizer.step()
            self.untoggle_optimizer(optimizer)

    def latest(self) -> dict[str, float]:
        """The loss terms of the last step by "<objective>/<term>": means over its batch. All devices must call it."""
        values = torch.stack(list(self._latest.values())).double()
        if self.trainer.world_size > 1:
            values = self.trainer.strategy.reduce(values, reduce_op="mean")
        return dict(zip(self._latest, values.tolist(), strict=True))

    def _longest(self, seconds: float) -> float:
        """The longest wall time over all ranks. With separate clocks, ranks would stop or save at different steps."""
        if self.trainer.world_size == 1:
            return seconds  # without a reduction, for which a GPU would have to finish its queue
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
        state = checkpoint["pdsynth"]
        self.step, self.elapsed, self.flops = state["step"], state["elapsed"], state.get("flops", 0)
        self.ema.load_state_dict(state["ema"])
        for name in ADDED:  # checkpoints of earlier versions lack them
            checkpoint["state_dict"].setdefault(f"method.{name}", getattr(self.method, name))


@dataclass(frozen=True)
class Hardware:
    """The hardware of a training: device ("cpu" or "cuda"), number of devices, and precision.

    precision: "32-true", "bf16-mixed" or "16-mixed", as Lightning names them.
    """

    device: str
    precision: str
    devices: int = 1


def train_stage(
    module: StageModule,
    train: Pairs,
    callback: Callback,
    checkpoint: Path,
    hardware: Hardware,
    rank: Rank | None = None,
) -> None:
    """Train one stage of a method until it is complete, from its checkpoint file if there is one.

    module: the stage, with its method and limits. train: the training pairs. callback: called by Lightning during the
    training, to show and save the progress. checkpoint: path of the checkpoint file. hardware: device, number of
    devices and precision. The networks of module.method are trained in place; their moving average is in module.ema.
    With several devices, the process of each device calls this function with its own `rank`; each has an equal part of
    every batch, and the gradients of a step are averaged over them. None means one device.
    """
    trainer = pl.Trainer(
        accelerator=ACCELERATORS[hardware.device],
        devices=hardware.devices,
        strategy="auto" if rank is None else Together(),
        precision=hardware.precision,  # type: ignore[arg-type]
        max_epochs=-1,
        max_steps=-1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        callbacks=[callback],
        # Lightning's own cluster environment would require one task per device; its own checkpoints may be incomplete
        plugins=[rank or LightningEnvironment(), CompleteCheckpoints()],
    )
    module.method.train()
    number = 0 if rank is None else rank.rank
    batches = StepBatches(train, module.stage, module.seed, module.step, number, hardware.devices)
    ckpt_path = checkpoint if checkpoint.exists() else None
    trainer.fit(module, DataLoader(batches, batch_size=None), ckpt_path=ckpt_path, weights_only=True)
