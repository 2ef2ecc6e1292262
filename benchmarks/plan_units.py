"""Units for planning: processor seconds, memory and bytes of one pair, at 4 and at 2 mm.

Usage: python benchmarks/plan_units.py BIDS [--out benchmarks/results/plan_units.json]
BIDS is a dataset with both scans of one participant, of full size. Each unit is measured in a process of its own with
one thread. The units are processor seconds, because other work on the machine changes the wall time, and the largest
resident memory. Bytes are those of the volumes and masks of a prepared pair, without the volumes that only simulated
people have. Units that other benchmarks measured are copied from their files, with the name of the file.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
from safety import cpu

from pdsynth.files import read_json, write_json

RESULTS = Path(__file__).parent / "results"
TABLES = Path(__file__).parents[1] / "docs" / "benchmark"
SPACINGS = (4, 2)  # mm
TRAINED = 200  # participants of the benchmark


def seconds() -> float:
    """Processor seconds of this process and of its finished children."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def megabytes() -> float:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def prepared(bids: Path, spacing: float) -> dict[str, float]:
    """Of preparing one pair on a grid: processor seconds, memory, and bytes of the pair and of its record."""
    from pdsynth import cohorts, prepare

    cohort = cohorts.bids(bids)
    with tempfile.TemporaryDirectory() as work:
        before = seconds()
        pairs = prepare(cohort, Path(work) / "prepared", grid_mm=spacing, split=(0.0, 0.0, 1.0))
        took = seconds() - before
        assert len(pairs.test) == 1, "the dataset must have one pair"
        shard = pairs.table["shard"].iloc[0]
        names = [f"{modality}{end}" for modality in ("fmri", "dmri") for end in ("", "_brain")]
        record = (pairs.root / "sessions" / shard).with_suffix(".json")
        return {
            "processor_seconds": round(took, 1),
            "resident_mb": megabytes(),
            "voxels": list(pairs.grid.shape),
            "bytes": sum(pairs.read(name, 0).nbytes for name in names),
            "record_bytes": record.stat().st_size,
        }


def synthesised(bids: Path) -> dict[str, float]:
    """Of synthesising the dMRI of one fMRI of full size with the shipped model, after loading it."""
    from pdsynth import cohorts, load

    model = load("default", "cpu")
    (subject,) = cohorts.bids(bids).subjects
    scan = next(scan for modality, scan in subject.sessions[0].scans.items() if modality == "fmri")
    with tempfile.TemporaryDirectory() as out:
        before = seconds()
        images = model.synthesize(scan.path, to="dmri").save(out)
        return {
            "processor_seconds": round(seconds() - before, 1),
            "resident_mb": megabytes(),
            "bytes": sum(path.stat().st_size for path in images),
        }


def evaluated(measured: dict[str, Any]) -> dict[str, Any]:
    """Of one process of `evaluate`: seconds per participant, memory for the most participants, and its growth."""
    sizes = [int(number) for number in measured["participants"]]
    few, many = (measured["participants"][str(n)]["jobs"]["1"][0] for n in (min(sizes), max(sizes)))
    spent = (many["processor_seconds"] - few["processor_seconds"]) / (max(sizes) - min(sizes))
    return {
        "local-ridge": round(spent, 3),
        "process_mb": many["process_mb"],
        "growth_mb": round(measured["growth_mb_per_participant"]["1 jobs, process_mb"]["line"], 2),
        "participants": [min(sizes), max(sizes)],
        "from": "evaluate_jobs.json",
    }


def copied() -> dict[str, Any]:
    """Units from the files of other benchmarks, each with the name of its file."""
    steps = read_json(RESULTS / "precision.json")["AMD EPYC (avx512_bf16, avx512_f, avx2)"]
    evaluations = read_json(RESULTS / "evaluate_jobs.json")
    table = pd.read_csv(TABLES / "table8.tsv", sep="\t")
    fitted = table[(table["method"] == "pds") & (table["direction"] == "fmri_to_dmri")].iloc[0]
    throughput, synthesis = (read_json(RESULTS / f"{name}.json") for name in ("throughput", "synthesize_jobs"))
    return {
        "training_step_seconds": {
            "pds": steps["steps"]["pds"]["diffusion"]["seconds"]["bf16-mixed"],
            "threads": steps["threads"],
            "from": "precision.json",
        },
        "training": {
            "fit_seconds_per_participant": round((fitted["fit_seconds"] - fitted["train_seconds"]) / TRAINED, 2),
            "peak_mb": round(fitted["peak_memory_mb"]),
            "participants": TRAINED,
            "from": "docs/benchmark/table8.tsv",
        },
        "evaluate": {spacing: evaluated(evaluations[f"{spacing} mm"]) for spacing in ("4", "2")},
        "speed_of_two_jobs": {
            "prepare": throughput["prepare"]["speed_up"],
            "synthesize": synthesis["speed_of_two_jobs"],
            "from": "throughput.json, synthesize_jobs.json",
        },
        "small_simulated_scans": {
            "prepare_seconds": round(throughput["prepare"]["one_job_seconds"] / throughput["prepare"]["subjects"], 2),
            "synthesize_seconds": round(min(synthesis["seconds"]["1"]) / synthesis["scans"], 2),
            "from": "throughput.json, synthesize_jobs.json",
        },
    }


def measured(bids: Path, unit: str) -> dict[str, float]:
    """The figures of one unit, from a process of its own."""
    command = [sys.executable, __file__, str(bids), "--unit", unit]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    found = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
    print(unit, found, flush=True)
    return json.loads(found.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bids", type=Path, nargs="?", help="without it, only the units of other benchmarks are renewed")
    parser.add_argument("--out", type=Path, default=RESULTS / "plan_units.json")
    parser.add_argument("--unit", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.unit:
        unit = synthesised(given.bids) if given.unit == "synthesize" else prepared(given.bids, float(given.unit))
        print(json.dumps(unit))
        return
    if given.bids is None:
        write_json(given.out, read_json(given.out) | {"copied": copied()})
        return
    result = {
        "date": date.today().isoformat(),
        "machine": cpu(),
        "scans": "one real volunteer's pair of full size",
        "prepare": {str(spacing): measured(given.bids, str(spacing)) for spacing in SPACINGS},
        "synthesize": measured(given.bids, "synthesize"),
        "copied": copied(),
    }
    write_json(given.out, result)


if __name__ == "__main__":
    main()
