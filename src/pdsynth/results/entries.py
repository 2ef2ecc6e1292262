"""Names of the entries of a benchmark, and their folders. An entry is a recipe in one of its sizes."""

from __future__ import annotations

from pathlib import Path

from pdsynth.types import Size


def recipe_of(entry: str) -> tuple[str, str]:
    """The recipe and the size ("full" or "small") of an entry of a benchmark: a text "recipe", or "recipe:small".

    >>> recipe_of("pds-paper:small"), recipe_of("pds")
    (('pds-paper', 'small'), ('pds', 'full'))
    """
    name, _, size = entry.partition(":")
    return name, size or Size.FULL.value


def run_folder(out: Path, entry: str) -> Path:
    """The path of the folder of a trained recipe in the benchmark folder `out`.

    entry: "recipe", or "recipe:small" for its small size.

    >>> run_folder(Path("out"), "pds-paper:small").as_posix()
    'out/runs/pds-paper-small'
    """
    return out / "runs" / entry.replace(":", "-")


def scores_folder(out: Path, entry: str) -> Path:
    """The path of the folder with the scores of a recipe, "recipe" or "recipe:small", in the benchmark folder `out`."""
    return run_folder(out, entry) / "scores"
