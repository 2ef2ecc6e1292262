"""Named runs: a method, its settings and its budget. A variant calls another and changes what differs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, get_origin, get_type_hints

import torch
from pydantic import TypeAdapter, ValidationError

from pdsynth.data.pairs import Pairs
from pdsynth.losses.features import CONVOLUTIONS
from pdsynth.methods import REGISTRY, Method, create

CONTROLS = (
    "zeros",
    "population-mean",
    "site-mean",
    "copy-source",
    "voxelwise-ridge",
    "coarse-ridge",
    "local-ridge",
    "gradient-boosting",
    "voxel-mlp",
    "pds-refiner-only",
    "oracle",
)


@dataclass(frozen=True)
class Recipe:
    """A run that can be named on the command line. steps: 0 for a method that is fitted in closed form.

    small: what changes for a CPU's budget (`--size small`), the wiring being the same; empty where nothing does.
    precision is Lightning's word for a device that is fast at it; `resolve_precision` says what else stands in.
    """

    name: str
    summary: str
    method: str
    settings: dict[str, Any] = field(default_factory=dict)
    steps: int = 0
    small: dict[str, Any] = field(default_factory=dict)
    precision: str = "bf16-mixed"


def control(name: str, summary: str) -> Recipe:
    return Recipe(name, summary, name)


def voxel_mlp() -> Recipe:
    return Recipe("voxel-mlp", "a perceptron on each voxel's multi-scale features", "voxel-mlp", steps=8000)


def unet() -> Recipe:
    return Recipe("unet", "a deterministic U-Net from the source to the target", "unet", steps=4000)


def gan() -> Recipe:
    return Recipe("gan", "a U-Net against a patch discriminator, with L1", "gan", steps=3000)


def pgan() -> Recipe:
    return replace(gan(), name="pgan", summary="gan with a perceptual loss", settings={"perceptual_weight": 0.02})


def sagan() -> Recipe:
    return replace(gan(), name="sagan", summary="gan with self-attention", settings={"heads": 4})


def psagan() -> Recipe:
    settings = pgan().settings | sagan().settings
    return replace(gan(), name="psagan", summary="gan with perceptual loss and self-attention", settings=settings)


def u_ddim() -> Recipe:
    return Recipe("u-ddim", "diffusion by a U-Net, sampled by DDIM", "conditional-diffusion", steps=4000)


def sa_ddpm() -> Recipe:
    settings = {"heads": 4, "eta": 1.0}
    return replace(u_ddim(), name="sa-ddpm", summary="diffusion with self-attention, by DDPM", settings=settings)


def ldm() -> Recipe:
    return Recipe("ldm", "an autoencoder, then diffusion of latents", "ldm", steps=4000)


def dit() -> Recipe:
    return Recipe("dit", "diffusion by a patch transformer", "dit", steps=4000)


def adm() -> Recipe:
    return Recipe("adm", "adversarial diffusion in four large steps", "adm", steps=3000)


def pds() -> Recipe:
    summary = "conditional diffusion, then tissue refinement: the default"
    return Recipe("pds", summary, "pds", steps=6000, small={"width": 16})


def pds_variant(name: str, summary: str, **settings: Any) -> Recipe:
    """pds with some settings changed: a row of Table IV or VI."""
    return replace(pds(), name=name, summary=summary, settings=settings)


def pds_ne() -> Recipe:
    off = {"pattern_weight": 0.0, "refined": False, "microstructure_weight": 0.0}
    return pds_variant("pds-ne", "the noise estimator alone: no PA, no TR, no MR", **off)


def pds_ne_pa() -> Recipe:
    off = {"refined": False, "microstructure_weight": 0.0}
    return pds_variant("pds-ne-pa", "pds-ne with the pattern loss (PA)", **off)


def pds_ne_pa_tr() -> Recipe:
    return pds_variant("pds-ne-pa-tr", "pds-ne-pa with the tissue refiner (TR)", microstructure_weight=0.0)


def pds_deep(depth: int) -> Recipe:
    """The microstructure loss on VGG's last convolution."""
    layer = f"conv5_{CONVOLUTIONS[depth][-1]}"
    summary = f"pds with a microstructure loss of VGG{depth}, to {layer}"
    return pds_variant(f"pds-vgg{depth}", summary, vgg_depth=depth, feature_layer=layer)


def pds_slices() -> Recipe:
    return pds_variant("pds-slices", "pds with a VGG16 loss on slices", microstructure_views="slices")


def pds_resnet3d() -> Recipe:
    return pds_variant("pds-resnet3d", "pds with a loss on features of a 3D ResNet", microstructure_views="volume")


def pds_paper() -> Recipe:
    """The full size reads every equation as the text has it; docs/departures.md says what the other readings change."""
    readings_that_train = {
        "estimator_input": "source_and_target",  # else x_0-hat holds nothing of the target
        "noise": "each",
        "source": "clean",
        "networks": "each",
        "pattern_target": "weighted",  # else L_PA trains eps_s, which no draft uses
        "microstructure_input": "image",
        "gamma": "average",
        "clipping": "each_step",
    }
    small = readings_that_train | {
        "channels": (8, 16, 32, 64),
        "refiner_channels": (8, 16, 32, 64),
        "patch": (24, 24, 24),
        "batch_size": 4,
        "refiner_batch_size": 2,
        "learning_rate": 2e-3,
        "microstructure_weight": 0.1,
        "feature_layer": "conv2_2",
        "steps": 4,
        "drafts": 60,
        "draft_steps": 4,
    }
    summary = "the paper's text, term by term; small: those of its readings that train"
    steps = 450 * 56_000 // 8  # the paper's epochs, scans and GPUs; on other data, see `PDSPaper.default_steps`
    return Recipe("pds-paper", summary, "pds-paper", steps=steps, small=small, precision="16-mixed")


def pds_unconditioned() -> Recipe:
    return replace(
        pds(),
        name="pds-unconditioned",
        summary="the draft is not told the source, only refinement is",
        settings={"conditioned": False},
    )


def pds_refiner_only() -> Recipe:
    return replace(
        pds(),
        name="pds-refiner-only",
        summary="a U-Net with the stem, losses and refinement of pds, no diffusion",
        method="pds-refiner-only",
    )


RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        control("zeros", "an empty image"),
        control("population-mean", "the training participants' mean target"),
        control("site-mean", "the mean target of the participant's site"),
        control("copy-source", "the source, taken for the target"),
        control("voxelwise-ridge", "a ridge regression at each voxel"),
        control("coarse-ridge", "a ridge regression between whole coarse volumes: the stem of pds"),
        control("local-ridge", "coarse-ridge, then a ridge regression at each voxel: the stem of pds, refined"),
        control("gradient-boosting", "boosted trees over all voxels"),
        control("oracle", "E[target | shared anatomy]: the ceiling, on simulated cohorts only"),
        voxel_mlp(),
        unet(),
        gan(),
        pgan(),
        sagan(),
        psagan(),
        u_ddim(),
        sa_ddpm(),
        ldm(),
        dit(),
        adm(),
        pds_refiner_only(),
        pds_unconditioned(),
        pds_ne(),
        pds_ne_pa(),
        pds_ne_pa_tr(),
        pds_paper(),
        pds_resnet3d(),
        pds_slices(),
        *map(pds_deep, CONVOLUTIONS),
        pds(),
    )
}


def settings_of(recipe: Recipe, size: str = "full", changes: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The settings of a recipe in a size, "full" or "small", some of them changed.

    Raises ValueError for another size, one that the recipe lacks, and a setting that its method does not have or that
    does not take the value.

    >>> settings_of(pds(), "small", {"pattern_weight": "0.2"})
    {'width': 16, 'pattern_weight': 0.2}
    """
    if size not in ("full", "small") or (size == "small" and not recipe.small):
        has = "full and small" if recipe.small else "full only"
        raise ValueError(f"the recipe {recipe.name} has no size {size!r}; it has {has}.")
    settings = {**recipe.settings, **(recipe.small if size == "small" else {})}
    types = get_type_hints(REGISTRY[recipe.method].config_type)
    for name, value in (changes or {}).items():
        if name not in types or name == "grid_shape":
            known = ", ".join(sorted(set(types) - {"grid_shape"})) or "none"
            raise ValueError(f"the method {recipe.method} has no setting {name!r}; it has {known}.")
        try:
            adapter = TypeAdapter(types[name])
            is_list = isinstance(value, str) and get_origin(types[name]) is tuple  # written as 8,16,32
            settings[name] = adapter.validate_python(value.split(",") if is_list else value)
        except ValidationError as error:
            raise ValueError(f"{name} can't be {value!r}: {error.errors()[0]['msg']}.") from error
    return settings


def build(
    name: str, pairs: Pairs, seed: int = 0, size: str = "full", changes: Mapping[str, Any] | None = None
) -> Method:
    """A fresh method of a recipe for the grid of some pairs, its first weights drawn from the seed.

    Raises KeyError, naming the recipes, for an unknown one, and what `settings_of` raises.
    """
    if name not in RECIPES:
        raise KeyError(f"no recipe {name!r}; there are {', '.join(RECIPES)}")
    recipe = RECIPES[name]
    settings = settings_of(recipe, size, changes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return create(recipe.method, {**settings, "grid_shape": list(pairs.grid.shape)})
