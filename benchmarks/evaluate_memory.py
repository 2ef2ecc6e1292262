"""Memory of `pdsynth evaluate` by the number of participants, at 4 mm: does it grow with them?

Usage: python benchmarks/evaluate_memory.py WORK [--returning] [--out benchmarks/results/evaluate_memory.json]
WORK gets a SIMULATED cohort of PEOPLE, prepared, and folders of 25 to 200 test participants: those people under other
names, with noise. Each folder is scored in a process of its own, on one thread, with a `local-ridge` that was trained
on the cohort, and no control. Peaks are of the whole process (VmHWM, which counts mapped pages of files too; ru_maxrss
would begin with that of the parent) and of its anonymous memory, which is read every 20 ms. The C library keeps arrays
that are freed for others to come, which leaves holes: peaks of equal runs differ by 20 MB. With --returning it gives
them back at once (MALLOC_MMAP_THRESHOLD_), so that the peak is what is in use. Each way is added to the file.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from datetime import date
from hashlib import sha256
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
from safety import cpu

from pdsynth import api
from pdsynth.cohorts.bids import bids
from pdsynth.data.pairs import Pairs
from pdsynth.data.prepare import prepare
from pdsynth.data.shards import FOLDER, write_shard
from pdsynth.files import read_json, write_json, write_table

PEOPLE, NOISE = 8, 0.02
RETURNED = 128 << 10  # bytes: the least array that is given back when it is freed
SCANS = ("fmri", "dmri")
SIZES = (25, 50, 100, 200)
RECIPE = "local-ridge"
SCORE = """
import os, sys
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # one thread scores: how two of them meet is chance
from pdsynth import api
from pdsynth.data.pairs import Pairs
prepared, model, out = sys.argv[1:]
api.evaluate(api.load(model, "cpu"), Pairs.open(prepared).test, out, ceiling=False)
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def cohort(work: Path, grid_mm: float = 4) -> Pairs:
    """PEOPLE simulated participants, all for training, and a model of them in work/run."""
    prepared = work / "cohort"
    if not prepared.exists():
        words = ["simulate", work / "bids", "--subjects", PEOPLE, "--quick", "--seed", 5]
        subprocess.run([sys.executable, "-m", "pdsynth", *map(str, words)], check=True, capture_output=True)
        prepare(bids(work / "bids"), prepared, split=(1, 0, 0), grid_mm=grid_mm)
    pairs = Pairs.open(prepared)
    if not (work / "run" / "model").exists():
        api.fit(RECIPE, pairs.train, run=work / "run", device="cpu")
    return pairs


def copies(pairs: Pairs, folder: Path, number: int) -> Path:
    """A prepared folder of so many test participants, each a person of the cohort with other noise."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / FOLDER).mkdir(parents=True)
    names, manifest = pairs.manifest["volumes"], read_json(pairs.root / "manifest.json")
    whole, generator = pairs.whole_scans(), np.random.default_rng(number)
    table = whole.table.iloc[np.arange(number) % len(whole)].drop(columns="split").reset_index(drop=True)
    people = [f"sub-{i:04d}" for i in range(number)]
    sizes = {}
    for i, person in enumerate(people):
        volumes = {name: np.asarray(whole.read(name, i % len(whole))) for name in names}
        for name in SCANS:
            noisy = volumes[name] + NOISE * generator.standard_normal(whole.grid.shape) * volumes[f"{name}_brain"]
            volumes[name] = np.clip(noisy, 0, 1).astype(np.float16)
        sizes[f"{person}.npy"] = write_shard(folder / FOLDER / f"{person}.npy", [volumes])
        inputs = {f"{person}/{name}": {"sha256": sha256(f"{person}/{name}".encode()).hexdigest()} for name in SCANS}
        write_json(folder / FOLDER / f"{person}.json", {"inputs": inputs})
    paths = {f"{name}_path": [f"{person}/{name}" for person in people] for name in SCANS}
    table = table.assign(participant_id=people, shard=list(sizes), index=0, **paths)
    write_table(folder / "pairs.tsv", table)
    write_table(folder / "splits.tsv", pd.DataFrame({"participant_id": people, "split": "test"}))
    kept = ("version", "grid_shape", "grid_affine", "preprocessing", "simulated", "volumes")
    write_json(folder / "manifest.json", {name: manifest[name] for name in kept} | {"shards": sizes})
    return folder


def anonymous(process: int) -> int:
    """Anonymous memory of a process now, kB; 0 where it has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("RssAnon")), 0)


def peaks(prepared: Path, work: Path, returning: bool) -> dict[str, float]:
    """Peak memory in MB and seconds of one evaluation in a process of its own."""
    words = [prepared, work / "run" / "model", work / "results"]
    shutil.rmtree(work / "results", ignore_errors=True)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    environment |= {"MALLOC_MMAP_THRESHOLD_": str(RETURNED)} if returning else {}
    started, most = time.perf_counter(), 0
    with subprocess.Popen(
        [sys.executable, "-c", SCORE, *map(str, words)], stdout=subprocess.PIPE, env=environment
    ) as scoring:
        while scoring.poll() is None:
            most = max(most, anonymous(scoring.pid))
            time.sleep(0.02)
        assert scoring.stdout is not None
        total = int(scoring.stdout.read())
    seconds = time.perf_counter() - started
    return {"total_mb": megabytes(total), "anonymous_mb": megabytes(most), "seconds": round(seconds, 1)}


def megabytes(kibibytes: int) -> float:
    """What Linux calls kB, in MB."""
    return round(kibibytes * 1024 / 1e6, 1)


def growth(found: dict[int, dict[str, float]], kind: str) -> dict[str, float]:
    """MB per participant from each size to the next, from the first to the last, and of the line through all sizes."""
    sizes = list(found)
    steps = [*pairwise(sizes), (sizes[0], sizes[-1])]
    line = np.polyfit(sizes, [found[size][kind] for size in sizes], 1)[0]
    between = {f"{a} to {b}": round((found[b][kind] - found[a][kind]) / (b - a), 3) for a, b in steps}
    return between | {"line": round(float(line), 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--returning", action="store_true")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "evaluate_memory.json")
    given = parser.parse_args()
    pairs, found = cohort(given.work), {}
    for number in SIZES:
        found[number] = peaks(copies(pairs, given.work / "copies", number), given.work, given.returning)
        print(number, found[number], flush=True)
    result = {
        "date": date.today().isoformat(),
        "machine": cpu(),
        "data": "SIMULATED",
        "grid": list(pairs.grid.shape),
        "method": RECIPE,
        "participants": {str(number): each for number, each in found.items()},
        "growth_mb_per_participant": {kind: growth(found, f"{kind}_mb") for kind in ("total", "anonymous")},
    }
    kind = "freed arrays given back" if given.returning else "the C library's own way"
    write_json(given.out, read_json(given.out) | {kind: result})
    print(result["growth_mb_per_participant"])


if __name__ == "__main__":
    main()
