"""What test_report.py leaves open: odd ranges of a chart's axis, and where slices are cut."""

import numpy as np
import pytest

from pdsynth.report.charts import _ticks
from pdsynth.report.pictures import View

AFFINE = np.diag([4.0, 4.0, 4.0, 1.0])
AFFINE[:3, 3] = (-40, -48, -32)
SHAPE = (20, 24, 16)


def test_the_box_holds_every_mask_and_cuts_stay_inside():
    masks = np.zeros((2, *SHAPE), bool)
    masks[0, 5:8, 6:9, 4:7] = True
    masks[1, 7:10, 6:9, 4:7] = True
    view = View.around(masks, AFFINE, (500.0, -500.0, 0.0))
    assert view.box == (slice(4, 11), slice(5, 10), slice(3, 8))
    assert view.cuts == (10, 5, 7)
    assert View.around(masks, AFFINE, None).cuts == (7, 7, 5)
    assert View.around(np.zeros(SHAPE, bool), AFFINE).box == tuple(slice(0, n) for n in SHAPE)


def test_widths_are_in_mm_on_uneven_voxels():
    view = View.around(np.ones(SHAPE, bool), np.diag([2.0, 3.0, 5.0, 1.0]), None)
    assert [view.width_mm(axis) for axis in range(3)] == [72, 40, 40]


@pytest.mark.parametrize(("low", "high"), [(100, 100), (0, 0), (3.2, 27.9), (-0.004, 0.003)])
def test_ticks_span_the_range_even_where_all_scores_are_one(low, high):
    ticks = _ticks(low, high)
    assert 2 <= len(ticks) <= 9
    assert ticks[0] <= low + 1e-9 and ticks[-1] >= high - 1e-9
