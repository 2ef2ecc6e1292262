"""Readers of data sets. A module with a `LAYOUT` is an adapter: it reads a folder of one layout into a `Cohort`.

`read` detects the layout and calls its adapter. This package also exports each adapter's function under the name of its
layout: `pdsynth.cohorts.bids(root)`.
"""

from pdsynth.cohorts.detect import LAYOUTS, detect, read

globals().update({name: layout.read for name, layout in LAYOUTS.items()})

__all__ = ["LAYOUTS", "detect", "read"]
