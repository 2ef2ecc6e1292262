"""Figure 7: t-SNE of real and synthesised patterns, coloured by diagnosis and by site, at several settings."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from pdsynth.report import words
from pdsynth.report.plots import STYLE, save
from pdsynth.results.patterns import REAL
from pdsynth.types import Modality

COLOURS = ("#0a7d94", "#c2571a", "#6a5acd", "#3a8f4d", "#b03a6f", "#8a7a1f")


def embedding_figure(maps: pd.DataFrame, people: pd.DataFrame, path: Path, simulated: bool) -> Path:
    """Write Figure 7, t-SNE maps of real and synthesised scans, as a PNG; returns `path`.

    maps: a table with one row per scan and map: modality, perplexity, seed, origin ("real" or a method), participant,
    x, y. people: a table with participant_id, diagnosis and site. The figure has one line of panels per modality and
    colouring (by diagnosis or by site). Each column is one setting of t-SNE: all perplexities at the lowest seed, then
    the other seeds at the middle perplexity. Discs are real scans, crosses synthesised ones. Differences between
    settings are not properties of the data. simulated: whether the title says SIMULATED.
    """
    perplexities, seeds = sorted(maps["perplexity"].unique()), sorted(maps["seed"].unique())
    middle = perplexities[len(perplexities) // 2]
    settings = [(p, seeds[0]) for p in perplexities] + [(middle, seed) for seed in seeds[1:]]
    rows = [(modality, by) for modality in Modality for by in ("diagnosis", "site")]
    labels = people.set_index("participant_id")[["diagnosis", "site"]].fillna("not known").astype(str)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(2.1 * len(settings) + 1.4, 2.1 * len(rows) + 0.6), layout="constrained")
        axes = figure.subplots(len(rows), len(settings), squeeze=False)
        figure.suptitle(f"{'SIMULATED. ' if simulated else ''}t-SNE of region means; discs real, crosses synthesised")
        for (modality, by), line in zip(rows, axes, strict=True):
            names = sorted(labels[by].unique())
            for (perplexity, seed), axis in zip(settings, line, strict=True):
                chosen = (maps["modality"] == modality.value) & (maps["perplexity"] == perplexity)
                points = maps[chosen & (maps["seed"] == seed)]
                groups = labels.loc[points["participant"], by].to_numpy()
                real = (points["origin"] == REAL).to_numpy()
                for number, name in enumerate(names):
                    for marker, side in (("o", real), ("x", ~real)):
                        at = points[np.asarray(groups == name) & side]
                        label = {"label": name} if marker == "o" else {}
                        colour = COLOURS[number % len(COLOURS)]
                        axis.scatter(at["x"], at["y"], s=9, marker=marker, color=colour, lw=0.8, **label)
                axis.set(xticks=[], yticks=[])
                if modality is rows[0][0] and by == rows[0][1]:
                    axis.set_title(f"perplexity {perplexity:g}, seed {seed}", fontsize=8)
            line[0].set_ylabel(f"{words.MODALITIES[modality]}\nby {by}")
            line[-1].legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
        return save(figure, path)
