"""The arithmetic of the plan page, by hand, and that no figure of the page is typed."""

from __future__ import annotations

import json

import pytest

import plan_page
from pdsynth.recipes import RECIPES
from plan_page import MACHINES, Machine, gigabytes, plan, shown

PAIR = {"processor_seconds": 36, "resident_mb": 700, "voxels": [1, 1, 1], "bytes": 700_000, "record_bytes": 300_000}
UNITS = {
    "date": "2000-01-01",
    "machine": "abacus",
    "scans": "one invented pair",
    "prepare": {"4": PAIR, "2": PAIR | {"processor_seconds": 72}},
    "synthesize": {"processor_seconds": 18, "resident_mb": 900, "bytes": 2_000_000},
    "copied": {
        "training_step_seconds": {"pds": 0.6, "threads": 2, "from": "a"},
        "training": {"fit_seconds_per_participant": 0.9, "peak_mb": 2000, "participants": 200, "from": "b"},
        "evaluate": {
            "4": {"local-ridge": 3.6, "process_mb": 500, "growth_mb": 0.1, "participants": [25, 400], "from": "c"},
            "2": {"local-ridge": 36.0, "process_mb": 1000, "growth_mb": 0.2, "participants": [25, 100], "from": "c"},
        },
        "speed_of_two_jobs": {"prepare": 1.9, "synthesize": 1.7, "from": "d"},
        "small_simulated_scans": {"prepare_seconds": 1, "synthesize_seconds": 2, "from": "e"},
    },
}


def test_the_hours_of_a_study_at_4_mm_by_hand():
    found = plan(UNITS, 1000, Machine("four", 4), 4)
    assert RECIPES["pds"].steps == 6000
    assert found == pytest.approx(
        {
            "prepare": 2.5 / 0.95,  # 1000 x 36 s / 4, by the efficiency of two processes
            "train": (6000 * 0.6 + 800 * 0.9) / 3600,
            "synthesize": 1.25 / 0.85,  # 1000 x 18 s / 4
            "evaluate": 0.025,  # 100 x 3.6 s / 4
            "core hours": 10 + 5 + 0.1 + (2 * 3600 + 720) / 3600,
        }
    )


def test_processes_divide_all_but_training_and_change_no_core_hour():
    one, many = (plan(UNITS, 500, Machine("", n), 4) for n in (1, 100))
    for name, speed in (("prepare", 95), ("synthesize", 85), ("evaluate", 100)):
        assert one[name] == pytest.approx(speed * many[name])
    assert one["prepare"] == 5 and one["synthesize"] == 2.5
    assert one["train"] == many["train"] and one["core hours"] == many["core hours"]


@pytest.mark.parametrize(
    ("machine", "spacing", "known"),
    [
        (MACHINES[0], 2, {"prepare", "evaluate"}),
        (MACHINES[1], 4, {"prepare", "train", "synthesize", "evaluate", "core hours"}),
        (MACHINES[2], 2, {"prepare", "evaluate"}),
        (MACHINES[3], 4, {"prepare", "synthesize", "evaluate"}),
    ],
)
def test_what_was_not_measured_has_no_number(machine, spacing, known):
    found = plan(UNITS, 500, machine, spacing)
    assert {name for name, value in found.items() if value is not None} == known


def test_the_storage_by_hand():
    assert gigabytes(UNITS, 5000, 2) == (5.0, 10.0)


def test_every_figure_of_the_page_is_from_the_units(monkeypatch, tmp_path):
    (tmp_path / "units.json").write_text(json.dumps(UNITS))
    monkeypatch.setattr(plan_page, "UNITS", tmp_path / "units.json")
    page = plan_page.page()
    assert "| `prepare` one pair | 36.0 s | 72.0 s |" in page
    assert "| 5,000 | laptop, 2 processes | 26 | 2 | 15 | 0.25 |" in page
    assert "| 5,000 | one GPU, 8 processes | 13 | not measured | not measured | 0.62 |" in page  # at 2 mm
    assert page.count("| 56,000 |") == 2 * len(MACHINES) + 2
    assert "| 5,000 | 4 mm | 5 | 10 | 700 | 78 | 3.9 |" in page
    for table in page.split("## ")[3:]:
        assert all(line.count("|") == table.split("\n")[2].count("|") for line in table.splitlines() if line[:1] == "|")


def test_the_committed_units_make_a_page_without_a_gap():
    units = json.loads(plan_page.UNITS.read_text())
    assert units["prepare"]["2"]["bytes"] > 6 * units["prepare"]["4"]["bytes"] > 6 * 6 * 100_000
    found = plan(units, 56_000, MACHINES[0], 4)
    assert all(value is not None and value > 0 for value in found.values())
    speeds = units["copied"]["speed_of_two_jobs"] | {"evaluate": 2}
    assert found["core hours"] > sum(speeds[name] * found[name] for name in ("prepare", "synthesize", "evaluate"))
    assert "None" not in plan_page.page() and "nan" not in plan_page.page()


def test_numbers_have_two_digits():
    texts = ["under 0.1", "0.31", "10", "10", "1,234", "not measured"]
    assert [shown(value) for value in (0.0312, 0.312, 9.96, 10.4, 1234.5, None)] == texts
