"""A cohort with known truth, made from templates: see `simulate`."""

from pdsynth.cohorts.simulated.cohort import simulate

__all__ = ["simulate"]
