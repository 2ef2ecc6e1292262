"""A perceptron that maps each voxel's features to its output, with a vector that describes the whole scan."""

from __future__ import annotations

from torch import Tensor, nn


class VoxelMLP(nn.Module):
    """`depth` hidden layers of `width` units (SiLU) on each voxel; the condition vector joins the first layer.

    Output (B, out_channels, X, Y, Z), zero before training.
    """

    def __init__(
        self, in_channels: int, out_channels: int, width: int = 128, depth: int = 3, condition: int = 0
    ) -> None:
        super().__init__()
        if depth < 1:
            raise ValueError(f"depth is {depth}; a perceptron needs at least 1 hidden layer.")
        self.first = nn.Conv3d(in_channels, width, 1)
        self.condition = nn.Linear(condition, width, bias=False) if condition else None
        hidden = [layer for _ in range(depth - 1) for layer in (nn.Conv3d(width, width, 1), nn.SiLU(inplace=True))]
        self.rest = nn.Sequential(nn.SiLU(inplace=True), *hidden)
        self.last = nn.Conv3d(width, out_channels, 1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """x (B, in_channels, X, Y, Z) and condition (B, condition)."""
        first = self.first(x)
        if self.condition is not None:
            first = first + self.condition(condition)[:, :, None, None, None]
        return self.last(self.rest(first))
