"""The examples run in their order, as they stand, and print what they are there to show."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "examples"
EXAMPLES = sorted(FOLDER.glob("*.py"))


@pytest.fixture(scope="module")
def printed(tmp_path_factory) -> dict[str, str]:
    """What each prints, by name; each goes on in the folder of those before it."""
    work, found = tmp_path_factory.mktemp("examples") / "study", {}
    for example in EXAMPLES:
        ended = subprocess.run([sys.executable, example, work], check=False, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stderr
        found[example.stem] = ended.stdout
    return found


def test_some_lack_a_scan(printed):
    lines = printed["01_simulate"].splitlines()
    assert len(lines) == 6 and {line.split()[-1] for line in lines} == {"fmri", "dmri"}


def test_what_lacks_is_filled_in_and_marked(printed):
    first, name, refusal = printed["02_fill_in"].splitlines()
    assert first == "12 files, 0 scans refused"  # six volumes, each with its SD
    assert "SYNTHETIC pdsynth" in name and "NOT ACQUIRED" in name
    assert refusal.startswith("Refused: ") and "desc-synthetic" in refusal


def test_the_shipped_model_is_ahead_of_the_average_with_its_own_source_only(printed):
    found = {}
    for line in printed["03_how_good"].splitlines():
        own, shuffled = re.search(r"([\d.]+) dB.*source ([\d.]+)", line).groups()
        found[tuple(line.split()[:2])] = float(own), float(shuffled)
    for direction in ("fmri_to_dmri", "dmri_to_fmri"):
        own, shuffled = found["default", direction]
        average, _ = found["population-mean", direction]
        assert own > average + 2 > shuffled + 2
        assert found["oracle", direction][0] > own


def test_the_intervals_hold_after_calibration(printed):
    held = {tuple(line.split()[:2]): float(re.search(r"hold ([\d.]+) %", line)[1])
            for line in printed["04_how_sure"].splitlines()}  # fmt: skip
    assert len(held) == 4
    assert all(90 < held["calibrated", direction] < 99 for direction in ("fmri_to_dmri", "dmri_to_fmri"))


def test_what_a_notebook_shows_also_runs_as_a_script(printed):
    assert re.fullmatch(r"\d{4,} voxels, mean 0\.\d\d\n", printed["05_in_a_notebook"])


def test_the_page_names_each_example():
    page = (FOLDER / "README.md").read_text()
    assert re.findall(r"python examples/(\w+)\.py", page) == [example.stem for example in EXAMPLES]
