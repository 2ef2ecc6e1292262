"""What the figures on the brain mark."""

import numpy as np
import pandas as pd
from matplotlib.image import imread

from pdsynth.report.plots import brain_figure

REGIONS = pd.DataFrame({"x": [-40.0, 40.0, 0.0], "y": [0.0, 0.0, 30.0], "z": [20.0, 20.0, 40.0]})
VALUES = {"real": np.array([-0.5, 0.0, 0.5])}


def black(path) -> int:
    """Pixels that are black."""
    return int((imread(path)[..., :3].max(-1) < 0.05).sum())


def test_rings_stand_around_the_regions_that_are_told(tmp_path):
    drawn = {}
    for name, told in {"none": [0, 0, 0], "one": [1, 0, 0], "all": [1, 1, 1]}.items():
        path = tmp_path / f"{name}.png"
        brain_figure(REGIONS, VALUES, "title", "unit", path, ringed={"real": np.array(told, bool)})
        drawn[name] = black(path)
    plain = brain_figure(REGIONS, VALUES, "title", "unit", tmp_path / "plain.png")
    assert drawn["none"] == black(plain)
    one, every = (drawn[name] - drawn["none"] for name in ("one", "all"))
    assert one > 20 and every > 2 * one


def test_regions_of_which_nothing_is_known_are_no_obstacle(tmp_path):
    """Too few participants: no value, or one over a standard deviation of zero."""
    spoilt = {name: np.full(len(value), np.nan) for name, value in VALUES.items()}
    first, *_ = spoilt
    for value in (np.nan, np.inf):
        spoilt[first][0] = value
        image = imread(brain_figure(REGIONS, spoilt, "title", "unit", tmp_path / "few.png"))
        assert image[..., :3].std() > 0.01
