"""Methods by name. Importing this package registers all of them."""

from pdsynth.methods import coarse_ridge, controls, diffusion, gan, pds, regression, unet, voxel_mlp
from pdsynth.methods.base import REGISTRY, Method, create

__all__ = [
    "REGISTRY",
    "Method",
    "coarse_ridge",
    "controls",
    "create",
    "diffusion",
    "gan",
    "pds",
    "regression",
    "unet",
    "voxel_mlp",
]
