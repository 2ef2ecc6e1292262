"""Training of one stage of a method by Lightning: batches, steps and moving average, on one device or several."""

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
from pdsynth.methods.base import ADDED, Method, Stage
from pdsynth.networks.ema import EMA
from pdsynth.networks.flops import counted_flops
from pdsynth.stage_checkpoint import CompleteCheckpoints

WARMUP = 0.03  # fraction of a stage over which the learning rate rises
CLIP = 1.0  # largest norm of the gradient
ACCELERATORS = {"cpu": "cpu", "cuda": "gpu"}


class StepBatches(IterableDataset):
    """The training batches of a stage, from step number `first` on, without end: each a `PairBatch` of patches.

    pairs: the training pairs. stage: gives the edge of the patches and their number per batch. The batch of step i
    depends only on i, the seed and the number of the device, so that a resumed run gets the same batches as an
    uninterrupted one. Devices that train together get different batches.
    """

    def __init__(self, pairs: Pairs, stage: Stage, seed: int, first: int) -> None:
        self.pairs, self.stage, self.seed, self.first = pairs, stage, seed, first

    def __iter__(self) -> Iterator[PairBatch]:
        # devices that train together get different batches
        rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
        for step in count(self.first):
            yield self.pairs.patches(self.stage.patch, self.stage.batch_size, [self.seed, rank], step)


class StageModule(pl.LightningModule):
    """One stage (part) of the training of a method, as a Lightning module.

    Each step minimises the losses of the stage one after the other, each by one step of its own optimiser, and then
    updates the moving average of the weights, `ema`. The stage ends after `steps` steps or `budget` seconds, whichever
    is reached first; None means no such limit. seed: of the batches and the noise. step, elapsed: steps and seconds so
    far, also of a resumed run. flops: operations of one step (see `counted_flops`), 0 before the first. latest: the
    loss terms of the last step, by "<objective>/<term>".
    """

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
        """One optimiser step for each objective in turn."""
        for objective, optimizer in zip(self.stage.objectives, optimizers, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = objective.learning_rate * rate
            self.toggle_optimizer(optimizer)
            terms = objective.loss(batch, generator)
            optimizer.zero_grad()
            self.manual_backward(torch.stack(list(terms.values())).sum())
            # Lightning does not clip for fused optimisers under autocast; here the loss scale is removed first
            scaler = getattr(self.trainer.precision_plugin, "scaler", None)
            if scaler is not None:
                scaler.unscale_(optimizer.optimizer)
            nn.utils.clip_grad_norm_(objective.module.parameters(), CLIP)
            optimizer.step()
            self.untoggle_optimizer(optimizer)
            self.latest |= {f"{objective.name}/{k}": v.detach() for k, v in terms.items()}

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


class Rank(LightningEnvironment):
    """One of several processes on this machine that train together, for Lightning.

    rank: number of the process, from 0. port: number of the network port by which the processes communicate.
    """

    def __init__(self, rank: int, port: int) -> None:
        super().__init__()
        self.rank, self._main_port = rank, port

    @property
    def creates_processes_externally(self) -> bool:
        return True  # otherwise Lightning would start the command line again for each process

    def local_rank(self) -> int:
        return self.rank


def _strategy(module: StageModule) -> str:
    """Lightning's name of the strategy for several devices.

    "ddp" requires that each step gives all parameters a gradient. If a step leaves some out, as with GANs, the slower
    strategy is used, which searches for such parameters at each step.
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
    hardware: Hardware,
    environment: LightningEnvironment | None = None,
) -> None:
    """Train one stage of a method until it is complete, from its checkpoint file if there is one.

    module: the stage, with its method and limits. train: the training pairs. callback: called by Lightning during the
    training, to show and save the progress. checkpoint: path of the checkpoint file. hardware: device, number of
    devices and precision. The networks of module.method are trained in place; their moving average is in module.ema.
    With several devices, the process of each device calls this function with its own `environment` (a `Rank`); the
    gradients of a step are averaged over the devices, each of which has its own batch. None means one device.
    """
    trainer = pl.Trainer(
        accelerator=ACCELERATORS[hardware.device],
        devices=hardware.devices,
        strategy="auto" if hardware.devices == 1 else _strategy(module),
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
        plugins=[environment or LightningEnvironment(), CompleteCheckpoints()],
    )
    module.method.to(trainer.strategy.root_device)  # `prepare` computes its estimates there
    if module.stage.prepare is not None:
        train = module.stage.prepare(train)
    module.method.train()
    batches = StepBatches(train, module.stage, module.seed, module.step)
    ckpt_path = checkpoint if checkpoint.exists() else None
    trainer.fit(module, DataLoader(batches, batch_size=None), ckpt_path=ckpt_path, weights_only=True)
