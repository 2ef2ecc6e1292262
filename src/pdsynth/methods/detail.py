"""Detail of a synthesised volume at 2 mm, by a small network that sees the estimate and its source.

The network knows no coordinates: it learns from patches how the structure of one modality shows in the other.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pdsynth.imaging.detail import source_detail
from pdsynth.imaging.intensity import TOP, flatten
from pdsynth.imaging.nifti import Volume
from pdsynth.imaging.spatial import Grid, resample
from pdsynth.networks.unet import SMALLEST, HaarUNet
from pdsynth.types import Direction

FINE_MM = 2.0
MARGIN_MM = 4.0  # around the brain
CHANNELS = 4
WIDTH, LEVELS, BLOCKS = 32, 3, 1
MULTIPLE = 2**LEVELS  # of the sides that a network sees, so that no level has to be padded


class DetailNetworks(nn.Module):
    """One network per direction of synthesis, for the detail at 2 mm that an estimate lacks beside `source_detail`.

    directions: those that have a network, such as "fmri_to_dmri". Before training, the networks add nothing. Raises
    ValueError for an unknown direction.
    """

    def __init__(self, directions: Sequence[str]) -> None:
        super().__init__()
        names = [Direction(name).value for name in directions]
        self.networks = nn.ModuleDict({name: HaarUNet(CHANNELS, 1, WIDTH, LEVELS, BLOCKS) for name in names})

    def forward(self, channels: Tensor, direction: Direction) -> Tensor:
        """The volume to add, (B, 1, x, y, z), from the channels of `detail_channels`, (B, 4, x, y, z).

        In the unit of the channels, 1 is the median of the target in the brain.
        """
        x, y, z = channels.shape[2:]
        ends = [max(-n % MULTIPLE, SMALLEST - n) for n in (z, y, x)]
        padded = F.pad(channels, [0, ends[0], 0, ends[1], 0, ends[2]])
        return self.networks[direction.value](padded)[..., :x, :y, :z]

    @torch.inference_mode()
    def added(self, estimate: Volume, source: Volume, brain: np.ndarray, direction: Direction) -> np.ndarray:
        """Detail by a network on the source's grid, (X, Y, Z) float32 in the estimate's unit; 0 outside the brain.

        It is 0 everywhere for a direction without a network. estimate: the output of a method, without the receive
        field, on any grid whose mm are those of the source. source: mean of the scan on its own grid, in any unit;
        brain (X, Y, Z) bool is its mask.
        """
        if direction.value not in self.networks:
            return np.zeros_like(source.data, np.float32)
        fine = fine_grid(Grid.of(source), brain)
        channels = torch.from_numpy(detail_channels(estimate, source, brain, fine))[None]
        found = self(channels.to(next(self.parameters()).device), direction)[0, 0].float().cpu().numpy()
        native = resample(Volume(found * channels[0, -1].numpy() / TOP, fine.affine), Grid.of(source))
        return np.where(brain, native, 0).astype(np.float32)


def fine_grid(native: Grid, brain: np.ndarray) -> Grid:
    """The grid of 2 mm voxels around a brain, 4 mm larger on each side, along the axes of a scan's own grid `native`.

    brain (X, Y, Z) bool lies on `native` and is not empty.

    >>> fine_grid(Grid((8, 8, 8), np.diag([4.0, 4, 2, 1])), np.ones((8, 8, 8), bool)).shape
    (19, 19, 12)
    """
    spacing = native.spacing_mm
    inside = np.argwhere(brain)
    low, high = inside.min(0) - MARGIN_MM / spacing, inside.max(0) + MARGIN_MM / spacing
    x, y, z = (int(n) + 1 for n in np.ceil((high - low) * spacing / FINE_MM))
    affine = np.array(native.affine)
    affine[:3, 3] += native.affine[:3, :3] @ low
    affine[:3, :3] *= FINE_MM / spacing
    return Grid((x, y, z), affine)


def detail_channels(estimate: Volume, source: Volume, brain: np.ndarray, fine: Grid) -> np.ndarray:
    """The input of a network on the grid `fine`, (4, x, y, z) float32: source, estimate, sharper estimate, mask.

    The source is divided by its receive field. The estimate is in units of the median of the target in the brain; the
    sharper one has the detail of `source_detail`. 1 is subtracted from these three, and they are 0 outside the mask.
    The other arguments are those of `DetailNetworks.added`.
    """
    mask = resample(Volume(brain.astype(np.float32), source.affine), fine) > 0.5
    scan, smooth = (Volume(resample(v, fine), fine.affine) for v in (source, estimate))
    sharper = smooth.data + source_detail(smooth, scan, mask)
    volumes = [flatten(scan, mask).data, TOP * smooth.data, TOP * np.maximum(sharper, 0)]
    return np.stack([*((v - 1) * mask for v in volumes), mask]).astype(np.float32)
