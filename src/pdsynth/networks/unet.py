"""A lean 3D U-Net that works in the Haar-wavelet domain."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pdsynth.networks.attention import SelfAttention
from pdsynth.networks.haar import haar, inverse_haar

SMALLEST = 8  # voxels a side


class Convolution(nn.Conv3d):
    """A convolution with 3 x 3 x 3 weights that keeps the shape, (B, C, x, y, z).

    On a CPU, edges below 3 voxels are left in float32: there torch 2.13 makes bf16 gradients of the weights from memory
    that nobody wrote (seen with avx512_bf16), and they may be NaN.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.is_cuda or min(x.shape[2:]) >= 3:
            return super().forward(x)
        with torch.autocast("cpu", enabled=False):
            return super().forward(x.float())


class ChannelNorm(nn.Module):
    """Scale each voxel's channels to unit mean square (Zhang & Sennrich 2019).

    Unlike GroupNorm it keeps no statistics over space, so that a patch and the whole volume are treated alike.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, X, Y, Z), same shape."""
        return x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-6)


class ResidualBlock(nn.Module):
    """x + conv(silu(film(conv(silu(norm(x)))))), with the second convolution zero before training.

    The condition scales and shifts the hidden channels (FiLM, Perez et al. 2018), by nothing before training.
    """

    def __init__(self, width: int, condition: int) -> None:
        super().__init__()
        self.norm = ChannelNorm()
        self.first = Convolution(width, width)
        self.film = nn.Linear(condition, 2 * width) if condition else None
        self.second = Convolution(width, width)
        zero(self.second)
        if self.film is not None:
            zero(self.film)

    def forward(self, x: Tensor, condition: Tensor | None) -> Tensor:
        """x (B, width, X, Y, Z), condition (B, condition)."""
        hidden = self.first(F.silu(self.norm(x)))
        if self.film is not None:
            scale, shift = self.film(condition)[:, :, None, None, None].chunk(2, dim=1)
            hidden = torch.addcmul(shift, hidden, 1 + scale)
        return x + self.second(F.silu(hidden))


class HaarUNet(nn.Module):
    """Haar transform, residual U-Net at half resolution and below, inverse transform.

    `levels` resolutions, the first of `width` channels and the others of twice that; `blocks` residual blocks a level
    on the way down and one on the way up; skips are added; channels are reduced by 1x1x1 before each upsampling, where
    they cost an eighth. `condition` is the size of the vector that steers every block (0: none); `heads` of
    self-attention act at the coarsest level (0: none). The output is zero before training.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        width: int = 64,
        levels: int = 2,
        blocks: int = 2,
        condition: int = 0,
        heads: int = 0,
    ) -> None:
        super().__init__()
        if levels < 1 or blocks < 1:
            raise ValueError(f"{levels} levels of {blocks} blocks make no network. Give at least 1 of each.")
        widths = [width] + [2 * width] * (levels - 1)
        hidden = 2 * width if condition else 0
        self.embed = nn.Sequential(nn.Linear(condition, hidden), nn.SiLU()) if condition else None
        self.enter = nn.Conv3d(8 * in_channels, width, 1)
        self.down = nn.ModuleList(nn.ModuleList(ResidualBlock(w, hidden) for _ in range(blocks)) for w in widths)
        self.attend = SelfAttention(widths[-1], heads) if heads else None
        self.shrink = nn.ModuleList(nn.Conv3d(fine, coarse, 2, stride=2) for fine, coarse in pairwise(widths))
        self.grow = nn.ModuleList(nn.Conv3d(coarse, fine, 1) for fine, coarse in pairwise(widths))
        self.up = nn.ModuleList(ResidualBlock(w, hidden) for w in widths[:-1])
        self.norm = ChannelNorm()
        self.leave = Convolution(width, 8 * out_channels)
        zero(self.leave)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """x (B, in_channels, X, Y, Z) with even sides of at least 8, condition (B, condition); any finite range.

        Returns (B, out_channels, X, Y, Z). Raises ValueError for other sides.
        """
        if min(x.shape[2:]) < SMALLEST:
            raise ValueError(f"volume of {tuple(x.shape[2:])} is too small. Give at least {SMALLEST} voxels a side.")
        steer = self.embed(condition) if self.embed is not None else None
        x = self.enter(haar(x))
        skips: list[Tensor] = []
        for level, blocks in enumerate(self.down):
            if level:
                skips.append(x)
                x = self.shrink[level - 1](pad_to_multiple(x))
            for block in blocks:  # type: ignore[attr-defined]
                x = block(x, steer)
        if self.attend is not None:
            x = self.attend(x)
        for level in reversed(range(len(self.up))):
            skip = skips[level]
            x = skip + enlarge(self.grow[level](x), skip.shape)
            x = self.up[level](x, steer)
        return inverse_haar(self.leave(F.silu(self.norm(x))))


def zero(layer: nn.Conv3d | nn.Linear) -> None:
    """Start a layer from zero, so that what it belongs to starts as the identity."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def pad_to_multiple(x: Tensor, factor: int = 2) -> Tensor:
    """Repeat the last plane of each side until its size is a multiple of the factor."""
    lacking = [-size % factor for size in x.shape[2:]]
    return F.pad(x, (0, lacking[2], 0, lacking[1], 0, lacking[0]), mode="replicate") if any(lacking) else x


def enlarge(x: Tensor, shape: torch.Size) -> Tensor:
    """Nearest-neighbour upsampling by two, cropped to the spatial size of `shape`."""
    return F.interpolate(x, scale_factor=2, mode="nearest")[:, :, : shape[2], : shape[3], : shape[4]]
