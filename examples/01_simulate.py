"""Simulate a small BIDS cohort in which some participants lack a scan, and print the missing scans. SIMULATED."""

import sys
from pathlib import Path

import pdsynth
from pdsynth.cohorts.simulated.cohort import simulate

work = Path(sys.argv[1] if len(sys.argv) > 1 else "example-study")

if __name__ == "__main__":  # the worker processes import this file
    root = simulate(work / "bids", subjects=30, missing_fmri=0.1, missing_dmri=0.1, quick=True, jobs=2)
    cohort = pdsynth.cohorts.bids(root)
    for subject, session in cohort:
        if session.missing:
            print(subject.participant_id, session.diagnosis, "lacks", *session.missing)
