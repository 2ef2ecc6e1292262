"""Self-attention over the voxels of a volume."""

from __future__ import annotations

from torch import Tensor, nn


class SelfAttention(nn.Module):
    """x + attention(norm(x)), multi-head attention among all voxels. Before training it is the identity.

    width: number of channels, a multiple of heads. Memory grows with the square of the number of voxels, so that it
    suits the coarsest level of a U-Net only.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        nn.init.zeros_(self.attention.out_proj.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Let the voxels of x (B, width, X, Y, Z) attend to each other; returns the same shape."""
        tokens = self.norm(x.flatten(2).transpose(1, 2))
        mixed, _ = self.attention(tokens, tokens, tokens, need_weights=False)
        return x + mixed.transpose(1, 2).unflatten(2, x.shape[2:])
