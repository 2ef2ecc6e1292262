"""A small 3D U-Net that works on Haar wavelet coefficients."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pdsynth.networks.attention import SelfAttention
from pdsynth.networks.haar import haar, inverse_haar

SMALLEST = 8  # voxels per side


class Convolution(nn.Conv3d):
    """A 3 x 3 x 3 convolution that preserves the spatial shape, (B, C, x, y, z).

    On a CPU, volumes with a side below 3 voxels are computed in float32. With bf16, torch 2.13 computes the gradients
    of the weights from uninitialised memory there (observed with avx512_bf16), and they may be NaN.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.is_cuda or min(x.shape[2:]) >= 3:
            return super().forward(x)
        with torch.autocast("cpu", enabled=False):
            return super().forward(x.float())


class ChannelNorm(nn.Module):
    """Scale each voxel's channels to unit mean square: RMSNorm (Zhang & Sennrich 2019) without its learned gain.

    A voxel of zeros stays zero. Unlike GroupNorm it uses no statistics over space, so that a voxel gets the same scale
    in a patch and in the whole volume.
    """

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, X, Y, Z); returns the same shape."""
        return x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-6)


class ResidualBlock(nn.Module):
    """x + conv(silu(film(conv(silu(norm(x)))))). Before training it is the identity.

    conv is a 3 x 3 x 3 convolution, and norm scales each voxel's channels to unit mean square. film scales and shifts
    the hidden channels by functions of a condition vector (FiLM, Perez et al. 2018); before training it changes
    nothing. width: number of channels. condition: size of the condition vector, 0 for a block without one, which then
    has no film.
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
        """Apply the block to x (B, width, X, Y, Z); returns the same shape.

        condition: (B, size of the condition vector). It is needed if the block was built with one, else ignored.
        """
        hidden = self.first(F.silu(self.norm(x)))
        if self.film is not None:
            scale, shift = self.film(condition)[:, :, None, None, None].chunk(2, dim=1)
            hidden = torch.addcmul(shift, hidden, 1 + scale)
        return x + self.second(F.silu(hidden))


class HaarUNet(nn.Module):
    """Haar transform, residual U-Net at half resolution and below, inverse Haar transform.

    The U-Net has `levels` resolutions; the first has `width` channels, all others twice as many. Each level has
    `blocks` residual blocks on the way down, and each but the coarsest has one on the way up. Skip connections are
    summed. A 1x1x1 convolution reduces the channels before each upsampling, on an eighth of the voxels. `condition` is
    the size of the vector that steers every block (0: no such vector). `heads` is the number of self-attention heads at
    the coarsest level (0: no attention). Before training the output is zero. Raises ValueError for levels or blocks
    below 1.
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
            raise ValueError(f"a network needs levels and blocks; got {levels} and {blocks}. Give at least 1 of each.")
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
        """x (B, in_channels, X, Y, Z) with even sides of at least 8; returns (B, out_channels, X, Y, Z).

        condition: (B, size of the condition vector). It is needed if the network was built with one, else ignored.
        Raises ValueError for sides that are odd or below 8. The values of x may be any finite numbers.
        """
        if min(x.shape[2:]) < SMALLEST:
            shape = tuple(x.shape[2:])
            raise ValueError(f"a volume of {shape} is too small. Give at least {SMALLEST} voxels per side.")
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
    """Set weight and bias of a layer to zero.

    A residual block that ends in this layer is then the identity before training.
    """
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def pad_to_multiple(x: Tensor, factor: int = 2) -> Tensor:
    """Pad x (B, C, X, Y, Z) at the end of each axis, by copies of the last plane, to a multiple of the factor."""
    padding = [-size % factor for size in x.shape[2:]]
    return F.pad(x, (0, padding[2], 0, padding[1], 0, padding[0]), mode="replicate") if any(padding) else x


def enlarge(x: Tensor, shape: torch.Size) -> Tensor:
    """Upsample x (B, C, x, y, z) by two (nearest neighbour), and crop it to the last three lengths of `shape`."""
    return F.interpolate(x, scale_factor=2, mode="nearest")[:, :, : shape[2], : shape[3], : shape[4]]
