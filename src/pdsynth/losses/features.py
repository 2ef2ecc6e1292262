"""Frozen networks whose features losses compare: VGG on images, a small ResNet on volumes."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pdsynth.types import InputError

CONVOLUTIONS = {  # a block, each block followed by a 2x2 maximum
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}
CHANNELS = (64, 128, 256, 512, 512)
IMAGENET_MEAN, IMAGENET_SD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class FrozenFeatures(nn.Module):
    """A network whose weights are constants: never trained, never saved with a model; `source` says whose they are."""

    source: str

    def draw(self, seed: int) -> None:
        """He-normal weights and zero biases; normalisations, which have one axis, stay the identity."""
        generator = torch.Generator().manual_seed(seed)
        for name, value in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(value)
            elif value.ndim > 1:
                nn.init.kaiming_normal_(value, nonlinearity="relu", generator=generator)

    def freeze(self) -> None:
        """Register every tensor as a buffer that no state dict holds: it follows the device and is never trained."""
        for part in self.modules():
            for name, value in [*part.named_parameters(recurse=False), *part.named_buffers(recurse=False)]:
                delattr(part, name)
                part.register_buffer(name, value.detach(), persistent=False)
        self.eval()

    def train(self, mode: bool = True) -> FrozenFeatures:
        """Frozen: normalisations keep their statistics whatever happens around it."""
        return super().train(False)


class VGGFeatures(FrozenFeatures):
    """VGG of 11, 13, 16 or 19 layers up to `layer`, "conv1_1" to "fc7", after its ReLU (Simonyan & Zisserman 2015).

    Layer names and shapes are torchvision's, so a file of its ImageNet weights fits; without a file the weights are
    He-normal draws from `seed`, and `source` says so. "conv2_2" is cheap on a CPU. Raises ValueError for an unknown
    depth or layer, InputError for a file that does not fit.

    >>> VGGFeatures(layer="conv1_1").source
    'VGG16 of fixed random weights (seed 0), to conv1_1'
    """

    def __init__(self, weights: Path | None = None, layer: str = "conv2_2", depth: int = 16, seed: int = 0) -> None:
        super().__init__()
        self.depth = depth
        with torch.device("meta"):  # draws nothing from the global generator
            self.features, self.classifier = vgg_until(layer, depth)
        self.to_empty(device="cpu")
        if weights is None:
            self.draw(seed)
            self.source = f"VGG{depth} of fixed random weights (seed {seed}), to {layer}"
        else:
            self._load(weights)
            digest = hashlib.sha256(weights.read_bytes()).hexdigest()
            self.source = f"VGG{depth} of {weights.name} (sha256 {digest[:16]}), to {layer}"
        self.freeze()

    def forward(self, image: Tensor) -> Tensor:
        """Features (B, C, X', Y') or, for fc7, (B, 4096), of images in [0, 1]: (B, 3, X, Y), or grey (B, 1, X, Y)."""
        mean, sd = image.new_tensor(IMAGENET_MEAN), image.new_tensor(IMAGENET_SD)
        x = self.features((image - mean[:, None, None]) / sd[:, None, None])  # broadcasts grey to three channels
        if len(self.classifier):
            x = self.classifier(F.adaptive_avg_pool2d(x, 7).flatten(1))
        return x

    def _load(self, path: Path) -> None:
        remedy = f"give the state dict of torchvision's vgg{self.depth}, as .pth or .safetensors, or no file"
        if not path.is_file():
            raise InputError(path, "is not there", remedy)
        try:
            if path.suffix == ".safetensors":
                from safetensors.torch import load_file

                state = load_file(path)
            else:
                state = torch.load(path, map_location="cpu", weights_only=True)
            self.load_state_dict({name: state[name] for name in self.state_dict()})
        except Exception as error:  # each reader fails in its own way
            raise InputError(path, f"does not hold the weights of VGG{self.depth}", remedy) from error


def vgg_until(layer: str, depth: int = 16) -> tuple[nn.Sequential, nn.Sequential]:
    """The `features` and `classifier` of VGG, numbered as torchvision's, without what follows `layer`."""
    if depth not in CONVOLUTIONS:
        raise ValueError(f"there is no VGG of {depth} layers. Choose {', '.join(map(str, CONVOLUTIONS))}.")
    names = [f"conv{b}_{c}" for b, count in enumerate(CONVOLUTIONS[depth], 1) for c in range(1, count + 1)]
    if layer not in [*names, "fc7"]:
        raise ValueError(f"VGG{depth} has no layer {layer!r}. Choose one of {', '.join(names)}, fc7.")
    features, wide = nn.Sequential(), 3
    for block, (count, channels) in enumerate(zip(CONVOLUTIONS[depth], CHANNELS, strict=True), 1):
        for convolution in range(1, count + 1):
            features.append(nn.Conv2d(wide, channels, 3, padding=1)).append(nn.ReLU(inplace=True))
            wide = channels
            if layer == f"conv{block}_{convolution}":
                return features, nn.Sequential()
        features.append(nn.MaxPool2d(2))
    relu, drop = nn.ReLU(inplace=True), nn.Identity()  # no dropout in fixed features
    return features, nn.Sequential(nn.Linear(512 * 49, 4096), relu, drop, nn.Linear(4096, 4096), relu)


class ResNetFeatures(FrozenFeatures):
    """MONAI's 3D ResNet-10 up to its second level, of He-normal weights from `seed`.

    >>> ResNetFeatures().source
    'ResNet-10 (3D) of fixed random weights (seed 0), to layer2'
    """

    def __init__(self, seed: int = 0) -> None:
        from monai.networks.nets import resnet10  # slow to import

        super().__init__()
        with torch.random.fork_rng(devices=[]):  # MONAI draws weights that are replaced at once
            net = resnet10(spatial_dims=3, n_input_channels=1, feed_forward=False, conv1_t_stride=2)
        self.features = nn.Sequential(net.conv1, net.bn1, nn.ReLU(), net.maxpool, net.layer1, net.layer2)
        self.draw(seed)
        self.source = f"ResNet-10 (3D) of fixed random weights (seed {seed}), to layer2"
        self.freeze()

    def forward(self, volume: Tensor) -> Tensor:
        """Features (B, 128, X', Y', Z') of volumes (B, 1, X, Y, Z) in [0, 1]."""
        return self.features(volume)
