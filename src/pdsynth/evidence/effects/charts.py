"""Figures 5 and 6 (real and synthesised region patterns by group and by participant), and effects on the brain."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pdsynth.evidence.effects.compute import EffectRecovery
from pdsynth.evidence.effects.files import EFFECTS_FIGURE, GROUP_FIGURE, PERSON_FIGURE
from pdsynth.report import words
from pdsynth.report.plots import STYLE, brain_figure, save
from pdsynth.results.folder import Results
from pdsynth.results.patterns import Patterns
from pdsynth.types import Diagnosis, Direction

SHOWN_PEOPLE = 6
REAL_COLOUR, SYNTHESISED_COLOUR = "#222222", "#c8441b"


def draw(results: Results, patterns: Patterns, direction: Direction, recovered: EffectRecovery) -> None:
    """Write the figures of the method under test into the results folder: groups, participants and effects.

    patterns: region means, real and synthesised, one row per participant. direction: of synthesis; it ends the names of
    the files, such as figure5_fmri_to_dmri.png. recovered: the effects (AD minus NC) of this method in this direction.
    The figure of the groups (figure5_...) is left out if no diagnosis has two participants, and that of the effects
    (figure_effects_...) if none can be estimated; that of participants (figure6_...) is always written.
    """
    root, simulated, method = results.root, results.simulated, results.tested
    if patterns.people["diagnosis"].value_counts().max() > 1:
        group_figure(patterns, method, direction, root / GROUP_FIGURE.format(direction), simulated)
    person_figure(patterns, method, direction, root / PERSON_FIGURE.format(direction), simulated)
    if np.isfinite(recovered.g_real).any():
        effects = {"real": recovered.g_real, f"synthesised by {method}": recovered.g_synthesised_by_real_sd}
        title = f"{'SIMULATED. ' if simulated else ''}AD minus NC, {words.DIRECTIONS[direction]}"
        unit = "Hedges' g; both differences are divided by the SD of real scans within groups and sites"
        brain_figure(patterns.regions, effects, title, unit, root / EFFECTS_FIGURE.format(direction))


def group_figure(patterns: Patterns, method: str, direction: Direction, path: Path, simulated: bool) -> Path:
    """Figure 5: mean of real and of synthesised scans in every region, one panel per diagnosis; returns `path`.

    patterns: region means, one row per participant. method: the method that synthesised the scans; direction: of
    synthesis. path: of the PNG file to write. The mean of all real scans in a region is subtracted from both, because
    regions differ far more than groups do. The bands are 95 % intervals of the mean for a normal distribution. A
    diagnosis with fewer than two participants has no panel. simulated: whether the title says SIMULATED.
    """
    real, synthesised = patterns.pair(method, direction)
    order, borders = _by_network(patterns)
    groups = [g for g in Diagnosis if (patterns.people["diagnosis"] == g).sum() > 1]
    centre = real.mean(0)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9, 1.2 + 1.7 * len(groups)), layout="constrained")
        axes = figure.subplots(len(groups), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
        figure.suptitle(_title("Region means of a group minus those of all real scans", method, direction, simulated))
        for axis, group in zip(axes, groups, strict=True):
            rows = (patterns.people["diagnosis"] == group).to_numpy()
            for values, colour, name in ((real, REAL_COLOUR, "real"), (synthesised, SYNTHESISED_COLOUR, "synthesised")):
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
    """Figure 6: region means of the real and the synthesised scan of up to six participants; returns `path`.

    patterns: region means, one row per participant. method: the method that synthesised the scans; direction: of
    synthesis. path: of the PNG file to write. The mean of all real scans in a region is subtracted from both. The
    participants are evenly spaced in the ranking by the correlation of their real and synthesised values over regions,
    after this subtraction, and include the highest and the lowest. simulated: whether the title says SIMULATED.
    """
    real, synthesised = patterns.pair(method, direction)
    order, borders = _by_network(patterns)
    centre = real.mean(0)
    r = np.array([_correlation(a - centre, b - centre) for a, b in zip(real, synthesised, strict=True)])
    ranked = np.argsort(-np.nan_to_num(r, nan=-2))
    chosen = ranked[np.unique(np.linspace(0, len(ranked) - 1, min(SHOWN_PEOPLE, len(ranked))).round().astype(int))]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9, 1.2 + 1.25 * len(chosen)), layout="constrained")
        axes = figure.subplots(len(chosen), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
        figure.suptitle(
            _title("Region means of a participant minus those of all real scans", method, direction, simulated)
        )
        for axis, row in zip(axes, chosen, strict=True):
            for values, colour, name in ((real, REAL_COLOUR, "real"), (synthesised, SYNTHESISED_COLOUR, "synthesised")):
                axis.plot((values[row] - centre)[order], color=colour, lw=1, label=name)
            axis.axhline(0, color="#888888", lw=0.5)
            person = patterns.people.iloc[row]
            rank = int(np.flatnonzero(ranked == row)[0]) + 1
            about = f"{person['participant_id']}, {person['diagnosis']}, rank {rank} of {len(ranked)}, r = {r[row]:.2f}"
            axis.set_title(about, fontsize=8, loc="left")
        _label_networks(axes[-1], borders)
        figure.legend(*axes[0].get_legend_handles_labels(), frameon=False, ncols=2, loc="outside lower right")
        return save(figure, path)


def _by_network(patterns: Patterns) -> tuple[np.ndarray, list[tuple[str, int, int]]]:
    """Order of the regions by network, and name, first and last position of each network in this order."""
    networks = patterns.regions["network"].fillna("").to_numpy(str)
    order = np.argsort(networks, kind="stable")
    borders = []
    for name in dict.fromkeys(networks[order]):
        positions = np.flatnonzero(networks[order] == name)
        borders.append((name, int(positions[0]), int(positions[-1])))
    return order, borders


def _label_networks(axis: Axes, borders: list[tuple[str, int, int]]) -> None:
    for _, first, _ in borders[1:]:
        for each in axis.figure.axes:
            each.axvline(first - 0.5, color="#bbbbbb", lw=0.5)
    axis.set_xticks([(first + last) / 2 for _, first, last in borders], [name for name, _, _ in borders])
    axis.tick_params(axis="x", length=0)


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a, b)[0, 1]) if min(a.std(), b.std()) > 0 else float("nan")


def _title(content: str, method: str, direction: Direction, simulated: bool) -> str:
    return f"{'SIMULATED. ' if simulated else ''}{content}; {method}, {words.DIRECTIONS[direction]}"
