"""A small count of the trials of benchmarks/fuzz_inputs.py: no changed byte ends in a traceback or in status 1."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

HARNESS = Path(__file__).parents[2] / "benchmarks" / "fuzz_inputs.py"


def test_no_fuzzed_file_is_a_fault_of_pdsynth(tmp_path: Path) -> None:
    """Input: a table, sidecar, gradient table or image header with damaged, odd or additional bytes.

    Result: read or refused, with one line that names the file and the remedy.
    """
    out = tmp_path / "fuzz.json"
    words = [sys.executable, HARNESS, "--trials", "400", "--seed", "1", "--out", out]
    ended = subprocess.run([*map(str, words)], check=False, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found = json.loads(out.read_text())
    assert found["trials"] == sum(found["statuses"].values()) == 400 and found["failures"] == []
    assert all(f"{kind}: status 0" in found["statuses"] for kind in ("gradients", "header", "sidecar", "table"))
