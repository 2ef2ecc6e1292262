import math

import pytest
import torch
from torch.nn import functional as F

from pdsynth.losses.features import CONVOLUTIONS, ResNetFeatures, VGGFeatures, vgg_until
from pdsynth.losses.microstructure import (
    FeatureLoss,
    MicrostructureLoss,
    StackedMicrostructureLoss,
    microstructure_views,
    stacked_views,
)
from pdsynth.types import InputError

# torchvision.models.vgg16().state_dict(), written down from its configuration "D"
TORCHVISION = {
    "features.0": (64, 3, 3, 3),
    "features.2": (64, 64, 3, 3),
    "features.5": (128, 64, 3, 3),
    "features.7": (128, 128, 3, 3),
    "features.10": (256, 128, 3, 3),
    "features.12": (256, 256, 3, 3),
    "features.14": (256, 256, 3, 3),
    "features.17": (512, 256, 3, 3),
    "features.19": (512, 512, 3, 3),
    "features.21": (512, 512, 3, 3),
    "features.24": (512, 512, 3, 3),
    "features.26": (512, 512, 3, 3),
    "features.28": (512, 512, 3, 3),
    "classifier.0": (4096, 25088),
    "classifier.3": (4096, 4096),
}


def table(until: str) -> dict[str, tuple[int, ...]]:
    names = list(TORCHVISION)
    kept = {name: TORCHVISION[name] for name in names[: names.index(until) + 1]}
    return {f"{n}.{kind}": s if kind == "weight" else s[:1] for n, s in kept.items() for kind in ("weight", "bias")}


@pytest.mark.parametrize(
    ("layer", "last"),
    [("conv1_1", "features.0"), ("conv2_2", "features.7"), ("conv3_3", "features.14"), ("conv5_3", "features.28")],
)
def test_names_and_shapes_are_torchvisions(layer, last):
    vgg = VGGFeatures(layer=layer)
    assert {name: tuple(value.shape) for name, value in vgg.named_buffers()} == table(last)


def test_names_and_shapes_of_the_whole_network_are_torchvisions():
    with torch.device("meta"):  # 134 million weights, and none in memory
        features, classifier = vgg_until("fc7")
    names = {"features": features, "classifier": classifier}
    shapes = {f"{a}.{b}": tuple(v.shape) for a, part in names.items() for b, v in part.state_dict().items()}
    assert shapes == table("classifier.3")
    assert [i for i, part in enumerate(features) if isinstance(part, torch.nn.MaxPool2d)] == [4, 9, 16, 23, 30]


@pytest.mark.parametrize(("depth", "convolutions"), [(11, 8), (13, 10), (16, 13), (19, 16)])
def test_depths_count_their_layers(depth, convolutions):
    with torch.device("meta"):
        features, classifier = vgg_until("fc7", depth)
    assert sum(isinstance(part, torch.nn.Conv2d) for part in features) == convolutions == sum(CONVOLUTIONS[depth])
    # its name counts the fully connected layers too, of which the last, fc8, is not needed
    assert convolutions + sum(isinstance(part, torch.nn.Linear) for part in classifier) + 1 == depth
    with pytest.raises(ValueError, match="no VGG of 12 layers"):
        vgg_until("conv1_1", 12)


def test_resnet_is_frozen_and_its_normalisations_are_the_identity():
    net, volume = ResNetFeatures(), torch.rand(2, 1, 16, 16, 16)
    assert not list(net.parameters()) and not net.state_dict()
    before = net(volume)
    net.train()
    torch.testing.assert_close(net(volume), before)  # in training mode a batch norm would follow the batch
    assert not any(part.training for part in net.modules())
    conv = torch.nn.functional.conv3d(volume, net.features[0].weight, net.features[0].bias, stride=2, padding=3)
    torch.testing.assert_close(net.features[:2](volume), conv / (1 + 1e-5) ** 0.5)
    assert before.shape == (2, 128, 2, 2, 2)


def test_fixed_weights_are_constants_named_and_seeded():
    state = torch.get_rng_state()
    vgg = VGGFeatures()
    assert torch.equal(torch.get_rng_state(), state)  # nobody else's random numbers move
    assert vgg.source == "VGG16 of fixed random weights (seed 0), to conv2_2"
    assert not list(vgg.parameters()) and not vgg.state_dict()
    first = vgg.features[0].weight
    assert torch.equal(first, VGGFeatures().features[0].weight)
    assert not torch.equal(first, VGGFeatures(seed=1).features[0].weight)
    assert vgg.features[5].weight.std().item() == pytest.approx(math.sqrt(2 / (64 * 9)), rel=0.02)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_file_weights_are_used_and_named(tmp_path, suffix):
    from safetensors.torch import save_file

    path = tmp_path / f"vgg16{suffix}"
    state = {name: torch.randn(shape) for name, shape in table("features.7").items()}
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    vgg = VGGFeatures(path, "conv2_1")
    assert torch.equal(vgg.features[5].bias, state["features.5.bias"])
    assert vgg.source.startswith(f"VGG16 of {path.name} (sha256 ")
    assert len(vgg.features) == 7


def test_bad_files_are_named(tmp_path):
    with pytest.raises(InputError, match="is missing"):
        VGGFeatures(tmp_path / "none.pth")
    (tmp_path / "text.pth").write_text("not weights")
    torch.save({"features.0.weight": torch.zeros(1)}, tmp_path / "other.pth")
    for name in ("text.pth", "other.pth"):
        with pytest.raises(InputError, match="VGG16"):
            VGGFeatures(tmp_path / name)
    with pytest.raises(ValueError, match="no layer 'conv9'"):
        VGGFeatures(layer="conv9")


def test_views_are_mean_projections():
    volume = torch.arange(24.0).view(1, 1, 2, 3, 4)
    x, y, z = microstructure_views(volume)
    assert x.shape == (1, 1, 3, 4) and y.shape == (1, 1, 2, 4) and z.shape == (1, 1, 2, 3)
    assert x[0, 0, 0, 0] == 6 and y[0, 0, 0, 0] == 4 and z[0, 0, 0, 0] == 1.5


def test_stacked_views_are_the_projections_in_the_middle_of_zeros():
    volume = torch.arange(24.0).view(1, 1, 2, 3, 4) + 1
    x, y, z = microstructure_views(volume)  # (3, 4), (2, 4), (2, 3): padded to (3, 4)
    stacked = stacked_views(volume)
    assert stacked.shape == (1, 3, 3, 4)
    assert torch.equal(stacked[:, :1], x)
    assert torch.equal(stacked[:, 1:2, :2], y) and not stacked[:, 1, 2].any()
    assert torch.equal(stacked[:, 2:, :2, :3], z) and not stacked[:, 2, 2].any() and not stacked[:, 2, :, 3].any()
    wide = stacked_views(torch.ones(1, 1, 4, 8, 8))
    assert wide.shape == (1, 3, 8, 8) and torch.equal(wide[0, 1], F.pad(torch.ones(4, 8), (0, 0, 2, 2)))


def test_stacked_projections_are_one_image_of_three_channels():
    """One filter that weighs the channels: features are relu(w . normalised views + b), by hand at each pixel."""
    vgg = VGGFeatures(layer="conv1_1")
    vgg.features[0].weight.zero_()
    vgg.features[0].weight[0, :, 1, 1] = torch.tensor([1.0, 2.0, -1.0])
    estimate, target = torch.rand(2, 1, 1, 4, 4, 4)

    def feature(volume):
        views = microstructure_views(volume)
        r, g, b = ((v - m) / s for v, m, s in zip(views, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), strict=True))
        return (r + 2 * g - b).relu()

    expected = (feature(estimate) - feature(target)).abs().mean() / 64  # 63 filters are silent
    loss = StackedMicrostructureLoss(vgg)
    torch.testing.assert_close(loss(estimate, target), expected)
    assert loss(estimate, estimate).item() == 0


def test_a_loss_without_views_is_no_loss():
    with pytest.raises(TypeError, match="abstract"):
        FeatureLoss(VGGFeatures(layer="conv1_1"))


def test_zero_on_equal_inputs_and_gradient_reaches_the_estimate_alone():
    loss = MicrostructureLoss(VGGFeatures())
    estimate, target = (torch.rand(1, 1, 8, 10, 12, requires_grad=True) for _ in range(2))
    assert loss(estimate, estimate.detach()).item() == 0
    loss(estimate, target).backward()
    assert estimate.grad.abs().sum() > 0 and target.grad is None


def test_hand_computed_value_on_a_tiny_vgg():
    """One 3x3 filter of which only the centre is not zero: features are relu(w . normalised grey + b) at each pixel."""
    vgg = VGGFeatures(layer="conv1_1")
    vgg.features[0].weight.zero_()
    vgg.features[0].weight[0, :, 1, 1] = torch.tensor([1.0, 2.0, -1.0])
    vgg.features[0].weight[1, 0, 1, 1] = -1.0
    estimate, target = torch.full((1, 1, 4, 4, 4), 0.8), torch.full((1, 1, 4, 4, 4), 0.5)

    def filters(grey):
        r, g, b = ((grey - m) / s for m, s in ((0.485, 0.229), (0.456, 0.224), (0.406, 0.225)))
        return max(r + 2 * g - b, 0), max(-r, 0)

    expected = sum(abs(a - b) for a, b in zip(filters(0.8), filters(0.5), strict=True)) / 64  # 62 filters are silent
    assert MicrostructureLoss(vgg)(estimate, target).item() == pytest.approx(expected, rel=1e-5)


def test_equals_functional_vgg():
    vgg, image = VGGFeatures(layer="conv2_1"), torch.rand(2, 1, 12, 14)
    weights = dict(vgg.named_buffers())
    mean, sd = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x = (image.repeat(1, 3, 1, 1) - mean.view(3, 1, 1)) / sd.view(3, 1, 1)
    for number in (0, 2, 5):
        x = F.max_pool2d(x, 2) if number == 5 else x
        x = F.relu(F.conv2d(x, weights[f"features.{number}.weight"], weights[f"features.{number}.bias"], padding=1))
    torch.testing.assert_close(vgg(image), x)


def test_views_of_a_cube_go_through_the_network_at_once_and_count_alike():
    loss, generator = MicrostructureLoss(VGGFeatures(layer="conv1_2")), torch.Generator().manual_seed(0)
    a, b = (torch.rand(2, 1, 8, 8, 8, generator=generator) for _ in range(2))
    views = zip(microstructure_views(a), microstructure_views(b), strict=True)
    apart = [(loss.features(x) - loss.features(y)).abs().mean() for x, y in views]
    torch.testing.assert_close(loss(a, b), torch.stack(apart).mean())
