"""Named runs: a method, its settings and its budget. A variant calls another and changes what differs."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch

from pdsynth.data.pairs import Pairs
from pdsynth.methods.base import Method, create

CONTROLS = (
    "zeros",
    "population-mean",
    "site-mean",
    "copy-source",
    "voxelwise-ridge",
    "coarse-ridge",
    "gradient-boosting",
    "voxel-mlp",
    "pds-refiner-only",
    "oracle",
)


@dataclass(frozen=True)
class Recipe:
    """A run that can be named on the command line. steps: 0 for a method that is fitted in closed form.

    precision is Lightning's word; bf16 autocast takes two thirds of the time of fp32 on a CPU that has it.
    """

    name: str
    summary: str
    method: str
    settings: dict[str, Any] = field(default_factory=dict)
    steps: int = 0
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
    settings = {"heads": 4, "eta": 1.0, "steps": 25}
    return replace(u_ddim(), name="sa-ddpm", summary="diffusion with self-attention, by DDPM", settings=settings)


def ldm() -> Recipe:
    return Recipe("ldm", "an autoencoder, then diffusion of latents", "ldm", steps=4000)


def dit() -> Recipe:
    return Recipe("dit", "diffusion by a patch transformer", "dit", steps=4000)


def adm() -> Recipe:
    return Recipe("adm", "adversarial diffusion in four large steps", "adm", steps=3000)


def pds() -> Recipe:
    return Recipe("pds", "conditional diffusion, then tissue refinement: the default", "pds", steps=6000)


def pds_unconditioned() -> Recipe:
    return replace(
        pds(),
        name="pds-unconditioned",
        summary="the draft is not told the source, only refinement is",
        settings={"conditioned": False, "refiner_share": 0.5},
    )


def pds_refiner_only() -> Recipe:
    return replace(
        pds(),
        name="pds-refiner-only",
        summary="U(source) on the stem and with the losses of pds, no diffusion",
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
        pds(),
    )
}


def build(name: str, pairs: Pairs, seed: int = 0) -> Method:
    """A fresh method of a recipe for the grid of some pairs, its first weights drawn from the seed.

    Raises KeyError, naming the recipes, for an unknown one.
    """
    if name not in RECIPES:
        raise KeyError(f"no recipe {name!r}; there are {', '.join(RECIPES)}")
    recipe = RECIPES[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return create(recipe.method, {**recipe.settings, "grid_shape": list(pairs.grid.shape)})
