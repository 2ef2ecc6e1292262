"""One recipe of a benchmark: trained, its costs counted, scored. What is done already is left alone."""

from __future__ import annotations

import resource
import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from pdsynth import api, manifest
from pdsynth.data.pairs import Pairs
from pdsynth.evaluation.archive import run_folder, scores_folder
from pdsynth.evaluation.evaluate import ORACLE
from pdsynth.losses.microstructure import FeatureLoss
from pdsynth.methods.base import Method, MethodConfig, create
from pdsynth.recipes import RECIPES, settings_of
from pdsynth.training import COST
from pdsynth.types import Direction

GIGA = 1e9


@dataclass(frozen=True)
class Terms:
    """What is equal for every recipe: budget in seconds or steps of training, seed, device, threads of each process."""

    budget: float | None
    steps: int | None
    seed: int
    device: str
    threads: int


def run_entry(prepared: Path, out: Path, entry: str, terms: Terms) -> str:
    """Train and score one entry in this process, from where it was cut; returns the entry.

    Leaves model/, metrics.csv, scores/ (as `evaluate` writes them) and a manifest with its costs. A run that was begun
    under other terms, settings or pairs is begun anew.
    """
    name, _, size = entry.partition(":")
    recipe, folder = RECIPES[name], run_folder(out, entry)
    torch.set_num_threads(terms.threads)
    pairs = Pairs.open(prepared)
    begun_as = {
        "entry": entry,
        "settings": settings_of(recipe, size or "full"),
        "precision": recipe.precision,
        "terms": asdict(terms),
        "prepared": {each: manifest.sha256(prepared / each) for each in ("pairs.tsv", "splits.tsv")},
    }
    before = manifest.read(folder)
    if folder.exists() and before.get("parameters", {}).get("begun_as") != begun_as:
        manifest.clear(folder, overwrite=True)
    elif before.get("finished"):
        return entry
    with manifest.recorded(folder, "benchmark", inputs=[prepared], seed=terms.seed, begun_as=begun_as) as entries:
        if name == ORACLE:
            method = create(ORACLE, asdict(MethodConfig(pairs.grid.shape)))
        else:
            method, entries["cost"] = _trained(pairs, folder, name, size or "full", terms)
        with manifest.complete_folder(scores_folder(out, entry), overwrite=True) as scores:
            manifest.write_json(scores / manifest.NAME, manifest.begin("evaluate", seed=terms.seed))
            api.evaluate({entry: method}, pairs.test, scores, seed=terms.seed, ceiling=False)
    return entry


def _trained(pairs: Pairs, folder: Path, name: str, size: str, terms: Terms) -> tuple[Method, dict[str, Any]]:
    """The recipe, trained or taken from where it is, and what it costs."""
    started = time.perf_counter()
    if (folder / "model" / "config.json").exists():
        model = api.load(folder / "model", terms.device)
    else:
        stages = bool(RECIPES[name].steps)
        model = api.fit(
            name,
            pairs.train,
            run=folder,
            budget=terms.budget if stages else None,
            steps=terms.steps if stages else None,
            seed=terms.seed,
            device=terms.device,
            resume=(folder / "checkpoints").exists(),
            size=size,
        )
    costs: dict[str, Any] = {"fit_seconds": round(time.perf_counter() - started, 1)}
    costs |= {"peak_memory_mb": _peak_memory_mb(), "stages": manifest.read_json(folder / COST)}
    costs |= _prediction_cost(model.method, pairs)
    loss = model.method.feature_loss()
    return model.method, costs | ({} if loss is None else _loss_cost(loss, pairs, model.device))


def _peak_memory_mb() -> float:
    """Of the GPU where there is one, else of this process, the pairs that it keeps in memory among them."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def _prediction_cost(method: Method, pairs: Pairs) -> dict[str, float]:
    """Trained parameters, and FLOPs (multiplications and additions apart) of one predicted volume."""
    device = next((t.device for t in [*method.parameters(), *method.buffers()]), torch.device("cpu"))
    batch = pairs.test.batch(np.array([0])).to(device)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        method.predict(batch, next(iter(Direction)))
    return {
        "parameters": sum(p.numel() for p in method.parameters()),
        "gflop_per_volume": counter.get_total_flops() / GIGA,
    }


def _loss_cost(loss: FeatureLoss, pairs: Pairs, device: str) -> dict[str, float]:
    """What a loss on features costs for one whole volume, forward and backward; weights are those of its network."""
    loss = loss.to(device)
    target = pairs.test.batch(np.array([0])).to(device).targets[next(iter(Direction))]

    def once() -> float:
        started = time.perf_counter()
        loss(torch.zeros_like(target, requires_grad=True), target).backward()
        if target.is_cuda:
            torch.cuda.synchronize()
        return time.perf_counter() - started

    with FlopCounterMode(display=False) as counter:
        once()
    return {
        "loss_weights": sum(b.numel() for b in loss.features.buffers()),
        "loss_gflop": counter.get_total_flops() / GIGA,
        "loss_seconds": statistics.median(once() for _ in range(5)),
    }
