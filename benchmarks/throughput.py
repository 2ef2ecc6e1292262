"""Times for indexing, opening, reading and preparing cohorts of the size of the paper's.

Usage: python benchmarks/throughput.py COHORT [--out benchmarks/results/throughput.json]
COHORT is simulated: `pdsynth simulate COHORT --subjects 200 --quick`. The following times are measured:

- index: reading a BIDS dataset of 5,000 subjects and 20,000 files into a cohort, three times.
- open: opening a prepared folder of 56,000 rows.
- read: reading a pair from a prepared folder, from files that are not open yet, compared with reading two .nii.gz by
  nibabel, in turn: COHORT's small scans, and scans of 64x64x36x150. Results are medians of ratios.
- prepare: preparing COHORT by one process and by two.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from statistics import median

import nibabel as nib
import numpy as np
import pandas as pd
from indexing import index_seconds, make_dataset

from pdsynth import manifest
from pdsynth.cohorts.bids import bids
from pdsynth.data.pairs import Pairs
from pdsynth.data.prepare import prepare
from pdsynth.data.shards import FOLDER
from pdsynth.files import sha256, write_json
from pdsynth.types import Modality

ROWS, SEGMENTS, READS = 56_000, 4, 15
FULL_SIZE = (64, 64, 36, 150)


def open_seconds(prepared: Path, folder: Path) -> dict[str, float]:
    """Time for opening a prepared folder whose tables, manifest and files have the number and size of ROWS rows."""
    pairs = Pairs.open(prepared)
    out = folder / "large"
    (out / FOLDER).mkdir(parents=True)
    sessions = ROWS // (SEGMENTS + 1)
    size = (SEGMENTS + 1) * next(iter(pairs.manifest["shards"].values()))
    tables = []
    for number in range(sessions):
        row = pairs.table.iloc[[number % len(pairs)]].drop(columns="split")
        rows = pd.concat([row] * (SEGMENTS + 1))
        tables.append(rows.assign(participant_id=f"sub-{number:05d}", shard=f"sub-{number:05d}.npy"))
        with (out / FOLDER / f"sub-{number:05d}.npy").open("wb") as file:
            file.truncate(size)
    table = pd.concat(tables)
    table.to_csv(out / "pairs.tsv", sep="\t", index=False)
    people = table["participant_id"].drop_duplicates()
    pd.DataFrame({"participant_id": people, "split": "train"}).to_csv(out / "splits.tsv", sep="\t", index=False)
    outputs = {name: sha256(out / name) for name in ("pairs.tsv", "splits.tsv")}
    shards = dict.fromkeys(table["shard"], size)
    write_json(out / manifest.NAME, pairs.manifest | {"shards": shards, "outputs": outputs})
    times = []
    for _ in range(5):
        start = time.perf_counter()
        opened = Pairs.open(out)
        times.append(time.perf_counter() - start)
    assert len(opened) == len(table)
    return {"rows": len(table), "sessions": sessions, "seconds": round(median(times), 3)}


def read_seconds(prepared: Path, cohort: Path, folder: Path) -> dict[str, float]:
    """Time for reading both volumes of a pair: from the prepared folder, its small scans, and scans of FULL_SIZE."""
    pairs = Pairs.open(prepared)
    noise = np.random.default_rng(0).normal(600, 60, FULL_SIZE).astype(np.int16)
    full = folder / "full.nii.gz"
    nib.save(nib.Nifti1Image(noise, np.diag([3.5, 3.5, 3.5, 1.0])), full)
    stored, small, large = [], [], []
    for row in range(READS):
        scans = [cohort / pairs.table[f"{modality}_path"].iloc[row] for modality in Modality]
        for paths, times in ((scans, small), ([full, full], large)):
            start = time.perf_counter()
            for path in paths:
                nib.load(path).get_fdata()
            times.append(time.perf_counter() - start)
        start = time.perf_counter()
        for modality in Modality:
            pairs.volume(modality, row)
        stored.append(time.perf_counter() - start)
    return {
        "prepared_seconds": round(median(stored), 6),
        "small_nifti_seconds": round(median(small), 4),
        "full_size_nifti_seconds": round(median(large), 4),
        "times_faster_than_small": round(median(b / a for a, b in zip(stored, small, strict=True))),
        "times_faster_than_full_size": round(median(b / a for a, b in zip(stored, large, strict=True))),
    }


def prepare_seconds(cohort: Path, folder: Path) -> dict[str, float]:
    """Time of the whole command `prepare` by one process and by two."""
    took = {}
    for jobs in (1, 2):
        command = [
            sys.executable,
            "-m",
            "pdsynth",
            "prepare",
            str(cohort),
            str(folder / f"jobs{jobs}"),
            "--jobs",
            str(jobs),
        ]
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        took[jobs] = time.perf_counter() - start
    same = all(
        (folder / "jobs1" / FOLDER / path.name).read_bytes() == path.read_bytes()
        for path in (folder / "jobs2" / FOLDER).glob("*.npy")
    )
    assert same
    return {
        "subjects": len(bids(cohort).subjects),
        "one_job_seconds": round(took[1], 1),
        "two_jobs_seconds": round(took[2], 1),
        "speed_up": round(took[1] / took[2], 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cohort", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "throughput.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        few = bids(options.cohort)
        few.subjects = few.subjects[: READS + 1]
        prepared = prepare(few, folder / "few", jobs=2).root
        result = {
            "date": date.today().isoformat(),
            "machine": f"{os.cpu_count()}-core {platform.machine().replace('_', '-')}",
            "index": index_seconds(make_dataset(folder / "bids")),
            "open": open_seconds(prepared, folder),
            "read": read_seconds(prepared, options.cohort, folder),
            "prepare": prepare_seconds(options.cohort, folder),
        }
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
