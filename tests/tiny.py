"""Settings that make the paper's networks as small as they can be, and its two stages as short."""

import torch

from pdsynth.data.pairs import Pairs
from pdsynth.methods.pds_paper import PDSPaper, PDSPaperConfig

PAPER = {
    "channels": (4, 8),
    "refiner_channels": (4, 8),
    "heads": 2,
    "attention_levels": 1,
    "blocks": 1,
    "feature_layer": "conv1_1",
}
SHORT_PAPER = PAPER | {"patch": (8, 8, 8), "steps": 2, "drafts": 3, "draft_steps": 2}


def built(train: Pairs, **settings) -> PDSPaper:
    """`pds-paper` of PAPER's sizes, of fixed weights, fitted and not trained."""
    torch.manual_seed(0)
    method = PDSPaper(PDSPaperConfig(grid_shape=train.grid.shape, **PAPER | settings))
    method.fit(train, torch.Generator())
    return method


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
