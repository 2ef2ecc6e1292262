"""The recipes of `pds`: the default, and variants with a part changed or left out (Tables IV, VI, VII and VIII)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from pdsynth.losses.features import CONVOLUTIONS
from pdsynth.methods.base import Settings
from pdsynth.methods.recipe import Recipe, Role
from pdsynth.types import Modality, View


def recipes() -> Iterator[Recipe]:
    pds = Recipe(
        "pds",
        "conditional diffusion, then tissue refinement: the default",
        "pds",
        Role.OURS,
        (2, 3, 4, 6, 7, 8),
        {Modality.FMRI: (29.83, 90.84), Modality.DMRI: (30.00, 77.55)},
        steps=6000,
        small={"width": 16},
    )
    alone: Settings = {"pattern_weight": 0.0, "refined": False, "microstructure_weight": 0.0}

    def variant(
        name: str,
        summary: str,
        tables: tuple[int, ...],
        settings: Settings,
        paper: Mapping[Modality, tuple[float, float]] | None = None,
    ) -> Recipe:
        return replace(pds, name=name, summary=summary, tables=tables, settings=dict(settings), paper=paper or {})

    yield replace(
        variant(
            "pds-refiner-only", "a U-Net with the linear part, losses and refinement of pds, no diffusion", (4, 8), {}
        ),
        method="pds-refiner-only",
        role=Role.CONTROL,
    )
    unconditioned = "only the refinement sees the source, the diffusion does not"
    yield variant("pds-unconditioned", unconditioned, (8,), {"conditioned": False})
    yield variant(
        "pds-ne",
        "the noise estimator alone: no PA, no TR, no MR",
        (4, 7),
        alone,
        {Modality.FMRI: (11.68, 16.31), Modality.DMRI: (7.34, 8.33)},
    )
    yield variant(
        "pds-ne-pa",
        "pds-ne with the pattern loss (PA)",
        (4,),
        {"refined": False, "microstructure_weight": 0.0},
        {Modality.FMRI: (12.21, 22.44), Modality.DMRI: (8.46, 10.48)},
    )
    yield variant(
        "pds-ne-pa-tr",
        "pds-ne-pa with the tissue refiner (TR)",
        (4, 6),
        {"microstructure_weight": 0.0},
        {Modality.FMRI: (28.47, 86.56), Modality.DMRI: (27.98, 76.42)},
    )
    volume, slices = ({"microstructure_views": view.value} for view in (View.VOLUME, View.SLICES))
    yield variant("pds-resnet3d", "pds with a loss on features of a 3D ResNet", (6,), volume)
    yield variant("pds-slices", "pds with a VGG16 loss on slices", (6,), slices)
    for depth, convolutions in CONVOLUTIONS.items():
        layer = f"conv5_{convolutions[-1]}"  # the last convolution
        summary = f"pds with a microstructure loss of VGG{depth}, to {layer}"
        yield variant(f"pds-vgg{depth}", summary, (6,), {"vgg_depth": depth, "feature_layer": layer})
    yield pds
