"""Output of a training run: a progress bar, the rows of metrics.csv, cost.json and checkpoints."""

from __future__ import annotations

import csv
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pydantic import BaseModel
from pytorch_lightning.callbacks import Callback

from pdsynth.files import atomic_path, write_json
from pdsynth.progress import Update, progress
from pdsynth.schemas import read_object
from pdsynth.stage_training import StageModule
from pdsynth.types import InputError

LOG_EVERY = 25  # steps between rows
SAVE_EVERY = 120  # seconds between checkpoints
COST = "cost.json"  # steps, seconds and GFLOP per step of each stage; a multiplication and an addition are two FLOP
REMEDY = "restore it, or remove it"
COLUMNS = ["stage", "step", "seconds", "term", "value"]  # of metrics.csv


class _Spent(BaseModel):
    steps: int
    seconds: float
    gflop_per_step: float


def read_cost(run: Path) -> dict[str, Any]:
    """The content of cost.json of a run, by stage; {} if there is none. Raises InputError if it does not fit."""
    path = run / COST
    return read_object(path, dict[str, _Spent], REMEDY) if path.exists() else {}


class Journal(Callback):
    """Lightning callback that shows and saves the progress of one training stage.

    run: folder of the training run. checkpoint: file for the state of the training. The callback shows a progress bar
    with the remaining time, the step and the loss. Every 25 steps and at the last step, it writes the terms of the loss
    into `run`/metrics.csv, one row per term; at the end, it writes the steps, seconds and GFLOP per step of the stage
    into `run`/cost.json. It writes the state of the training into `checkpoint` about every 2 minutes and at the end. At
    the start, it removes the rows of metrics.csv that this stage has after the step from which it continues. If several
    devices train together, only the first one writes; all take part in a checkpoint.
    """

    def __init__(self, run: Path, checkpoint: Path) -> None:
        self.metrics, self.cost, self.checkpoint = run / "metrics.csv", run / COST, checkpoint
        self.saved = 0.0
        self.display = ExitStack()
        self.update: Update | None = None
        self.loss = ""  # of the last row, as text

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        assert isinstance(module, StageModule)
        self.saved = module.elapsed
        if trainer.is_global_zero:
            self.update = self.display.enter_context(progress(f"Training {module.stage.name}"))
            self.update(module.progress, 1.0)
            self._forget_rows_after(module.stage.name, module.step)

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        assert isinstance(module, StageModule)
        if module.step % LOG_EVERY == 0 or module.progress >= 1:
            terms = {k: round(v, 6) for k, v in module.latest().items()}  # all devices take part
            self.loss = f", loss {sum(terms.values()):.4f}"
            if trainer.is_global_zero:
                self._write(module, terms)
        if self.update is not None:
            self.update(module.progress, 1.0, f"step {module.step}{self.loss}")
        if module.elapsed - self.saved > SAVE_EVERY:
            self._save(trainer, module)

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        assert isinstance(module, StageModule)
        self.display.close()
        if trainer.is_global_zero:
            spent = {"steps": module.step, "seconds": round(module.elapsed, 1), "gflop_per_step": module.flops / 1e9}
            write_json(self.cost, read_cost(self.cost.parent) | {module.stage.name: spent})
        self._save(trainer, module)

    def on_exception(self, trainer: pl.Trainer, module: pl.LightningModule, exception: BaseException) -> None:
        self.display.close()  # otherwise its thread writes over the error message

    def _save(self, trainer: pl.Trainer, module: StageModule) -> None:
        trainer.save_checkpoint(self.checkpoint)  # written by CompleteCheckpoints on the first device
        self.saved = module.elapsed

    def _forget_rows_after(self, stage: str, step: int) -> None:
        """Drop the rows of steps after the last checkpoint, because these steps are trained and written again."""
        rows = [COLUMNS]
        if self.metrics.exists():
            # the last row of a killed run may be incomplete
            whole = [row for row in self._rows()[1:] if len(row) == len(COLUMNS) and row[1].isdecimal()]
            rows += [row for row in whole if row[0] != stage or int(row[1]) <= step]
        with atomic_path(self.metrics) as temporary, temporary.open("w", newline="") as file:
            csv.writer(file).writerows(rows)

    def _rows(self) -> list[list[str]]:
        """The rows of metrics.csv. Raises InputError if it cannot be read."""
        try:
            with self.metrics.open(newline="", encoding="utf-8") as file:
                return list(csv.reader(file))
        except (UnicodeDecodeError, csv.Error) as error:
            raise InputError(self.metrics, f"is damaged ({error})", REMEDY) from error

    def _write(self, module: StageModule, terms: dict[str, float]) -> None:
        with self.metrics.open("a", newline="") as file:
            writer = csv.writer(file)
            for term, value in terms.items():
                writer.writerow([module.stage.name, module.step, round(module.elapsed, 1), term, value])
