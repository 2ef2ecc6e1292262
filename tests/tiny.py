"""Settings that make the paper's networks and its two stages as small as they can be; a training that breaks off."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from pdsynth import journal, ranks
from pdsynth.data.batch import PairBatch
from pdsynth.data.pairs import Pairs
from pdsynth.draws import Draws
from pdsynth.methods.base import Stage
from pdsynth.methods.pds_paper import PDSPaper, PDSPaperConfig
from pdsynth.methods.voxel_mlp import VoxelPerceptron

PAPER = {
    "channels": (4, 8),
    "refiner_channels": (4, 8),
    "heads": 2,
    "attention_levels": 1,
    "blocks": 1,
    "feature_layer": "conv1_1",
}
SHORT_PAPER = PAPER | {"patch": (8, 8, 8), "steps": 2, "drafts": 3, "draft_steps": 2}


class Cut(VoxelPerceptron):
    """A perceptron whose training is checkpointed at each step and breaks off at the fourth."""

    def stages(self) -> list[Stage]:
        stages = super().stages()
        objective = stages[0].objectives[0]
        loss, left = objective.loss, iter(range(3))

        def failing(batch: PairBatch, draws: Draws) -> dict[str, Tensor]:
            journal.SAVE_EVERY = 0.0  # in the process that trains
            if next(left, None) is None:
                raise RuntimeError("power cut")
            return loss(batch, draws)

        objective.loss = failing
        return stages


class Watched(VoxelPerceptron):
    """A perceptron that notes which process prepares its rows, and whose second process does `end` at its third step.

    notes: a folder, which gets the time of this end too. end: a function of a module. patience: seconds for which a
    process waits for another one.
    """

    notes: Path
    end: Callable[[], object]
    patience: float

    def stages(self) -> list[Stage]:
        ranks.PATIENCE = self.patience  # in the process that trains
        stages = super().stages()
        stage, objective = stages[0], stages[0].objectives[0]
        loss, left = objective.loss, iter(range(2))

        def prepare(rows: Pairs) -> Pairs:
            with (self.notes / "prepared").open("a") as file:
                file.write(f"{os.getpid()}\n")
            return rows

        def ending(batch: PairBatch, draws: Draws) -> dict[str, Tensor]:
            if draws.part == 1 and next(left, None) is None:
                (self.notes / "ended").write_text(f"{time.time()}")
                self.end()
            return loss(batch, draws)

        stage.prepare, objective.loss = prepare, ending
        return stages


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def fall_silent() -> None:
    time.sleep(3600)


def built(train: Pairs, **settings) -> PDSPaper:
    """`pds-paper` of PAPER's sizes, of fixed weights, fitted and not trained."""
    torch.manual_seed(0)
    method = PDSPaper(PDSPaperConfig(grid_shape=train.grid.shape, **PAPER | settings))
    method.fit(train, torch.Generator())
    return method


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draws(seed: int = 0) -> Draws:
    return Draws(generator(seed))
