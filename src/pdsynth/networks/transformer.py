"""A 3D patch transformer with adaptive layer norm (DiT, Peebles & Xie 2023)."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pdsynth.networks.unet import zero


class AdaptiveBlock(nn.Module):
    """A block of a transformer: self-attention among tokens, then a perceptron on each token, both steered by a vector.

    The vector (the condition) scales, shifts and gates each of the two ("adaLN-Zero", Peebles & Xie 2023). width: size
    of a token and of the condition. heads: number of attention heads. Before training the block is the identity.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width, elementwise_affine=False) for _ in range(2))
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.perceptron = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width)
        )
        self.modulation = nn.Linear(width, 6 * width)
        zero(self.modulation)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Apply the block to x (B, tokens, width), with condition (B, width); returns the shape of x."""
        scale_a, shift_a, gate_a, scale_p, shift_p, gate_p = self.modulation(F.silu(condition))[:, None].chunk(6, 2)
        tokens = self.norms[0](x) * (1 + scale_a) + shift_a
        x = x + gate_a * self.attention(tokens, tokens, tokens, need_weights=False)[0]
        return x + gate_p * self.perceptron(self.norms[1](x) * (1 + scale_p) + shift_p)


class PatchTransformer(nn.Module):
    """A transformer on whole volumes of one shape, whose tokens are cubes of voxels (after DiT, Peebles & Xie 2023).

    A volume of `shape` is cut into cubes of `patch` voxels per side. Each cube is one token of size `width`, with a
    learned position embedding. Sides that are not a multiple of `patch` are padded with zeros at the end. depth: number
    of blocks. heads: number of attention heads, of which `width` is a multiple. condition: size of the vector that
    steers every block. Before training the output is zero.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        in_channels: int,
        out_channels: int,
        condition: int,
        patch: int = 8,
        width: int = 192,
        depth: int = 6,
        heads: int = 6,
    ) -> None:
        super().__init__()
        self.shape, self.patch, self.out_channels = tuple(shape), patch, out_channels
        self.cells = tuple(-(-n // patch) for n in shape)
        self.enter = nn.Conv3d(in_channels, width, patch, stride=patch)
        self.position = nn.Parameter(0.02 * torch.randn(1, prod(self.cells), width))
        self.embed = nn.Sequential(nn.Linear(condition, width), nn.SiLU(), nn.Linear(width, width))
        self.blocks = nn.ModuleList(AdaptiveBlock(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.leave = nn.Linear(width, patch**3 * out_channels)
        zero(self.leave)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """x (B, in_channels, X, Y, Z), condition (B, size of the condition); returns (B, out_channels, X, Y, Z).

        X, Y and Z are the shape for which the network was built; they need not be multiples of `patch`. Raises
        ValueError for another shape.
        """
        size = tuple(x.shape[2:])
        if size != self.shape:
            raise ValueError(f"the network was built for volumes of the shape {self.shape}, not {size}.")
        padding = [cells * self.patch - n for cells, n in zip(self.cells, size, strict=True)]
        x = F.pad(x, (0, padding[2], 0, padding[1], 0, padding[0]))
        tokens = self.enter(x).flatten(2).transpose(1, 2) + self.position
        steer = self.embed(condition)
        for block in self.blocks:
            tokens = block(tokens, steer)
        return self.assemble(self.leave(self.norm(tokens)))[:, :, : size[0], : size[1], : size[2]]

    def assemble(self, cubes: Tensor) -> Tensor:
        """Put each cube back to its position: (B, cubes, out_channels * patch^3) -> (B, out_channels, X, Y, Z).

        X, Y and Z include the padding to multiples of `patch`.
        """
        p = self.patch
        cubes = cubes.unflatten(1, self.cells).unflatten(4, (self.out_channels, p, p, p))
        cubes = cubes.permute(0, 4, 1, 5, 2, 6, 3, 7)  # B, C, X/p, p, Y/p, p, Z/p, p
        return cubes.flatten(6, 7).flatten(4, 5).flatten(2, 3)
