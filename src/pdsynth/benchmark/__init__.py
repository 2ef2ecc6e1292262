"""Comparison of recipes with the same pairs, split, budget and seed, and the paper's tables of their scores."""

from pdsynth.benchmark.jobs import benchmark
from pdsynth.benchmark.tables import ALL

__all__ = ["ALL", "benchmark"]
