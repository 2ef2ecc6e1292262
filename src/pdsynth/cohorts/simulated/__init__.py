"""Cohorts simulated from templates, with a known ground truth: see `simulate`."""

from pdsynth.cohorts.simulated.cohort import simulate

__all__ = ["simulate"]
