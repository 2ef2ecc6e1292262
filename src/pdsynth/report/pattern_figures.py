"""Figures 5 and 6: region patterns, real and synthesised, by group and by participant; and effects on the brain."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pdsynth.files import complete_or_absent
from pdsynth.report import words
from pdsynth.results.patterns import Patterns
from pdsynth.types import Diagnosis, Direction

DPI = 110
SHOWN_PEOPLE = 6
REAL_COLOUR, MADE_COLOUR = "#222222", "#c8441b"
STYLE: Any = {"font.size": 8, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "pdsynth"}


def group_figure(patterns: Patterns, method: str, direction: Direction, path: Path, simulated: bool) -> Path:
    """Figure 5: each group's mean pattern with its 95 % interval (normal), real and synthesised; returns `path`.

    The mean of all real scans is taken away, as the regions differ far more from each other than the groups do.
    """
    real, made = patterns.pair(method, direction)
    order, borders = _by_network(patterns)
    groups = [g for g in Diagnosis if (patterns.people["diagnosis"] == g).sum() > 1]
    centre = real.mean(0)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9, 1.2 + 1.7 * len(groups)), layout="constrained")
        axes = figure.subplots(len(groups), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
        figure.suptitle(_title("Region means of a group less those of all real scans", method, direction, simulated))
        for axis, group in zip(axes, groups, strict=True):
            rows = (patterns.people["diagnosis"] == group).to_numpy()
            for values, colour, name in ((real, REAL_COLOUR, "real"), (made, MADE_COLOUR, "synthesised")):
                part = (values[rows] - centre)[:, order]
                mean, reach = part.mean(0), 1.96 * part.std(0, ddof=1) / np.sqrt(rows.sum())
                at = np.arange(len(order))
                axis.plot(at, mean, color=colour, lw=1, label=name)
                axis.fill_between(at, mean - reach, mean + reach, color=colour, alpha=0.18, lw=0)
            axis.axhline(0, color="#888888", lw=0.5)
            axis.set_ylabel(f"{group} (n = {rows.sum()})\nsignal")
        _label_networks(axes[-1], borders)
        figure.legend(*axes[0].get_legend_handles_labels(), frameon=False, ncols=2, loc="outside lower right")
        return save(figure, path)


def person_figure(patterns: Patterns, method: str, direction: Direction, path: Path, simulated: bool) -> Path:
    """Figure 6: participants' patterns less the mean of all real scans, from the best to the worst correlation."""
    real, made = patterns.pair(method, direction)
    order, borders = _by_network(patterns)
    centre = real.mean(0)
    r = np.array([_correlation(a - centre, b - centre) for a, b in zip(real, made, strict=True)])
    ranked = np.argsort(-np.nan_to_num(r, nan=-2))
    chosen = ranked[np.unique(np.linspace(0, len(ranked) - 1, min(SHOWN_PEOPLE, len(ranked))).round().astype(int))]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9, 1.2 + 1.25 * len(chosen)), layout="constrained")
        axes = figure.subplots(len(chosen), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
        figure.suptitle(
            _title("Region means of a participant less those of all real scans", method, direction, simulated)
        )
        for axis, row in zip(axes, chosen, strict=True):
            for values, colour, name in ((real, REAL_COLOUR, "real"), (made, MADE_COLOUR, "synthesised")):
                axis.plot((values[row] - centre)[order], color=colour, lw=1, label=name)
            axis.axhline(0, color="#888888", lw=0.5)
            person = patterns.people.iloc[row]
            rank = int(np.flatnonzero(ranked == row)[0]) + 1
            about = f"{person['participant_id']}, {person['diagnosis']}, rank {rank} of {len(ranked)}, r = {r[row]:.2f}"
            axis.set_title(about, fontsize=8, loc="left")
        _label_networks(axes[-1], borders)
        figure.legend(*axes[0].get_legend_handles_labels(), frameon=False, ncols=2, loc="outside lower right")
        return save(figure, path)


def brain_figure(
    regions: pd.DataFrame,
    values: Mapping[str, np.ndarray],
    title: str,
    unit: str,
    path: Path,
    limit: float | None = None,
    ringed: Mapping[str, np.ndarray] | None = None,
) -> Path:
    """Values of the R regions (x, y, z in mm) on a glass brain, by nilearn: colour and size, a row a name, one scale.

    ringed: by the same names, the regions (R,) that a black ring marks.
    """
    from nilearn import plotting

    finite = np.concatenate([value[np.isfinite(value)] for value in values.values()])
    top = limit or float(np.abs(finite).max(initial=0.0)) or 1.0
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


def _by_network(patterns: Patterns) -> tuple[np.ndarray, list[tuple[str, int, int]]]:
    """Places of the regions sorted by network, and each network's first and last place in that order."""
    networks = patterns.regions["network"].fillna("").to_numpy(str)
    order = np.argsort(networks, kind="stable")
    borders = []
    for name in dict.fromkeys(networks[order]):
        places = np.flatnonzero(networks[order] == name)
        borders.append((name, int(places[0]), int(places[-1])))
    return order, borders


def _label_networks(axis: Axes, borders: list[tuple[str, int, int]]) -> None:
    for _, first, _ in borders[1:]:
        for each in axis.figure.axes:
            each.axvline(first - 0.5, color="#bbbbbb", lw=0.5)
    axis.set_xticks([(first + last) / 2 for _, first, last in borders], [name for name, _, _ in borders])
    axis.tick_params(axis="x", length=0)


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a, b)[0, 1]) if min(a.std(), b.std()) > 0 else float("nan")


def _title(what: str, method: str, direction: Direction, simulated: bool) -> str:
    return f"{'SIMULATED. ' if simulated else ''}{what}; {method}, {words.DIRECTIONS[direction]}"


def save(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG, whole or not at all, with nothing in it that changes from run to run."""
    with complete_or_absent(path) as temporary:
        figure.savefig(temporary, format="png", dpi=DPI, facecolor="white", metadata={"Software": None})
    return path
