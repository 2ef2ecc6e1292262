"""A small count of the attacks of benchmarks/safety.py: kills, a full disk, a dead worker, two runs, a user's files."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

HARNESS = Path(__file__).parents[1] / "benchmarks" / "safety.py"


@pytest.mark.parametrize(
    ("scenario", "count"), [("kills", 4), ("full", 2), ("workers", 1), ("double", 1), ("placements", 5)]
)
def test_a_verb_under_attack_loses_and_mixes_nothing(scenario: str, count: int, tmp_path: Path) -> None:
    found = tmp_path / "found.json"
    words = [tmp_path / "work", "--verbs", "simulate", "--only", scenario, "--count", count, "--out", found]
    ended = subprocess.run(
        [sys.executable, HARNESS, *map(str, words)], check=False, capture_output=True, text=True, cwd=HARNESS.parent
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    row = json.loads(found.read_text())["scenarios"][scenario]["simulate"]
    assert row["trials"] == count and row["bad"] == []
    zero = ("bytes_of_a_user_lost", "volumes_mixed", "half_written_outputs", "left_behind")
    assert [row[name] for name in zero] == [0, 0, 0, 0]
    assert row["restarts_identical"] == row["restarts"] and "1" not in row["exit_statuses"]
