"""Time of `pdsynth synthesize` with one job and with two, and whether their output bytes are equal.

Usage: python benchmarks/synthesize_jobs.py BIDS WORK [--turns 2] [--out benchmarks/results/synthesize_jobs.json]
BIDS is a SIMULATED dataset with 60 missing scans: `pdsynth simulate BIDS --subjects 60 --quick --missing-dmri 0.5
--missing-fmri 0.5 --seed 3`. The two commands alternate. Their times include the start of the program.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from datetime import date
from pathlib import Path
from statistics import median

from safety import cpu

from pdsynth.files import sha256, write_json


def volumes(out: Path) -> dict[str, str]:
    """Digests of all files except the manifest, which contains times."""
    files = (p for p in out.rglob("*") if p.is_file() and p != out / "manifest.json")
    return {p.relative_to(out).as_posix(): sha256(p) for p in files}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bids", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/synthesize_jobs.json"))
    given = parser.parse_args()
    took: dict[int, list[float]] = {1: [], 2: []}
    found = {}
    for _ in range(given.turns):
        for jobs in took:
            out = given.work / f"{jobs}"
            shutil.rmtree(out, ignore_errors=True)
            words = ["synthesize", "default", given.bids, out, "--jobs", jobs, "--device", "cpu"]
            started = time.perf_counter()
            subprocess.run([sys.executable, "-m", "pdsynth", *map(str, words)], check=True, capture_output=True)
            took[jobs].append(time.perf_counter() - started)
            found[jobs] = volumes(out)
            print(jobs, round(took[jobs][-1], 1), flush=True)
    scans = sum("_desc-synthetic_" in name and name.endswith(".nii.gz") for name in found[1])
    ratios = [one / two for one, two in zip(took[1], took[2], strict=True)]
    result = {
        "date": date.today().isoformat(),
        "machine": cpu(),
        "scans": scans,
        "seconds": {str(jobs): [round(t, 1) for t in times] for jobs, times in took.items()},
        "speed_of_two_jobs": round(median(ratios), 2),
        "equal_bytes": found[1] == found[2],
    }
    write_json(given.out, result)
    print(result)


if __name__ == "__main__":
    main()
