"""Frozen networks for losses on features: VGG for images, and a small ResNet for volumes."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pdsynth.types import InputError

CONVOLUTIONS = {  # per block, by depth of the network; a 2 x 2 maximum follows each block
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}
CHANNELS = (64, 128, 256, 512, 512)
IMAGENET_MEAN, IMAGENET_SD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class FrozenFeatures(nn.Module):
    """Base of networks that compute features with constant weights, neither trained nor saved with a model.

    `source` describes the origin of the weights, in words.
    """

    source: str

    def draw(self, seed: int) -> None:
        """Set random weights from `seed`: He-normal weights and zero biases. To be called before `freeze`.

        Weights of normalisation layers, which are 1D, keep their values.
        """
        generator = torch.Generator().manual_seed(seed)
        for name, value in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(value)
            elif value.ndim > 1:
                nn.init.kaiming_normal_(value, nonlinearity="relu", generator=generator)

    def freeze(self) -> None:
        """Make every tensor a non-persistent buffer: it moves with the device, is not trained and not saved."""
        for part in self.modules():
            for name, value in [*part.named_parameters(recurse=False), *part.named_buffers(recurse=False)]:
                delattr(part, name)
                part.register_buffer(name, value.detach(), persistent=False)
        self.eval()

    def train(self, mode: bool = True) -> FrozenFeatures:
        """Stay in eval mode, whatever `mode` is, so that normalisation layers keep their statistics."""
        return super().train(False)


class VGGFeatures(FrozenFeatures):
    """VGG of 11, 13, 16 or 19 layers up to `layer`, "conv1_1" to "fc7", after its ReLU (Simonyan & Zisserman 2015).

    Layer names and shapes are those of torchvision, so that a file `weights` of its ImageNet weights (.safetensors or
    .pth) can be loaded. Without a file the weights are He-normal random numbers from `seed`. The layer "conv2_2" is
    cheap on a CPU. Raises ValueError for an unknown depth or layer, and InputError for a file without these weights.

    >>> VGGFeatures(layer="conv1_1").source
    'VGG16 of fixed random weights (seed 0), to conv1_1'
    """

    def __init__(self, weights: Path | None = None, layer: str = "conv2_2", depth: int = 16, seed: int = 0) -> None:
        super().__init__()
        self.depth = depth
        with torch.device("meta"):  # takes no random numbers from the global generator
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
        """Features (B, C, X', Y'), or (B, 4096) for fc7, of colour (B, 3, X, Y) or grey (B, 1, X, Y) images in 0..1.

        C is the number of channels of the layer. X' and Y' are X and Y, halved and rounded down once per block before
        the layer's.
        """
        mean, sd = image.new_tensor(IMAGENET_MEAN), image.new_tensor(IMAGENET_SD)
        x = self.features((image - mean[:, None, None]) / sd[:, None, None])  # broadcasts grey to three channels
        if len(self.classifier):
            x = self.classifier(F.adaptive_avg_pool2d(x, 7).flatten(1))
        return x

    def _load(self, path: Path) -> None:
        remedy = f"give the state dict of torchvision's vgg{self.depth}, as .pth or .safetensors, or no file"
        if not path.is_file():
            raise InputError(path, "is missing", remedy)
        try:
            if path.suffix == ".safetensors":
                from safetensors.torch import load_file

                state = load_file(path)
            else:
                state = torch.load(path, map_location="cpu", weights_only=True)
            self.load_state_dict({name: state[name] for name in self.state_dict()})
        except Exception as error:  # the readers raise many types of errors
            raise InputError(path, f"does not contain the weights of VGG{self.depth}", remedy) from error


def vgg_until(layer: str, depth: int = 16) -> tuple[nn.Sequential, nn.Sequential]:
    """The layers of an untrained VGG network up to the ReLU of `layer`: the parts `features` and `classifier`.

    depth: 11, 13, 16 or 19. layer: "conv1_1" to "fc7". The layers are numbered as in torchvision; the classifier is
    empty unless layer is "fc7". Raises ValueError for an unknown depth or layer.
    """
    if depth not in CONVOLUTIONS:
        raise ValueError(f"there is no VGG of {depth} layers. Choose {', '.join(map(str, CONVOLUTIONS))}.")
    names = [f"conv{b}_{c}" for b, count in enumerate(CONVOLUTIONS[depth], 1) for c in range(1, count + 1)]
    if layer not in [*names, "fc7"]:
        raise ValueError(f"VGG{depth} has no layer {layer!r}. Choose one of {', '.join(names)}, fc7.")
    features, width = nn.Sequential(), 3
    for block, (count, channels) in enumerate(zip(CONVOLUTIONS[depth], CHANNELS, strict=True), 1):
        for convolution in range(1, count + 1):
            features.append(nn.Conv2d(width, channels, 3, padding=1)).append(nn.ReLU(inplace=True))
            width = channels
            if layer == f"conv{block}_{convolution}":
                return features, nn.Sequential()
        features.append(nn.MaxPool2d(2))
    relu, dropout = nn.ReLU(inplace=True), nn.Identity()  # fixed features need no dropout
    return features, nn.Sequential(nn.Linear(512 * 49, 4096), relu, dropout, nn.Linear(4096, 4096), relu)


class ResNetFeatures(FrozenFeatures):
    """MONAI's 3D ResNet-10 up to its second level, with He-normal random weights from `seed`, which are not trained.

    >>> ResNetFeatures().source
    'ResNet-10 (3D) of fixed random weights (seed 0), to layer2'
    """

    def __init__(self, seed: int = 0) -> None:
        from monai.networks.nets import resnet10  # slow to import

        super().__init__()
        with torch.random.fork_rng(devices=[]):  # MONAI initialises weights, which `draw` replaces
            net = resnet10(spatial_dims=3, n_input_channels=1, feed_forward=False, conv1_t_stride=2)
        self.features = nn.Sequential(net.conv1, net.bn1, nn.ReLU(), net.maxpool, net.layer1, net.layer2)
        self.draw(seed)
        self.source = f"ResNet-10 (3D) of fixed random weights (seed {seed}), to layer2"
        self.freeze()

    def forward(self, volume: Tensor) -> Tensor:
        """Features (B, 128, X/8, Y/8, Z/8), with sides rounded up, of volumes (B, 1, X, Y, Z) in [0, 1]."""
        return self.features(volume)
