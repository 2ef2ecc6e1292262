"""The microstructure loss (Eqs. 14-16): L1 between VGG16 features of mean projections over the three axes."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pdsynth.types import InputError

CONVOLUTIONS = (2, 2, 3, 3, 3)  # a block, each block followed by a 2x2 maximum
CHANNELS = (64, 128, 256, 512, 512)
IMAGENET_MEAN, IMAGENET_SD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
REMEDY = "give the state dict of torchvision's vgg16, as .pth or .safetensors, or no file"


def microstructure_views(volume: Tensor) -> list[Tensor]:
    """Mean projections over the three axes (Eqs. 14-15). volume: (B, 1, X, Y, Z)."""
    return [volume.mean(axis) for axis in (2, 3, 4)]


class VGGFeatures(nn.Module):
    """Fixed VGG16 up to `layer`, "conv1_1" to "conv5_3" or "fc7", after its ReLU (Simonyan & Zisserman 2015).

    Layer names and shapes are torchvision's, so a file of its ImageNet weights fits; without a file the weights are
    He-normal draws from `seed`, and `source` says so. "conv2_2" is cheap on a CPU. The weights are constants: never
    trained, never saved with a model. Raises ValueError for an unknown layer, InputError for a file that does not fit.

    >>> VGGFeatures(layer="conv1_1").source
    'fixed random weights of seed 0, to conv1_1'
    """

    def __init__(self, weights: Path | None = None, layer: str = "conv2_2", seed: int = 0) -> None:
        super().__init__()
        with torch.device("meta"):  # draws nothing from the global generator
            self.features, self.classifier = vgg16_until(layer)
        self.to_empty(device="cpu")
        if weights is None:
            self._draw(seed)
            self.source = f"fixed random weights of seed {seed}, to {layer}"
        else:
            self._load(weights)
            digest = hashlib.sha256(weights.read_bytes()).hexdigest()
            self.source = f"file {weights.name} (sha256 {digest[:16]}), to {layer}"
        for part in list(self.modules()):
            for name, value in list(part.named_parameters(recurse=False)):
                delattr(part, name)
                part.register_buffer(name, value.detach(), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """Features (B, C, X', Y') or, for fc7, (B, 4096), of grey images (B, 1, X, Y) in [0, 1]."""
        mean, sd = image.new_tensor(IMAGENET_MEAN), image.new_tensor(IMAGENET_SD)
        x = self.features((image - mean[:, None, None]) / sd[:, None, None])  # broadcasts grey to three channels
        if len(self.classifier):
            x = self.classifier(F.adaptive_avg_pool2d(x, 7).flatten(1))
        return x

    def _draw(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        for name, value in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(value)
            else:
                nn.init.kaiming_normal_(value, nonlinearity="relu", generator=generator)

    def _load(self, path: Path) -> None:
        if not path.is_file():
            raise InputError(path, "is not there", REMEDY)
        try:
            if path.suffix == ".safetensors":
                from safetensors.torch import load_file

                state = load_file(path)
            else:
                state = torch.load(path, map_location="cpu", weights_only=True)
            self.load_state_dict({name: state[name] for name in self.state_dict()})
        except Exception as error:  # each reader fails in its own way
            raise InputError(path, "does not hold the weights of VGG16", REMEDY) from error


def vgg16_until(layer: str) -> tuple[nn.Sequential, nn.Sequential]:
    """The `features` and `classifier` of VGG16, numbered as torchvision's, without what follows `layer`."""
    names = [f"conv{b}_{c}" for b, count in enumerate(CONVOLUTIONS, 1) for c in range(1, count + 1)]
    if layer not in [*names, "fc7"]:
        raise ValueError(f"VGG16 has no layer {layer!r}. Choose one of {', '.join(names)}, fc7.")
    features, wide = nn.Sequential(), 3
    for block, (count, channels) in enumerate(zip(CONVOLUTIONS, CHANNELS, strict=True), 1):
        for convolution in range(1, count + 1):
            features.append(nn.Conv2d(wide, channels, 3, padding=1)).append(nn.ReLU(inplace=True))
            wide = channels
            if layer == f"conv{block}_{convolution}":
                return features, nn.Sequential()
        features.append(nn.MaxPool2d(2))
    relu, drop = nn.ReLU(inplace=True), nn.Identity()  # no dropout in fixed features
    return features, nn.Sequential(nn.Linear(512 * 49, 4096), relu, drop, nn.Linear(4096, 4096), relu)


class MicrostructureLoss(nn.Module):
    """L_mic (Eq. 16): mean absolute difference of features, averaged over the three views; zero on equal inputs."""

    def __init__(self, features: VGGFeatures) -> None:
        super().__init__()
        self.features = features

    def forward(self, estimate: Tensor, target: Tensor) -> Tensor:
        """Scalar, from volumes (B, 1, X, Y, Z) in about [0, 1]; gradients reach the estimate alone."""
        views = zip(microstructure_views(estimate), microstructure_views(target.detach()), strict=True)
        return torch.stack([F.l1_loss(self.features(a), self.features(b)) for a, b in views]).mean()
