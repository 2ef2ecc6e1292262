"""Starts `pdsynth serve` as a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

SOURCES = Path(__file__).parents[1] / "src"


def start(model, temporary):
    """The process of `pdsynth serve` and the address that it prints."""
    variables = os.environ | {"TMPDIR": str(temporary), "PYTHONPATH": str(SOURCES), "COLUMNS": "300"}
    process = subprocess.Popen(
        [sys.executable, "-m", "pdsynth", "serve", str(model), "--device", "cpu"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=variables, text=True, start_new_session=True,
    )  # fmt: skip
    line = process.stdout.readline()
    found = re.search(r"http://127\.0\.0\.1:\d+/[\w-]{43}/", line)
    assert found, (line, process.stderr.read() if process.poll() is not None else "")
    return process, found[0]
