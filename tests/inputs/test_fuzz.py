"""A small count of the fuzz trials in benchmarks: no changed byte ends in a traceback or in status 1."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def fuzzed(script: str, trials: int, folder: Path) -> dict[str, int]:
    """Run a harness, which must find no failure; returns the number of trials by kind and status."""
    out = folder / "fuzz.json"
    words = [sys.executable, BENCHMARKS / script, "--trials", trials, "--seed", 1, "--out", out]
    ended = subprocess.run([*map(str, words)], check=False, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found = json.loads(out.read_text())
    assert found["trials"] == sum(found["statuses"].values()) == trials and found["failures"] == []
    return dict(found["statuses"])


def test_no_fuzzed_file_is_a_fault_of_pdsynth(tmp_path: Path) -> None:
    """Input: a table, sidecar, gradient table or image header with damaged, odd or additional bytes.

    Result: read or refused, with one line that names the file and the remedy.
    """
    statuses = fuzzed("fuzz_inputs.py", 400, tmp_path)
    assert all(f"{kind}: status 0" in statuses for kind in ("gradients", "header", "sidecar", "table"))


def test_no_fuzzed_file_that_is_read_back_is_a_fault_of_pdsynth(tmp_path: Path) -> None:
    """Input: a file of a prepared folder, a model, a run, results, a synthesis or a workspace, changed in some way.

    Result: read or refused with one line; no code in it runs, and nothing takes 5 s of processor time or 2 GB.
    """
    statuses = fuzzed("fuzz_files.py", 280, tmp_path)
    refused = {kind.split(":")[0] for kind in statuses if kind.endswith("status 2")}
    assert refused == {"model", "output", "prepared", "results", "run", "settings", "synthesis"}
    assert any(kind.endswith("status 0") for kind in statuses)
