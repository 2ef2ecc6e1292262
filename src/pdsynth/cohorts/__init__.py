"""Readers of data sets. A module with a `LAYOUT` is an adapter: it reads a folder of one layout into a `Cohort`.

`read` detects the layout and calls its adapter. This package also exports each adapter's function under the name of its
layout: `pdsynth.cohorts.bids(root)`.
"""

from typing import TYPE_CHECKING

from pdsynth.cohorts.detect import LAYOUTS, detect, read

if TYPE_CHECKING:  # type checkers do not see the names below; a layout that is not here works too
    from pdsynth.cohorts.adni import adni as adni
    from pdsynth.cohorts.bids import bids as bids
    from pdsynth.cohorts.derivatives import derivatives as derivatives
    from pdsynth.cohorts.folder import folder as folder
    from pdsynth.cohorts.oasis3 import oasis3 as oasis3

globals().update({name: layout.read for name, layout in LAYOUTS.items()})

__all__ = ["LAYOUTS", "detect", "read"]
