import pytest
import torch

from pdsynth.networks.unet import ChannelNorm, Convolution, HaarUNet, enlarge, pad_to_multiple


def trained(*args, **kwargs) -> HaarUNet:
    """A network whose zero layers have random weights, as after training."""
    torch.manual_seed(0)
    net = HaarUNet(*args, **kwargs)
    for p in net.parameters():
        if not p.abs().sum():
            torch.nn.init.normal_(p, std=0.05)
    return net.eval()


@pytest.mark.parametrize("levels", [1, 2, 3])
@pytest.mark.parametrize("shape", [(8, 8, 8), (14, 16, 18), (10, 12, 22)])
def test_any_even_size_keeps_its_shape(levels, shape):
    net = trained(2, 3, 8, levels, 1, condition=4)
    out = net(torch.randn(2, 2, *shape), torch.randn(2, 4))
    assert out.shape == (2, 3, *shape) and out.isfinite().all() and out.std() > 0


def test_output_is_zero_before_training_and_every_parameter_learns_soon():
    net = HaarUNet(2, 1, 8, 2, 1, condition=4)
    x, condition = torch.randn(2, 2, 16, 16, 16), torch.randn(2, 4)
    assert not net(x, condition).any()
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    for _ in range(4):  # zero layers pass gradients on once they have moved
        optimizer.zero_grad()
        (net(x, condition) - x[:, :1]).square().mean().backward()
        optimizer.step()
    still = [name for name, p in net.named_parameters() if not p.grad.any()]
    assert not still


def test_condition_steers_each_participant_alone():
    net = trained(1, 1, 8, 2, 1, condition=3)
    x, condition = torch.randn(2, 1, 8, 8, 8), torch.randn(2, 3)
    both = net(x, condition)
    changed = net(x, condition + torch.tensor([[0.0], [1.0]]))
    torch.testing.assert_close(both[0], changed[0])
    assert (both[1] - changed[1]).abs().max() > 1e-3


def test_patch_and_whole_volume_agree_away_from_the_patch_edge():
    """The network uses no statistics over space."""
    net = trained(1, 1, 8, 2, 1, condition=3)
    whole, condition = torch.randn(1, 1, 48, 48, 48), torch.randn(1, 3)
    # cut at a multiple of 4 voxels, the grid of the second level, so that both are sampled alike
    cut = net(whole[:, :, 8:, 8:, 8:], condition)
    torch.testing.assert_close(cut[:, :, 24:, 24:, 24:], net(whole, condition)[:, :, 32:, 32:, 32:])


def test_channel_norm_gives_unit_mean_square_per_voxel():
    x = torch.randn(2, 16, 3, 4, 5) * 7
    torch.testing.assert_close(ChannelNorm()(x).square().mean(1), torch.ones(2, 3, 4, 5))


def test_padding_repeats_and_enlarging_crops():
    x = torch.arange(3.0).view(1, 1, 3, 1, 1).expand(1, 1, 3, 2, 2)
    padded = pad_to_multiple(x)
    assert padded.shape == (1, 1, 4, 2, 2) and padded[0, 0, :, 0, 0].tolist() == [0, 1, 2, 2]
    assert pad_to_multiple(x, 8).shape == (1, 1, 8, 8, 8)
    assert enlarge(padded[:, :, ::2], torch.Size((1, 1, 3, 4, 4)))[0, 0, :, 0, 0].tolist() == [0, 0, 2]


def test_bf16_autocast_is_close_to_fp32():
    net = trained(2, 1, 16, 2, 1, condition=4)
    x, condition = torch.randn(1, 2, 16, 16, 16), torch.randn(1, 4)
    exact = net(x, condition)
    with torch.autocast("cpu", torch.bfloat16):
        rough = net(x, condition)
    assert (rough.float() - exact).norm() < 0.03 * exact.norm()


def test_bad_sizes_are_refused():
    net = HaarUNet(1, 1, 8, 2, 1)
    with pytest.raises(ValueError, match="too small"):
        net(torch.zeros(1, 1, 6, 8, 8))
    with pytest.raises(ValueError, match="odd side"):
        net(torch.zeros(1, 1, 9, 8, 8))
    with pytest.raises(ValueError, match="at least 1"):
        HaarUNet(1, 1, 8, levels=0)


def test_gradients_in_bf16_are_those_of_fp32_where_an_edge_has_two_voxels():
    """Free memory is filled with NaN, so that a read of uninitialised memory is detected."""
    convolution = Convolution(16, 16)
    x, wanted = torch.randn(4, 16, 2, 2, 2), torch.randn(4, 16, 2, 2, 2)
    found = []
    for enabled in (False, True):
        for _ in range(5):
            spoilt = [torch.full((size,), float("nan")) for size in (64, 1024, 16384, 65536) for _ in range(6)]
            del spoilt
            convolution.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
                ((convolution(x) - wanted) ** 2).mean().backward()
            found.append(convolution.weight.grad.clone())
    assert all(torch.equal(each, found[0]) for each in found)
