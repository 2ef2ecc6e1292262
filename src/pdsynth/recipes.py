"""All recipes (named configurations of methods), and the construction of a method from a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import Any, get_origin, get_type_hints

import torch
from pydantic import TypeAdapter, ValidationError

from pdsynth.data.pairs import Pairs
from pdsynth.discovery import modules_of
from pdsynth.methods import Method, create, registry
from pdsynth.methods.base import FIXED
from pdsynth.methods.recipe import Recipe, Role
from pdsynth.types import Size


def _discovered() -> dict[str, Recipe]:
    """The recipes of the modules of `pdsynth.methods`, sorted by role, then in the order of the modules."""
    found: dict[str, Recipe] = {}
    given = (module.recipes() for module in modules_of("pdsynth.methods") if hasattr(module, "recipes"))
    for recipe in chain.from_iterable(given):
        if recipe.name in found:
            raise ValueError(f"two recipes are named {recipe.name!r}")
        found[recipe.name] = recipe
    roles = list(Role)
    return dict(sorted(found.items(), key=lambda item: roles.index(item[1].role)))


RECIPES = _discovered()
CONTROLS = tuple(name for name, recipe in RECIPES.items() if recipe.role in (Role.CONTROL, Role.CEILING))


def settings_of(recipe: Recipe, size: str = Size.FULL, changes: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The settings of a recipe's method for a size, "full" or "small", with some of them changed.

    changes: new values by the name of the setting, as text or in the type of the setting; a list is a text with commas.
    Only types are checked, not ranges. Returns the settings that the recipe, its size or the changes give; all others
    have the defaults of the method. Raises ValueError for a size that the recipe does not have, for `grid_shape` or a
    setting that its method does not have, and for a value of the wrong type.

    >>> settings_of(RECIPES["pds"], "small", {"pattern_weight": "0.2"})
    {'width': 16, 'pattern_weight': 0.2}
    """
    if size not in set(Size) or (size == Size.SMALL and not recipe.small):
        has = "full and small" if recipe.small else "full only"
        raise ValueError(f"the recipe {recipe.name} has no size {str(size)!r}; it has {has}.")
    settings = {**recipe.settings, **(recipe.small if size == Size.SMALL else {})}
    types = get_type_hints(registry()[recipe.method].config_type)
    for name, value in (changes or {}).items():
        if name not in types or name in FIXED:
            known = ", ".join(sorted(set(types) - set(FIXED))) or "none"
            raise ValueError(f"the method {recipe.method} has no setting {name!r}; it has {known}.")
        try:
            adapter = TypeAdapter(types[name])
            is_list = isinstance(value, str) and get_origin(types[name]) is tuple  # such as 8,16,32
            settings[name] = adapter.validate_python(value.split(",") if is_list else value)
        except ValidationError as error:
            raise ValueError(f"{name} can't be {value!r}: {error.errors()[0]['msg']}.") from error
    return settings


def build(
    name: str, pairs: Pairs, seed: int = 0, size: str = Size.FULL, changes: Mapping[str, Any] | None = None
) -> Method:
    """A new, untrained method of the recipe `name` for the grid of the pairs, with random weights from the seed.

    size: "full", or "small" for a recipe that has a small size. changes: new values of settings, by name, as in
    `settings_of`. Raises KeyError, with the names of all recipes, for an unknown recipe. Raises ValueError for a size
    or setting that the recipe does not have, and for a value of the wrong type.
    """
    if name not in RECIPES:
        raise KeyError(f"no recipe {name!r}; there are {', '.join(RECIPES)}")
    recipe = RECIPES[name]
    settings = settings_of(recipe, size, changes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return create(recipe.method, {**settings, "grid_shape": list(pairs.grid.shape)})


def full_steps(method: Method, recipe: str, rows: int) -> int | None:
    """Number of steps of a full training of a recipe; None for a fit in closed form. rows: number of training rows."""
    return method.default_steps(rows) or RECIPES[recipe].steps or None
