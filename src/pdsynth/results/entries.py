"""Names of scored models, and of the entries of a benchmark with their folders.

An entry is a recipe in one of its sizes. A model that a user names is called by this name, with its recipe beside.
"""

from __future__ import annotations

import re
from pathlib import Path

from pdsynth.types import Size

DEFAULT = "default"  # the shipped model
LABEL = re.compile(r"(?P<given>.+) \((?P<recipe>.+)\)")  # the name of a model in tables


def label(model: str | Path, recipe: str) -> str:
    """The name of a scored model in tables: the user's name for it, with its recipe.

    model: its folder, or "default". Of a folder "model", as `train` writes it, the name of the folder around it counts.
    A control has the name of its recipe alone, so that it differs from a trained model of this recipe.

    >>> label("default", "pds"), label("runs/first/model", "local-ridge")
    ('default (pds)', 'first (local-ridge)')
    """
    folder = Path(model) if str(model) == DEFAULT else Path(model).resolve()
    named = folder.parent.name if folder.name == "model" else folder.name
    return f"{named or model} ({recipe})"


def recipe_of(entry: str) -> tuple[str, str]:
    """The recipe and the size ("full" or "small") of an entry of a benchmark: a text "recipe", or "recipe:small".

    The name of a model, as `label` makes it, has a recipe too.

    >>> recipe_of("pds-paper:small"), recipe_of("pds"), recipe_of("default (pds)")
    (('pds-paper', 'small'), ('pds', 'full'), ('pds', 'full'))
    """
    match = LABEL.fullmatch(entry)
    name, _, size = (match["recipe"] if match else entry).partition(":")
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
