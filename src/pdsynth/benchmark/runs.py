"""The run of one entry of a benchmark: training, cost measurement and scoring. Finished parts are not repeated."""

from __future__ import annotations

import json
import platform
import resource
import shutil
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from pydantic import BaseModel

import pdsynth
from pdsynth import api, folders, manifest
from pdsynth.benchmark.code import code_digest
from pdsynth.data.pairs import Pairs, content
from pdsynth.evaluation.evaluate import ORACLE
from pdsynth.evaluation.metrics import MODULES
from pdsynth.files import PARTIAL, write_json
from pdsynth.journal import read_cost
from pdsynth.losses.microstructure import FeatureLoss
from pdsynth.methods.base import Method, MethodConfig, create, registry
from pdsynth.networks.flops import counted_flops
from pdsynth.recipes import RECIPES, settings_of
from pdsynth.resources import resolve_precision
from pdsynth.results.entries import recipe_of, run_folder, scores_folder
from pdsynth.schemas import Real, read_object
from pdsynth.types import Direction, InputError

FIT = "fit.json"  # file of a run: total wall time and peak memory of fitting, over all its resumed parts
GIGA = 1e9
SCORING = "scoring"
LIBRARIES = ("torch", "monai", "numpy", "scikit-learn", "nilearn")  # libraries whose versions may change results


@dataclass(frozen=True)
class Terms:
    """The settings of a benchmark that are equal for all its recipes.

    budget: training time of each recipe in seconds (wall time), or None; steps: number of training steps of each
    recipe, or None; seed: of training and scores; device: "cpu" or "cuda"; threads: number of threads of the process of
    each recipe.
    """

    budget: float | None
    steps: int | None
    seed: int
    device: str
    threads: int


def begun_as(prepared: Path, entry: str, terms: Terms) -> dict[str, Any]:
    """All that the result of one recipe in a benchmark depends on, as JSON content, to recognise its runs.

    prepared: prepared folder of the pairs. entry: "recipe", or "recipe:small" for its small size. terms: settings that
    are equal for all recipes. Keys: entry; version, of pdsynth; libraries, their versions; settings and precision of
    the recipe; terms; prepared, digests of the pairs; and code, two digests: that of trainer and method ("training"),
    and that of the evaluation ("scoring"), both with all modules that they import.
    """
    name, size = recipe_of(entry)
    recipe = RECIPES[name]
    method = registry()[recipe.method]
    config = method.config_type(**settings_of(recipe, size))
    described = {
        "entry": entry,
        "version": pdsynth.__version__,
        "libraries": {name: metadata.version(name) for name in LIBRARIES},
        "code": {
            "training": code_digest("pdsynth.training", method.__module__),
            SCORING: code_digest("pdsynth.evaluation.evaluate", *MODULES),
        },
        "settings": asdict(config),
        "precision": resolve_precision(recipe.precision, terms.device),
        "terms": asdict(terms),
        "prepared": content(prepared),
    }
    return json.loads(json.dumps(described))


def run_entry(prepared: Path, out: Path, entry: str, terms: Terms) -> str:
    """Train and score one recipe of a benchmark in this process, or resume its stopped run; returns `entry`.

    entry: "recipe", or "recipe:small" for its small size. prepared: prepared folder of the pairs. out: folder of the
    benchmark, in which the recipe has its own folder. Writes model/, metrics.csv (the losses, if it is trained in
    steps), scores/ (in the format of `pdsynth evaluate`) and a manifest with the costs. The oracle has scores only. A
    finished run is not repeated. If anything that the model depends on (see `begun_as`) differs from that of an earlier
    run, such as settings, terms, pairs, versions or training code, the earlier run is removed and training starts
    again; if only the scoring code differs, only the scores are computed again. Raises InputError if another process
    works on the same run.
    """
    name, size = recipe_of(entry)
    folder = run_folder(out, entry)
    torch.set_num_threads(terms.threads)
    pairs, key = Pairs.open(prepared), begun_as(prepared, entry, terms)
    with _locked(folder):
        before = manifest.read(folder)
        earlier = before.get("parameters", {}).get("begun_as", {})
        if before and _of_training(earlier) != _of_training(key):
            shutil.rmtree(folder)
        elif before.get("finished") and earlier == key:
            return entry
        with manifest.recorded(folder, "benchmark", inputs=[prepared], seed=terms.seed, begun_as=key) as record:
            record["machine"] = machine(terms.device)
            if name == ORACLE:
                method = create(ORACLE, asdict(MethodConfig(pairs.grid.shape)))
            else:
                method, record["cost"] = _trained(pairs, folder, name, size, terms)
            scores = scores_folder(out, entry)
            with folders.making(scores, overwrite=True) as work:
                write_json(work.folder / manifest.NAME, manifest.begin("evaluate", seed=terms.seed))
                api.evaluate({entry: method}, pairs.test, work.folder, seed=terms.seed, ceiling=False)
    return entry


def _of_training(key: dict[str, Any]) -> dict[str, Any]:
    """The part of a key of `begun_as` that the trained model depends on: all except the digest of the scoring code."""
    code = key.get("code")
    return key | {"code": {part: code[part] for part in code if part != SCORING} if isinstance(code, dict) else code}


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Lock a run folder against other processes. Raises InputError if another process has the lock."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.with_name(f"{PARTIAL}{folder.name}.lock"))
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        raise InputError(folder, "is in use by another process", "wait for it, or stop it") from error
    with lock:
        yield


def _trained(pairs: Pairs, folder: Path, name: str, size: str, terms: Terms) -> tuple[Method, dict[str, Any]]:
    """The model of the recipe `name`, loaded from the run folder if it exists and trained otherwise, and its costs.

    Costs: seconds and peak memory (MiB) of the fit, costs of each stage of training, and those of `counts`. terms: the
    settings that are equal for all entries of the benchmark.
    """
    if (folder / "model" / "config.json").exists() and (folder / FIT).exists():
        model = api.load(folder / "model", terms.device)
    else:
        started, before = time.perf_counter(), _spent(folder)
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
        spent = {
            "fit_seconds": round(before.get("fit_seconds", 0) + time.perf_counter() - started, 1),
            "peak_memory_mb": max(before.get("peak_memory_mb", 0), _peak_memory_mb(terms.device)),
        }
        write_json(folder / FIT, spent)
    costs = _spent(folder) | {"stages": read_cost(folder)}
    return model.method, costs | counts(model.method, pairs, terms.device)


class _Spent(BaseModel):
    fit_seconds: Real = 0.0
    peak_memory_mb: Real = 0.0


def _spent(folder: Path) -> dict[str, Any]:
    """Seconds and peak memory of the fit, up to now; {} before it. Raises InputError if the file does not fit."""
    path = folder / FIT
    return read_object(path, _Spent, "restore it, or remove the folder of this run") if path.exists() else {}


def machine(device: str) -> str:
    """Name of the GPU if device is "cuda", else the type of the processor, such as "x86_64 CPU"."""
    return torch.cuda.get_device_name() if device == "cuda" else f"{platform.machine()} CPU"


def counts(method: Method, pairs: Pairs, device: str) -> dict[str, Any]:
    """Costs of a method: number of its weights, and floating-point operations of a prediction and of its feature loss.

    pairs: prepared pairs; the first row of their test split is predicted in one direction, from fMRI to dMRI. device:
    that of the method. Keys: parameters, number of weights of its networks, without those that are fitted in closed
    form; gflop_per_volume, 10^9 operations per predicted volume (see `counted_flops`), None for methods without
    training stages. For a method whose training compares features of a network (feature loss): loss_features, name of
    that network; loss_weights, number of its weights; loss_gflop and loss_seconds, operations (10^9) and median time of
    the loss of one volume, forward and backward.
    """
    batch = pairs.test.batch(np.array([0])).to(device)
    with torch.inference_mode(), counted_flops() as counter:
        method.predict(batch, next(iter(Direction)))
    found: dict[str, Any] = {"parameters": sum(p.numel() for p in method.parameters())}
    # torch does not count the operations of trees and of scikit-learn's regressions
    found["gflop_per_volume"] = counter.get_total_flops() / GIGA if method.stages() else None
    loss = method.feature_loss()
    return found | ({} if loss is None else _loss_cost(loss, batch.targets[next(iter(Direction))]))


def _peak_memory_mb(device: str) -> float:
    """Peak memory in MiB: of the GPU if it is used, else of this process, which has the pairs in memory."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def _loss_cost(loss: FeatureLoss, target: torch.Tensor) -> dict[str, Any]:
    """Costs of a feature loss for one whole volume, forward and backward: GFLOP, median seconds, number of weights.

    loss_features: the name of its network.
    """
    loss = loss.to(target.device)

    def once() -> float:
        started = time.perf_counter()
        loss(torch.zeros_like(target, requires_grad=True), target).backward()
        if target.is_cuda:
            torch.cuda.synchronize()
        return time.perf_counter() - started

    with counted_flops() as counter:
        once()
    return {
        "loss_features": loss.features.source,
        "loss_weights": sum(b.numel() for b in loss.features.buffers()),
        "loss_gflop": counter.get_total_flops() / GIGA,
        "loss_seconds": statistics.median(once() for _ in range(5)),
    }
