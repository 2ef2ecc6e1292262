"""Data sources: one adapter a file, each a function from a folder to a `Cohort`; `read` picks one."""

from pdsynth.cohorts.adni import adni
from pdsynth.cohorts.bids import bids
from pdsynth.cohorts.derivatives import derivatives
from pdsynth.cohorts.detect import detect, read
from pdsynth.cohorts.folder import folder
from pdsynth.cohorts.oasis3 import oasis3

__all__ = ["adni", "bids", "derivatives", "detect", "folder", "oasis3", "read"]
