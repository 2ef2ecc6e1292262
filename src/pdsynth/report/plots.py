"""Plots of regions on a glass brain, and the style and file format of all plots by matplotlib."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from pdsynth.files import atomic_path

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
    """Draw values of R regions on a glass brain (nilearn), and write a PNG to `path`; returns `path`.

    regions: R rows with x, y, z in mm (MNI). values: (R,) by name; each name has its own row of the figure. unit: text
    that explains the values. A value that is not finite has no marker. Colour and size of a marker show its value, on
    one scale for the whole figure. ringed: (R,) bool by the same names; a black ring marks these regions.
    """
    from nilearn import plotting

    finite = np.concatenate([value[np.isfinite(value)] for value in values.values()])
    top = float(np.abs(finite).max(initial=0.0)) or 1.0
    centres = regions[["x", "y", "z"]].to_numpy(float)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9, 0.5 + 2.5 * len(values)), layout="constrained")
        figure.suptitle(f"{title}\ncolour and size: {unit}")
        axes = figure.subplots(len(values), 1, squeeze=False)[:, 0]
        for axis, (name, value) in zip(axes, values.items(), strict=True):
            axis.set_title(name, fontsize=8, loc="left")
            known = np.isfinite(value)
            if not known.any():
                axis.text(0.5, 0.5, "too few participants for an estimate", ha="center", va="center")
                axis.set_axis_off()
                continue
            display = plotting.plot_markers(
                value[known], centres[known], node_size=8 + 60 * np.abs(value[known]) / top, node_cmap="RdBu_r",
                node_vmin=-top, node_vmax=top, alpha=1.0, display_mode="lyrz", axes=axis, annotate=True,
                node_kwargs={"edgecolors": "#777777", "linewidths": 0.3},
            )  # fmt: skip
            rings = centres[ringed[name]] if ringed else centres[:0]
            if len(rings):
                display.add_markers(rings, marker_color="none", marker_size=80, edgecolors="black", linewidths=1.1)
        return save(figure, path)


def save(figure: Figure, path: Path) -> Path:
    """Write a figure as a PNG to `path`, completely or not at all; returns `path`.

    The same figure gives the same bytes in every run.
    """
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=DPI, facecolor="white", metadata={"Software": None})
    return path
