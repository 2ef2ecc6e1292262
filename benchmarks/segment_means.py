"""Time and memory of streamed segment means, compared with loading the whole scan with nibabel.

Usage: python benchmarks/segment_means.py [--rounds 7] [--out benchmarks/results/segment_means.json]
The scan is 64 x 64 x 36 x 150 int16 .nii.gz. The three methods alternate within a round, so that other processes on the
machine affect all of them equally. Results are medians over rounds. Memory is tracemalloc's peak minus the result.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from datetime import date
from pathlib import Path
from statistics import median

import nibabel as nib
import numpy as np

from pdsynth.imaging.segments import segment_means, time_blocks

SHAPE = (64, 64, 36, 150)


def write_scan(path: Path) -> None:
    """Write a head-like scan: an ellipsoid of constant intensity with noise, in air with noise."""
    generator = np.random.default_rng(0)
    axes = np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE[:3]], indexing="ij")
    head = 900 * (sum(np.square(a) for a in axes) < 0.7)
    noise = generator.normal(0, 12, SHAPE)
    image = nib.Nifti1Image(np.abs(head[..., None] + noise).astype(np.int16), np.diag([3.4, 3.4, 4.0, 1.0]))
    nib.save(image, path)


def ways(path: Path) -> dict[str, Callable[[], np.ndarray]]:
    """Functions that compute the mean by nibabel, by streaming, and by streaming with four further block means."""
    everything = np.arange(SHAPE[3])
    return {
        "get_fdata().mean": lambda: nib.load(path).get_fdata().mean(-1)[None],
        "segment_means": lambda: segment_means(path, [everything]),
        "segment_means, whole and 4 blocks": lambda: segment_means(path, [everything, *time_blocks(SHAPE[3], 4)]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "segment_means.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bold.nii.gz"
        write_scan(path)
        timed = ways(path)
        wall: dict[str, list[float]] = {name: [] for name in timed}
        cpu: dict[str, list[float]] = {name: [] for name in timed}
        for _ in range(options.rounds):
            for name, way in timed.items():
                start, start_cpu = time.perf_counter(), time.process_time()
                way()
                wall[name].append(time.perf_counter() - start)
                cpu[name].append(time.process_time() - start_cpu)
        memory, means = {}, {}
        for name, way in timed.items():
            tracemalloc.start()
            means[name] = way()
            memory[name] = (tracemalloc.get_traced_memory()[1] - means[name].nbytes) / 1e6
            tracemalloc.stop()
    reference, *streamed = timed
    result = {
        "date": date.today().isoformat(),
        "machine": f"{os.cpu_count()}-core {platform.machine().replace('_', '-')}, also busy with other work",
        "scan": f"{'x'.join(map(str, SHAPE))} int16 .nii.gz",
        "rounds": options.rounds,
        "seconds": {name: round(median(times), 3) for name, times in wall.items()},
        "cpu_seconds": {name: round(median(times), 3) for name, times in cpu.items()},
        "seconds_over_get_fdata": {name: round(median(wall[name]) / median(wall[reference]), 3) for name in streamed},
        "cpu_over_get_fdata": {name: round(median(cpu[name]) / median(cpu[reference]), 3) for name in streamed},
        "extra_memory_mb": {name: round(megabytes, 1) for name, megabytes in memory.items()},
        "largest_relative_difference": {
            name: float(f"{np.abs(means[name][0] / means[reference][0] - 1).max():.2g}") for name in streamed
        },
    }
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
