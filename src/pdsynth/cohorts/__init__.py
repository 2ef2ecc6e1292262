"""Data sources: one adapter a file, each a function from a folder to a `Cohort`."""

from pdsynth.cohorts.bids import bids

__all__ = ["bids"]
