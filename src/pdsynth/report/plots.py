"""Plots of regions on a glass brain, and how plots of matplotlib are styled and written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from pdsynth.files import complete_or_absent

DPI = 110
STYLE: Any = {"font.size": 8, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "pdsynth"}


def brain_figure(
    regions: pd.DataFrame,
    values: Mapping[str, np.ndarray],
    title: str,
    unit: str,
    path: Path,
    ringed: Mapping[str, np.ndarray] | None = None,
) -> Path:
    """Values of the R regions (x, y, z in mm) on a glass brain, by nilearn: colour and size, a row a name, one scale.

    ringed: by the same names, the regions (R,) that a black ring marks.
    """
    from nilearn import plotting

    finite = np.concatenate([value[np.isfinite(value)] for value in values.values()])
    top = float(np.abs(finite).max(initial=0.0)) or 1.0
    places = regions[["x", "y", "z"]].to_numpy(float)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9, 0.5 + 2.5 * len(values)), layout="constrained")
        figure.suptitle(f"{title}\ncolour and size: {unit}")
        axes = figure.subplots(len(values), 1, squeeze=False)[:, 0]
        for axis, (name, value) in zip(axes, values.items(), strict=True):
            axis.set_title(name, fontsize=8, loc="left")
            known = np.isfinite(value)
            if not known.any():
                axis.text(0.5, 0.5, "too few participants to tell", ha="center", va="center")
                axis.set_axis_off()
                continue
            display = plotting.plot_markers(
                value[known], places[known], node_size=8 + 60 * np.abs(value[known]) / top, node_cmap="RdBu_r",
                node_vmin=-top, node_vmax=top, alpha=1.0, display_mode="lyrz", axes=axis, annotate=True,
                node_kwargs={"edgecolors": "#777777", "linewidths": 0.3},
            )  # fmt: skip
            rings = places[ringed[name]] if ringed else places[:0]
            if len(rings):
                display.add_markers(rings, marker_color="none", marker_size=80, edgecolors="black", linewidths=1.1)
        return save(figure, path)


def save(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG, whole or not at all, with nothing in it that changes from run to run."""
    with complete_or_absent(path) as temporary:
        figure.savefig(temporary, format="png", dpi=DPI, facecolor="white", metadata={"Software": None})
    return path
