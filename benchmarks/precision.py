"""Time of a training step in the default precision relative to the best one, for each recipe that trains by steps.

Usage: python benchmarks/precision.py PREPARED [--recipes pds,unet] [--out benchmarks/results/precision.json]
The precisions alternate in one process, one step each, on the same batches; a result is the median of the ratios of
neighbouring steps. The result file has one entry per type of CPU. With ONEDNN_MAX_CPU_ISA=AVX2 and
ATEN_CPU_CAPABILITY=avx2 in the environment, a newer CPU emulates one with AVX2 only, and the entry's name says so.
"""

from __future__ import annotations

import argparse
import os
import time
from datetime import date
from pathlib import Path
from statistics import median

import torch

from pdsynth import resources
from pdsynth.data.pairs import Pairs
from pdsynth.draws import Draws
from pdsynth.files import read_json, write_json
from pdsynth.methods.base import Method, Stage
from pdsynth.recipes import RECIPES, build
from pdsynth.resources import resolve_precision

CANDIDATES = ("32-true", "bf16-mixed")
TURNS, WARM = 9, 2


def step_seconds(method: Method, stage: Stage, pairs: Pairs, precision: str, step: int) -> float:
    """Wall time, in seconds, of the losses, gradients and updates of one step."""
    batch = pairs.patches(stage.patch, stage.batch_size, [0], step)
    started = time.perf_counter()
    for objective in stage.objectives:
        optimizer = torch.optim.AdamW(objective.module.parameters(), lr=1e-5, fused=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"):
            terms = objective.loss(batch, Draws(torch.Generator().manual_seed(step)))
            loss = torch.stack(list(terms.values())).sum()
        loss.backward()
        optimizer.step()
    return time.perf_counter() - started


def ratios(recipe: str, pairs: Pairs) -> dict[str, object]:
    """For each stage, the seconds of a step in each precision, and the ratio of the default to the best."""
    size = "small" if recipe == "pds-paper" else "full"
    method = build(recipe, pairs, 0, size)
    method.fit(pairs, torch.Generator().manual_seed(0))
    default = resolve_precision(RECIPES[recipe].precision, "cpu")
    found: dict[str, object] = {"size": size, "default": default}
    for stage in method.stages():
        train = stage.prepare(pairs) if stage.prepare is not None else pairs
        method.train()
        took: dict[str, list[float]] = {name: [] for name in CANDIDATES}
        for turn in range(TURNS):
            for name in CANDIDATES:
                took[name].append(step_seconds(method, stage, train, name, turn))
        seconds = {name: times[WARM:] for name, times in took.items()}
        worst = max(median(d / o for d, o in zip(seconds[default], other, strict=True)) for other in seconds.values())
        medians = {name: round(median(times), 4) for name, times in seconds.items()}
        found[stage.name] = {"seconds": medians, "default_over_best": round(worst, 3)}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prepared", type=Path)
    parser.add_argument("--recipes")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/precision.json"))
    given = parser.parse_args()
    pairs = Pairs.open(given.prepared).train
    names = given.recipes.split(",") if given.recipes else [n for n, r in RECIPES.items() if r.steps]
    cpu = torch.cpu.get_capabilities()
    flags = [name for name in ("amx_bf16", "avx512_bf16", "avx512_f", "avx2") if cpu.get(name)]
    kind = f"{cpu['cpu_name']} ({', '.join(flags)})"
    if isa := os.environ.get("ONEDNN_MAX_CPU_ISA"):
        kind += f", held to {isa}"
        if "BF16" not in isa:
            resources.native_bf16 = lambda: False  # as a CPU of this type reports
    found = {}
    for name in names:
        found[name] = ratios(name, pairs)
        print(name, found[name], flush=True)
    entry = {"date": date.today().isoformat(), "torch": torch.__version__, "threads": torch.get_num_threads()}
    results = read_json(given.out)
    results[kind] = entry | {"steps": results.get(kind, {}).get("steps", {}) | found}
    write_json(given.out, results)


if __name__ == "__main__":
    main()
