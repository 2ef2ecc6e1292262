"""Methods by name. Importing this package registers all of them."""

from pdsynth.methods import (
    adversarial_diffusion,
    coarse_ridge,
    controls,
    diffusion,
    gan,
    latent_diffusion,
    pds,
    pds_paper,
    refinement,
    regression,
    unet,
    voxel_mlp,
)
from pdsynth.methods.base import REGISTRY, Method, create

__all__ = [
    "REGISTRY",
    "Method",
    "adversarial_diffusion",
    "coarse_ridge",
    "controls",
    "create",
    "diffusion",
    "gan",
    "latent_diffusion",
    "pds",
    "pds_paper",
    "refinement",
    "regression",
    "unet",
    "voxel_mlp",
]
