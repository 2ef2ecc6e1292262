"""Attacks on every command that writes: kills, full disks, dead workers, two runs, files of a user in the output.

Usage: python benchmarks/safety.py WORK [--only kills,full,workers,double,placements] [--verbs a,b] [--count N]
       [--out benchmarks/results/safety.json]
WORK is an empty folder, or that of an earlier run, whose trials are kept and not repeated. A trial depends only on its
scenario, command and number. It runs in a forked process, which has loaded the libraries, so that it starts fast. The
cohorts are SIMULATED, with 2 to 12 participants, on a grid of 8 mm.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import signal
import sys
import time
from collections import Counter
from datetime import date
from pathlib import Path

from safety_cases import Case, cases, prepare_inputs
from safety_trials import SCENARIOS, run_to_end

COUNTS = {"kills": 50, "full": 20, "workers": 20, "double": 20, "placements": 50}


def cpu() -> str:
    """The name of the processor."""
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def reference(case: Case, work: Path) -> tuple[dict[str, str], float]:
    """Content of an undisturbed output, and its time in seconds: the median of three, because the first is slower."""
    took = []
    for _ in range(3):
        folder = work / "trial"  # the folder of the trials, because outputs contain a digest of their location
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        out = case.begin(folder)
        started = time.monotonic()
        ended = run_to_end(case, out)
        took.append(time.monotonic() - started)
        assert ended.status == 0, (case.verb, ended)
    return case.content(out), sorted(took)[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--only", default=",".join(COUNTS))
    parser.add_argument("--verbs")
    parser.add_argument("--count", type=int)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/safety.json"))
    given = parser.parse_args()
    work = given.work.absolute()
    verbs = set(given.verbs.split(",")) if given.verbs else set()
    work.mkdir(parents=True, exist_ok=True)
    inputs = prepare_inputs(work / "inputs", verbs or {"all"})
    record = work / "trials.jsonl"
    done = [json.loads(line) for line in record.read_text().splitlines()] if record.exists() else []
    known = {(t["scenario"], t["verb"], t["number"]) for t in done}
    for case in cases(inputs):
        if verbs and case.verb not in verbs:
            continue
        expected, seconds = None, 0.0
        for scenario in given.only.split(","):
            attack = SCENARIOS[scenario]
            if scenario == "workers" and not case.has_workers:
                continue
            for number in range(given.count or COUNTS[scenario]):
                if (scenario, case.verb, number) in known:
                    continue
                if expected is None:
                    expected, seconds = reference(case, work / case.verb)
                folder = work / case.verb / "trial"
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir(parents=True)
                generator = random.Random(f"{scenario} {case.verb} {number}")
                trial = attack(case, folder, expected, seconds, generator, number)
                trial = {"scenario": scenario, "verb": case.verb, "number": number} | trial
                done.append(trial)
                with record.open("a") as file:
                    file.write(json.dumps(trial) + "\n")
                if trial["bad"]:
                    print(trial, flush=True)
                    folder.rename(folder.with_name(f"{scenario}-{number}"))
            print(case.verb, scenario, "done", round(seconds, 1), flush=True)
    write_summary(done, given.out)
    sys.exit(1 if any(trial["bad"] for trial in done) else 0)


def write_summary(trials: list[dict], out: Path) -> None:
    """Write the counts of each scenario and command: trials, attacks during the run, and failures, which must be 0."""
    rows: dict[str, dict[str, dict[str, object]]] = {}
    for scenario in SCENARIOS:
        for verb in sorted({t["verb"] for t in trials if t["scenario"] == scenario}):
            of = [t for t in trials if t["scenario"] == scenario and t["verb"] == verb]
            rows.setdefault(scenario, {})[verb] = {
                "trials": len(of),
                "landed": sum(t.get("landed", True) for t in of),
                "bytes_of_a_user_lost": sum(t.get("lost", 0) for t in of),
                "volumes_mixed": sum(t.get("mixed", 0) for t in of),
                "half_written_outputs": sum(t.get("half", False) for t in of),
                "restarts": sum("identical" in t for t in of),
                "restarts_identical": sum(t.get("identical", False) for t in of),
                "left_behind": sum(t.get("left", 0) for t in of),
                "exit_statuses": dict(Counter(str(s) for t in of for s in t["statuses"])),
                "bad": [t["number"] for t in of if t["bad"]],
            }
    from pdsynth.files import read_json, write_json

    before = read_json(out)
    about = {
        "date": date.today().isoformat(),
        "machine": f"{cpu()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "data": "SIMULATED, 2 to 12 participants, 8 mm",
    }
    write_json(out, before | about | {"scenarios": rows})
    print("trials", len(trials), "bad", sum(bool(t["bad"]) for t in trials))


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(main())
