"""Data sources: each file with a `LAYOUT` is an adapter, a function from a folder to a `Cohort`; `read` picks one.

An adapter is offered here under the name of its layout too: `pdsynth.cohorts.bids(root)`.
"""

from pdsynth.cohorts.detect import LAYOUTS, detect, read

globals().update({name: layout.read for name, layout in LAYOUTS.items()})

__all__ = ["LAYOUTS", "detect", "read"]
