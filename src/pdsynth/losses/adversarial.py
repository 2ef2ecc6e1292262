"""Patch discriminators and the least-squares losses of both players (Mao et al. 2017, Isola et al. 2017), by MONAI."""

from __future__ import annotations

from torch import Tensor, nn

from pdsynth.types import Direction


class Discriminators(nn.Module):
    """One a direction; each sees about 16 voxels a side and maps (B, channels, X, Y, Z) to scores, 1 for real."""

    def __init__(self, channels: int, width: int) -> None:
        from monai.losses import PatchAdversarialLoss  # MONAI takes a second to import: only who uses it waits
        from monai.networks.nets import PatchDiscriminator

        super().__init__()
        self.networks = nn.ModuleDict(
            {d: PatchDiscriminator(3, width, in_channels=channels, num_layers_d=1, norm="INSTANCE") for d in Direction}
        )
        self.loss = PatchAdversarialLoss(criterion="least_squares", no_activation_leastsq=True)

    def forward(self, image: Tensor, direction: Direction) -> Tensor:
        """The map of scores."""
        return self.networks[direction](image)[-1]

    def told_apart(self, real: Tensor, made: Tensor, direction: Direction) -> dict[str, Tensor]:
        """What the discriminator minimises: half the squared distance to 1 where real, to 0 where made."""
        return {
            f"{word}_{direction}": 0.5
            * self.loss(self(image, direction), target_is_real=word == "real", for_discriminator=True)
            for word, image in (("real", real), ("made", made))
        }

    def fooled(self, made: Tensor, direction: Direction) -> Tensor:
        """What the generator minimises: the squared distance to 1."""
        return self.loss(self(made, direction), target_is_real=True, for_discriminator=False)
