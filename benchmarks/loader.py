"""The batches of training at the size of the paper's cohort: rows per second, first batch, growth of memory.

Usage: python benchmarks/loader.py [--steps 60] [--cache-mib 512] [--label now] [--out benchmarks/results/loader.json]
All rows are SIMULATED: 56,000 rows in 11,200 files, of which only 8 differ; the others are hard links to them, so that
their content comes from the system's cache and not from a disk. Volumes are on the grid of 4 mm, a batch has 24 patches
of 16 voxels along each axis. The CPU time of all threads is measured besides the wall time, because other processes may
use the machine: a step of 50 ms is kept up with by as many free cores as the CPU time of a batch divided by 50 ms. The
cache is smaller than the 4 GiB of a training, so that it is full after few steps.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import tempfile
import time
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import ndimage

from pdsynth import manifest
from pdsynth.data import pairs as pairs_module
from pdsynth.data.pairs import Pairs
from pdsynth.data.preprocessing import Preprocessing
from pdsynth.data.shards import FOLDER, write_shard
from pdsynth.files import read_json, sha256, write_json
from pdsynth.types import NA, WHOLE_SCAN

ROWS, SEGMENTS, DIFFERENT = 56_000, 5, 8
PATCH, BATCH, STEP_SECONDS = (16, 16, 16), 24, 0.05


def prepared_folder(root: Path) -> Path:
    """Write a prepared folder of ROWS rows, of few different files with smooth volumes."""
    preprocessing = Preprocessing()
    shape = preprocessing.grid.shape
    generator = np.random.default_rng(0)
    axes = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    brain = sum(np.square(a) for a in axes) < 0.7
    (root / FOLDER).mkdir(parents=True)

    def volume() -> np.ndarray:
        field = ndimage.gaussian_filter(generator.standard_normal(shape), 2)
        return (np.clip(0.5 + 0.1 * field / field.std(), 0, 1) * brain).astype(np.float16)

    files, sizes, digests = ROWS // SEGMENTS, {}, {}
    for number in range(files):
        name = f"sub-{number:05d}.npy"
        path, first = root / FOLDER / name, root / FOLDER / f"sub-{number % DIFFERENT:05d}.npy"
        if number < DIFFERENT:
            masks = {"fmri_brain": brain, "dmri_brain": brain}
            size = write_shard(path, [masks | {"fmri": volume(), "dmri": volume()} for _ in range(SEGMENTS)])
            digest = sha256(path)
            sizes[name], digests[f"{FOLDER}/{name}"] = size, digest
        else:
            os.link(first, path)
            sizes[name] = sizes[first.name]
            digests[f"{FOLDER}/{name}"] = digests[f"{FOLDER}/{first.name}"]
    people = np.repeat([f"sub-{number:05d}" for number in range(files)], SEGMENTS)
    empty = dict.fromkeys(("diagnosis", "age", "education", "mmse", "moca", "dx_gap_days"), NA)
    table = pd.DataFrame(
        {"participant_id": people, "session_id": "", "segment": [WHOLE_SCAN, *range(SEGMENTS - 1)] * files, "site": "a"}
        | empty
        | {"scan_gap_days": 0, "sex": "F", "available": "both", "fmri_path": people, "dmri_path": people}
        | {"fmri_scale": 1.0, "dmri_scale": 1.0, "dmri_bval": 1000.0}
        | {"shard": [f"{person}.npy" for person in people], "index": list(range(SEGMENTS)) * files}
    )
    table.to_csv(root / "pairs.tsv", sep="\t", index=False)
    splits = pd.DataFrame({"participant_id": pd.unique(people), "split": "train", "sha256": ""})
    splits.to_csv(root / "splits.tsv", sep="\t", index=False)
    entries = {"grid_shape": shape, "grid_affine": preprocessing.grid.affine.tolist(), "simulated": True}
    entries |= {"volumes": ["dmri", "dmri_brain", "fmri", "fmri_brain"], "shards": sizes, manifest.FILES: digests}
    write_json(root / manifest.NAME, entries)
    return root


def resident_mib() -> float:
    """Memory of this process that is not a part of a file, MiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(root: Path, steps: int) -> dict[str, object]:
    """Open the folder, and take the batches of `steps` steps from it."""
    started, cpu = time.perf_counter(), time.process_time()
    pairs = Pairs.open(root).train
    opened, opened_cpu = time.perf_counter() - started, time.process_time() - cpu
    wall, used, memory = [], [], []
    for step in range(steps):
        started, cpu = time.perf_counter(), time.process_time()
        pairs.patches(PATCH, BATCH, [0], step)
        wall.append(time.perf_counter() - started)
        used.append(time.process_time() - cpu)
        memory.append(resident_mib())
    late = slice(steps // 2, None)
    computed = pairs.volumes.source.cache_info()
    cpu_ms = 1000 * float(np.mean(used[late]))
    return {
        "rows": len(pairs),
        "steps": steps,
        "open_seconds": round(opened, 2),
        "open_cpu_seconds": round(opened_cpu, 2),
        "first_batch_seconds": round(wall[0], 3),
        "first_batch_cpu_seconds": round(used[0], 3),
        "rows_per_second": round(BATCH / float(np.median(wall[late])), 1),
        "batch_cpu_ms": round(cpu_ms, 1),
        "rows_per_cpu_second": round(1000 * BATCH / cpu_ms, 1),
        "cores_for_a_step_of_50_ms": round(cpu_ms / 1000 / STEP_SECONDS, 2),
        "features_computed": computed.misses,
        "features_held": computed.currsize,
        "features_held_at_most": computed.maxsize,
        "files_open": pairs.volumes._open.cache_info().currsize,
        "memory_mib": round(memory[-1]),
        "memory_mib_per_step": round(float(np.polyfit(range(steps)[late], memory[late], 1)[0]), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--cache-mib", type=int, default=512)
    parser.add_argument("--label", default="now", help="name of the entry in the file of results")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "loader.json")
    options = parser.parse_args()
    pairs_module.CACHED_BYTES = options.cache_mib << 20
    with tempfile.TemporaryDirectory() as temporary:
        result = measure(prepared_folder(Path(temporary) / "prepared"), options.steps)
    described = {
        "date": date.today().isoformat(),
        "machine": f"{os.cpu_count()}-core {platform.machine().replace('_', '-')}, load {os.getloadavg()[0]:.0f}",
        "cohort": "SIMULATED",
        "cache_mib": options.cache_mib,
    }
    written = read_json(options.out) if options.out.exists() else {}
    write_json(options.out, written | {options.label: described | result})
    print(result)


if __name__ == "__main__":
    main()
