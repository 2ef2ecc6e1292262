"""Memory and time of `pdsynth evaluate` with one job and with two, and whether their results are equal to the byte.

Usage: python benchmarks/evaluate_jobs.py WORK [--grid-mm 4] [--returning] [--turns 2] [--out .../evaluate_jobs.json]
WORK gets the SIMULATED folders of `evaluate_memory.py`, of 25, 50, 100 and, at 4 mm, 400 test participants; one grid is
measured per call. A `local-ridge` is scored, without controls and without the oracle. The two commands alternate; their
times include the start of the program. Memory is the anonymous memory (RssAnon), read every 50 ms: of all processes
together, and the most of any process. On a machine with other work the times show that work, of which two processes
displace more than one. The file therefore has the processor seconds too: those of all processes, and those of the first
process and the busiest other one together, which bound the time of processes that have a core each. With --returning
the C library gives freed arrays back at once (see `evaluate_memory.py`), so that memory is what is in use; only memory
is in the file then.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

from evaluate_memory import RECIPE, RETURNED, cohort, copies, growth, megabytes
from safety import cpu

from pdsynth.files import read_json, sha256, write_json

SIZES = {4: (25, 50, 100, 400), 2: (25, 50, 100)}  # participants, by the voxel size in mm
JOBS = (1, 2)
TICKS = os.sysconf("SC_CLK_TCK")


def family(process: int) -> list[int]:
    """The process and all below it."""
    try:
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except OSError:
        return []
    return [process, *(each for child in children for each in family(int(child)))]


def used(process: int) -> tuple[int, float]:
    """Anonymous memory in kB and processor seconds of a process; 0 where it has ended."""
    try:
        status = Path(f"/proc/{process}/status").read_text().splitlines()
        times = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0, 0.0
    anonymous = next((int(line.split()[1]) for line in status if line.startswith("RssAnon")), 0)
    return anonymous, (int(times[11]) + int(times[12])) / TICKS


def results(out: Path) -> dict[str, Any]:
    """Digests of all files of a results folder without manifest, and the content of metrics.json without times."""
    files = (p for p in out.rglob("*") if p.is_file() and p.name not in ("manifest.json", "metrics.json"))
    metrics = {name: value for name, value in read_json(out / "metrics.json").items() if name != "times"}
    return {p.relative_to(out).as_posix(): sha256(p) for p in files} | {"metrics.json": json.dumps(metrics)}


def run(prepared: Path, work: Path, jobs: int, returning: bool) -> tuple[dict[str, float], dict[str, Any]]:
    """Seconds, memory in MB and processor seconds of one evaluation, and its results."""
    out = work / f"results-{jobs}"
    shutil.rmtree(out, ignore_errors=True)
    words = ["evaluate", prepared, "--model", work / "run" / "model", "--no-controls", "--out", out, "--jobs", jobs]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    environment |= {"MALLOC_MMAP_THRESHOLD_": str(RETURNED)} if returning else {}
    started, together, most, seconds = time.perf_counter(), 0, 0, {}
    command = [sys.executable, "-m", "pdsynth", *map(str, words), "--device", "cpu"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment) as process:
        while process.poll() is None:
            now = {each: used(each) for each in family(process.pid)}
            together = max(together, sum(memory for memory, _ in now.values()))
            most = max(most, *(memory for memory, _ in now.values()), 0)
            seconds |= {each: max(spent, seconds.get(each, 0)) for each, (_, spent) in now.items()}
            time.sleep(0.05)
    if process.returncode:
        raise SystemExit(process.returncode)
    took, first = time.perf_counter() - started, seconds.pop(process.pid)
    found = {"together_mb": megabytes(together), "process_mb": megabytes(most)}
    if not returning:  # which takes more time
        found |= {
            "seconds": took,
            "processor_seconds": first + sum(seconds.values()),
            "longest_processor_seconds": first + max(seconds.values(), default=0),
        }
    return {name: round(value, 1) for name, value in found.items()}, results(out)


def summary(measured: dict[int, dict[str, Any]], shape: tuple[int, int, int]) -> dict[str, Any]:
    """The content of the file, of the sizes that are measured."""
    slopes = {
        f"{jobs} jobs, {name}": growth(
            {n: {name: median(each[name] for each in of["jobs"][str(jobs)])} for n, of in measured.items()}, name
        )
        for jobs in JOBS
        for name in ("together_mb", "process_mb")
        if len(measured) > 1
    }
    return {
        "date": date.today().isoformat(),
        "machine": f"{cpu()}, {os.cpu_count()} cores, load {os.getloadavg()[2]:.1f}",
        "data": "SIMULATED",
        "grid": list(shape),
        "method": RECIPE,
        "participants": {str(number): each for number, each in measured.items()},
        "growth_mb_per_participant": slopes,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--grid-mm", type=int, choices=SIZES, default=4)
    parser.add_argument("--returning", action="store_true")
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "evaluate_jobs.json")
    given = parser.parse_args()
    work = given.work / f"{given.grid_mm}-mm"
    work.mkdir(parents=True, exist_ok=True)
    pairs = cohort(work, given.grid_mm)
    measured: dict[int, dict[str, Any]] = {}
    kind = f"{given.grid_mm} mm" + (", freed arrays given back" if given.returning else "")
    for number in SIZES[given.grid_mm]:
        prepared, found = copies(pairs, work / "copies", number), {jobs: [] for jobs in JOBS}
        entries = read_json(prepared / "manifest.json")
        scans = [name for name in entries["volumes"] if not name.startswith("oracle")]
        write_json(prepared / "manifest.json", entries | {"volumes": scans})
        equal = True
        for _ in range(given.turns):
            written = {}
            for jobs in JOBS:
                spent, written[jobs] = run(prepared, work, jobs, given.returning)
                found[jobs].append(spent)
                print(number, jobs, spent, flush=True)
            equal &= written[1] == written[2]
        ratios = {
            f"speed_of_two_jobs_by_{name}": round(
                median(one[name] / two[name] for one, two in zip(*found.values(), strict=True)), 2
            )
            for name in (() if given.returning else ("seconds", "longest_processor_seconds"))
        }
        measured[number] = {"jobs": {str(jobs): each for jobs, each in found.items()}, "equal_bytes": equal} | ratios
        result = summary(measured, pairs.grid.shape)
        write_json(given.out, read_json(given.out) | {kind: result})
    print(result["growth_mb_per_participant"])


if __name__ == "__main__":
    main()
