"""The reference page of recipes and settings, from the recipes and the classes of settings themselves."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import MISSING, fields

from pdsynth.methods import Method, registry
from pdsynth.methods.recipe import Recipe, Role
from pdsynth.recipes import RECIPES

URI = "reference/recipes.md"
INTRODUCTION = """# Recipes and settings

A recipe is a named configuration of a method. `pdsynth train PREPARED RUN --recipe NAME` trains it, and
`--set SETTING=VALUE` changes a setting of its method. A recipe with a small size has `--size small`, for a CPU.
A recipe with 0 training steps is fitted in closed form, or needs no fit.
[Departures from the paper](../departures.md) compares the readings of the paper that `pds-paper` has as settings.

Every method also has the setting `grid_shape`, the number of voxels along each axis; the prepared folder determines it.
"""
ROLES = {
    Role.OURS: "The paper's method and its variants",
    Role.BASELINE: "Baselines of the paper",
    Role.CONTROL: "Controls",
    Role.CEILING: "Ceiling",
}


def page() -> str:
    """The page in Markdown: the recipes by role, then the settings of each method with their values in its recipes."""
    parts = [INTRODUCTION]
    for role, title in ROLES.items():
        parts.append(f"## {title}\n")
        parts.append("| recipe | method | training steps | tables of the paper | summary |\n|---|---|---|---|---|")
        parts += [_row(recipe) for recipe in RECIPES.values() if recipe.role is role]
        parts.append("")
    parts.append("## Settings of the methods\n")
    for name in sorted({recipe.method for recipe in RECIPES.values()}):
        parts += _method(name)
    return "\n".join(parts) + "\n"


def _row(recipe: Recipe) -> str:
    steps = "by epochs" if registry()[recipe.method].default_steps is not Method.default_steps else str(recipe.steps)
    tables, summary = ", ".join(map(str, recipe.tables)), recipe.summary.replace("|", "\\|")
    return f"| `{recipe.name}` | [`{recipe.method}`](#method-{recipe.method}) | {steps} | {tables} | {summary} |"


def _method(name: str) -> Iterator[str]:
    config = registry()[name].config_type
    own = [field for field in fields(config) if field.name != "grid_shape"]
    yield f"### Method {name}\n"
    recipes = [recipe for recipe in RECIPES.values() if recipe.method == name]
    yield "Recipes: " + ", ".join(f"`{recipe.name}`" for recipe in recipes) + ".\n"
    if not own:
        yield "It has no settings.\n"
        return
    yield inspect.cleandoc(config.__doc__ or "") + "\n"
    yield "| setting | type | default | in recipes |\n|---|---|---|---|"
    for field in own:
        default = None if field.default is MISSING else field.default
        given = [f"{_value(recipe.settings[field.name])} in `{recipe.name}`" for recipe in recipes
                 if field.name in recipe.settings]  # fmt: skip
        given += [f"{_value(recipe.small[field.name])} in `{recipe.name}`, small" for recipe in recipes
                  if field.name in recipe.small]  # fmt: skip
        kind = str(field.type).replace("|", "\\|")
        yield f"| `{field.name}` | `{kind}` | {_value(default)} | {'; '.join(given)} |"
    yield ""


def _value(value: object) -> str:
    return f"`{value!r}`"
