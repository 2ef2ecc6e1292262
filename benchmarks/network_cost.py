"""Time and FLOPs of a training step and a whole-volume inference on this CPU, of HaarUNet and of MONAI's U-Net.

The settings are timed in turn, once per round, so that other processes on the machine affect all of them equally.
Results are medians over rounds. Run `python benchmarks/network_cost.py` (MONAI needs einops); it prints tables and
writes results/network_cost.json.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import torch
from monai.networks.nets import DiffusionModelUNet
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from pdsynth.methods.conditioning import FEATURES, STEERING
from pdsynth.networks.unet import HaarUNet

CHANNELS, CONDITION = FEATURES + 2, STEERING  # inputs of the denoiser of `pds`: voxel features, stem, x_t
VOLUME, PATCHES, PATCH = (48, 56, 48), 24, (16, 16, 16)
RESULT = Path(__file__).parent / "results" / "network_cost.json"
Row = dict[str, Any]
Work = Callable[[], None]


def haar_unet(width: int, levels: int) -> nn.Module:
    return HaarUNet(CHANNELS, 1, width, levels, blocks=2, condition=CONDITION)


def monai_unet() -> nn.Module:
    """The paper's noise estimator: channels [64, 128, 256, 512], 2 residual units, 4 heads at the last level."""
    return DiffusionModelUNet(
        spatial_dims=3,
        in_channels=2,
        out_channels=1,
        channels=(64, 128, 256, 512),
        attention_levels=(False, False, False, True),
        num_res_blocks=2,
        num_head_channels=128,
    )


def inputs(batch: int, shape: tuple[int, ...], monai: bool = False) -> tuple[Tensor, Tensor]:
    if monai:
        return torch.rand(batch, 2, *shape), torch.full((batch,), 500)
    return torch.rand(batch, CHANNELS, *shape), torch.rand(batch, CONDITION)


def infer(net: nn.Module, x: Tensor, condition: Tensor, bf16: bool) -> None:
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        net(x, condition)


class Trainer:
    """Training steps of one network."""

    def __init__(self, net: nn.Module) -> None:
        self.net, self.optimizer = net, torch.optim.AdamW(net.parameters(), lr=1e-4, fused=True)

    def step(self, x: Tensor, condition: Tensor, bf16: bool) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            out = self.net(x, condition)
        self.optimizer.zero_grad()
        (out.float() - x[:, :1]).square().mean().backward()
        self.optimizer.step()


def seconds(work: Work) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def teraflops(net: nn.Module, given: tuple[Tensor, Tensor], backward: bool) -> float:
    """TFLOPs on tensors without data; multiplications and additions are counted separately."""
    ghost = copy.deepcopy(net).to("meta")
    with FlopCounterMode(display=False) as counter:
        out = ghost(*(x.to("meta") for x in given))
        if backward:
            out.mean().backward()
    return counter.get_total_flops() / 1e12


def parameters(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def haar_costs(rounds: int) -> list[Row]:
    """Costs of all sizes and precisions of HaarUNet; other memory layouts and thread counts only for two levels."""
    rows: list[Row] = []
    jobs: list[Work] = []
    sizes = [(width, levels, False) for width in (32, 48, 64) for levels in (1, 2, 3)]
    for width, levels, last in [*sizes, *((width, 2, True) for width in (32, 48, 64))]:
        layout = torch.channels_last_3d if last else torch.contiguous_format
        net = haar_unet(width, levels).to(memory_format=layout)  # type: ignore[call-overload]
        patches, patch_condition = inputs(PATCHES, PATCH)
        volume, volume_condition = inputs(1, VOLUME)
        tasks: dict[str, Callable[..., None]] = {
            "train": partial(Trainer(net).step, patches.to(memory_format=layout), patch_condition),
            "infer": partial(infer, net, volume.to(memory_format=layout), volume_condition),
        }
        size = {"width": width, "levels": levels, "parameters": parameters(net), "channels_last": last}
        for task, work in tasks.items():
            given = (PATCHES, PATCH) if task == "train" else (1, VOLUME)
            cost = {"task": task, "tflop": teraflops(net, inputs(*given), backward=task == "train")}
            counts = (1, 2) if levels == 2 and not last else (1,)
            for bf16, threads in itertools.product((False, True), counts):
                rows.append({**size, **cost, "bf16": bf16, "threads": threads})
                jobs.append(partial(work, bf16))
    times: list[list[float]] = [[] for _ in jobs]
    for number in range(rounds + 1):
        for row, work, measured in zip(rows, jobs, times, strict=True):
            torch.set_num_threads(row["threads"])
            taken = seconds(work)
            if number:  # the first round warms up
                measured.append(taken)
    return [
        {**row, "seconds": statistics.median(measured), "seconds_best": min(measured)}
        for row, measured in zip(rows, times, strict=True)
    ]


def against_monai(rounds: int) -> list[Row]:
    """Costs of a training step and an inference on a whole volume, fp32, one thread, of HaarUNet and MONAI in turn."""
    torch.set_num_threads(1)
    nets = {"MONAI [64, 128, 256, 512]": monai_unet()}
    nets |= {f"HaarUNet width {width}": haar_unet(width, 2) for width in (32, 48, 64)}
    rows: list[Row] = []
    jobs: list[dict[str, Work]] = []
    for name, net in nets.items():
        given = inputs(1, VOLUME, monai="MONAI" in name)
        jobs.append({"train": partial(Trainer(net).step, *given, False), "infer": partial(infer, net, *given, False)})
        cost = {f"tflop_{task}": teraflops(net, given, task == "train") for task in jobs[-1]}
        rows.append({"network": name, "parameters": parameters(net), **cost})
    times = [[{task: seconds(work) for task, work in tasks.items()} for tasks in jobs] for _ in range(rounds)]
    for number, row in enumerate(rows):
        for task in jobs[number]:
            row[f"seconds_{task}"] = statistics.median(taken[number][task] for taken in times)
            row[f"times_less_{task}"] = rows[0][f"seconds_{task}"] / row[f"seconds_{task}"]
    return rows


def machine() -> Row:
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    model = next((line.split(":")[1].strip() for line in info.splitlines() if line.startswith("model name")), "")
    return {
        "cpu": model or platform.processor(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "avx512_bf16": "avx512_bf16" in info,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "load_average": os.getloadavg(),  # if above the number of cores, use the best times
    }


def show(rows: list[Row]) -> None:
    print("  ".join(f"{c:>13}" for c in rows[0]))
    for row in rows:
        print("  ".join(f"{v:13.4g}" if isinstance(v, float) else f"{v!s:>13}" for v in row.values()), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=2, help="timed rounds of HaarUNet's settings")
    parser.add_argument("--monai-rounds", type=int, default=1, help="timed rounds against MONAI's U-Net")
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_flush_denormal(True)
    result: Row = {"date": date.today().isoformat(), "machine": machine(), **vars(options)}
    result |= {"volume": VOLUME, "patches": [PATCHES, *PATCH]}
    for part, costs in (("haar_unet", haar_costs), ("against_monai", against_monai)):
        result[part] = costs(options.rounds if part == "haar_unet" else options.monai_rounds)
        show(result[part])
        RESULT.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
