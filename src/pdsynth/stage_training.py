"""One stage of a method under Lightning: its batches, its steps and its moving average, on one device or on several."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import count
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
from pdsynth.methods.base import Method, Stage
from pdsynth.networks.ema import EMA
from pdsynth.networks.flops import counted_flops
from pdsynth.stage_checkpoint import CompleteCheckpoints

WARMUP = 0.03  # part of a stage over which the learning rate rises
CLIP = 1.0  # gradient norm
ACCELERATORS = {"cpu": "cpu", "cuda": "gpu"}


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


@dataclass(frozen=True)
class Place:
    """Where a run trains ("cpu" or "cuda", and how many of them), and in which arithmetic (Lightning's word)."""

    device: str
    precision: str
    devices: int = 1


class Rank(LightningEnvironment):
    """The place of one process among those that train together on this machine; they meet at `port`."""

    def __init__(self, rank: int, port: int) -> None:
        super().__init__()
        self.rank, self._main_port = rank, port

    @property
    def creates_processes_externally(self) -> bool:
        return True  # else Lightning would start the command line once more for each

    def local_rank(self) -> int:
        return self.rank


def _strategy(module: StageModule) -> str:
    """Lightning's word: each step of "ddp" must give all parameters a gradient, where GANs step one network at a time.

    The other strategy looks at each step for those that have none, which takes time.
    """
    first, *others = module.stage.objectives
    trained = set(first.module.parameters())
    all_at_once = not others and trained.issuperset(p for p in module.method.parameters() if p.requires_grad)
    return "ddp" if all_at_once else "ddp_find_unused_parameters_true"


def train_stage(
    module: StageModule,
    train: Pairs,
    callback: Callback,
    checkpoint: Path,
    place: Place,
    environment: LightningEnvironment | None = None,
) -> None:
    """Train a stage to its end, from its checkpoint where there is one.

    Of several devices each one's process calls this, with its own `Rank`: the gradients of a step are averaged over all
    (torch's DistributedDataParallel), so that a step sees one batch per device.
    """
    trainer = pl.Trainer(
        accelerator=ACCELERATORS[place.device],
        devices=place.devices,
        strategy="auto" if place.devices == 1 else _strategy(module),
        precision=place.precision,  # type: ignore[arg-type]
        max_epochs=-1,
        max_steps=-1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        callbacks=[callback],
        # else a cluster's job must ask for as many tasks as devices, and no more; and Lightning would write as it does
        plugins=[environment or LightningEnvironment(), CompleteCheckpoints()],
    )
    module.method.to(trainer.strategy.root_device)  # where `prepare` makes its estimates
    if module.stage.prepare is not None:
        train = module.stage.prepare(train)
    module.method.train()
    batches = StepBatches(train, module.stage, module.seed, module.step)
    ckpt_path = checkpoint if checkpoint.exists() else None
    trainer.fit(module, DataLoader(batches, batch_size=None), ckpt_path=ckpt_path, weights_only=True)
