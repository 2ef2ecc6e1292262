"""Patch discriminators and the least-squares GAN losses (Mao et al. 2017, Isola et al. 2017), by MONAI."""

from __future__ import annotations

from torch import Tensor, nn

from pdsynth.types import Direction


class Discriminators(nn.Module):
    """One patch discriminator per direction of synthesis, with the losses of a least-squares GAN (Mao et al. 2017).

    A discriminator maps images (B, channels, X, Y, Z) to a map of scores, which approach 1 for real and 0 for
    synthesised images. Each score depends on a patch of about 16 x 16 x 16 voxels, apart from instance normalisation
    over the image. `channels` is the number of channels of an image, `width` that of the first layer.
    """

    def __init__(self, channels: int, width: int) -> None:
        from monai.losses import PatchAdversarialLoss  # slow to import, about a second
        from monai.networks.nets import PatchDiscriminator

        super().__init__()
        self.networks = nn.ModuleDict(
            {d: PatchDiscriminator(3, width, in_channels=channels, num_layers_d=1, norm="INSTANCE") for d in Direction}
        )
        self.loss = PatchAdversarialLoss(criterion="least_squares", no_activation_leastsq=True)

    def forward(self, image: Tensor, direction: Direction) -> Tensor:
        """The map of scores of images (B, channels, X, Y, Z), by the discriminator of one direction of synthesis.

        The map is (B, 1, x, y, z); its sides are half those of the images, rounded down, minus 2.
        """
        return self.networks[direction](image)[-1]

    def discriminator_loss(self, real: Tensor, synthesised: Tensor, direction: Direction) -> dict[str, Tensor]:
        """The two terms of a discriminator's loss, by name, each half a mean squared error over the scores.

        "real_<direction>" compares the scores of real images with 1, "made_<direction>" those of synthesised images
        with 0. real, synthesised: (B, channels, X, Y, Z); the gradient also reaches `synthesised`, unless the caller
        detaches it.
        """
        return {
            f"{word}_{direction}": 0.5
            * self.loss(self(image, direction), target_is_real=word == "real", for_discriminator=True)
            for word, image in (("real", real), ("made", synthesised))
        }

    def generator_loss(self, synthesised: Tensor, direction: Direction) -> Tensor:
        """The generator's adversarial loss, a scalar: mean squared error of the scores of synthesised images and 1.

        synthesised: (B, channels, X, Y, Z).
        """
        return self.loss(self(synthesised, direction), target_is_real=True, for_discriminator=False)
