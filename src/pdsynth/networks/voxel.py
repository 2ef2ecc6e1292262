"""A perceptron on single voxels: it maps the features of a voxel, and a vector for the whole scan, to its output."""

from __future__ import annotations

from torch import Tensor, nn


class VoxelMLP(nn.Module):
    """A perceptron that is applied to the channels of each voxel alone, without its neighbours.

    It has `depth` hidden layers of `width` SiLU units. A condition vector of the whole scan, of size `condition` (0: no
    such vector), is added at the first layer after a linear map. Before training the output is zero. Raises ValueError
    for a depth below 1.
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
        """Apply the perceptron to every voxel of x (B, in_channels, X, Y, Z); returns (B, out_channels, X, Y, Z).

        condition: one vector per scan, (B, size of the condition). It is needed if the network was built with a
        condition, and ignored if it was built without one.
        """
        first = self.first(x)
        if self.condition is not None:
            first = first + self.condition(condition)[:, :, None, None, None]
        return self.last(self.rest(first))
