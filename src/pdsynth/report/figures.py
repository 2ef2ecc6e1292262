"""Figures 4 and 8: one participant's scan as every method synthesises it, and its difference from the real scan."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from pdsynth.evaluation.metrics import PRIMARY
from pdsynth.files import atomic_path
from pdsynth.report import words
from pdsynth.report.pictures import PLANES, View, colours
from pdsynth.results.archive import image_name
from pdsynth.results.entries import scores_folder
from pdsynth.results.folder import Results
from pdsynth.types import Direction

TOP = 0.3  # upper end of the difference scale
Columns = dict[str, tuple[np.ndarray, np.ndarray | None]]  # by title: a volume, and its difference from the real one
DPI = 100
INCHES = 1.25  # width of a column


def comparison_figure(out: Path, path: Path, entries: Sequence[str], tested: str, direction: Direction) -> Path:
    """Draw the scan of one participant as several recipes synthesise it (the paper's Figures 4 and 8); returns `path`.

    out: folder of the benchmark. path: the PNG to write. entries: recipes, "recipe" or "recipe:small" for the small
    size. tested: the recipe under test. The participant is the one of middle rank by PSNR of the tested recipe, among
    those with saved volumes. The source, the real scan and the scan by each recipe have their own columns. The
    sagittal, coronal and axial plane have their own rows, and below each is a row with synthesised minus real, on one
    scale.
    """
    found = {entry: Results.read(scores_folder(out, entry)) for entry in dict.fromkeys((*entries, tested))}
    scores = {entry: results.scan_scores(entry, direction)[PRIMARY] for entry, results in found.items()}
    first = found[tested]
    row = int(np.argsort(scores[tested].to_numpy()[: len(first.imaged)])[len(first.imaged) // 2])
    volumes = {name: _volume(first, name, row) for name in (direction.source.value, direction.target.value)}
    brain = _volume(first, f"{direction.target}_brain", row) > 0
    real = volumes[direction.target.value]
    columns: Columns = {
        f"source\n{words.MODALITIES[direction.source]}": (volumes[direction.source.value], None),
        f"real\n{words.MODALITIES[direction.target]}": (real, None),
    }
    for entry in entries:
        synthesised = _volume(found[entry], image_name(entry, direction), row)
        columns[f"{entry}\n{scores[entry].iloc[row]:.1f} dB"] = (synthesised, (synthesised - real) * brain)
    masks = first.images(f"{direction.target}_brain")
    view = View.around(np.asarray(masks), first.affine)
    _draw(path, columns, view, _title(first, row, direction))
    return path


def _volume(results: Results, name: str, row: int) -> np.ndarray:
    images = results.images(name)
    assert images is not None, f"{results.root} has no images of {name}"
    return np.asarray(images[row], np.float32)


def _title(results: Results, row: int, direction: Direction) -> str:
    scan = results.imaged.iloc[row]
    simulated = "SIMULATED " if results.simulated else ""
    return f"{words.DIRECTIONS[direction]}, {simulated}participant {scan['participant_id']}, site {scan['site']}"


def _draw(path: Path, columns: Columns, view: View, title: str) -> None:
    """Planes one below the other, each with its difference below; left in the picture is the participant's left."""
    source = next(iter(columns.values()))[0]
    heights, widths = zip(*(view.plane(source, axis).shape for axis in range(3)), strict=True)
    ratios, width = np.repeat(heights, 2).tolist(), max(widths)
    size = (INCHES * len(columns) + 0.4, INCHES * sum(ratios) / width + 0.9)
    with matplotlib.rc_context({"font.size": 8, "text.color": "white"}):
        figure = Figure(figsize=size, facecolor="black", layout="constrained")
        axes = figure.subplots(6, len(columns), height_ratios=ratios, squeeze=False)
        figure.suptitle(f"{title}; below each plane synthesised − real, ±{TOP}")  # noqa: RUF001
        for number, (name, (volume, difference)) in enumerate(columns.items()):
            axes[0, number].set_title(name, fontsize=7)
            for axis, plane in enumerate(PLANES):
                above, below = axes[2 * axis, number], axes[2 * axis + 1, number]
                above.imshow(view.plane(volume, axis), cmap="gray", vmin=0, vmax=1, interpolation="bicubic")
                if difference is not None:
                    below.imshow(
                        view.plane(difference, axis),
                        cmap=ListedColormap(colours("difference")),
                        vmin=-TOP,
                        vmax=TOP,
                        interpolation="bicubic",
                    )
                if number == 0:
                    above.set_ylabel(f"{plane}\n{view.labels[axis]}", color="white", fontsize=7)
        for one in axes.flat:
            one.set(xticks=[], yticks=[], facecolor="black")
            for spine in one.spines.values():
                spine.set_visible(False)
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format="png", dpi=DPI, facecolor="black")
