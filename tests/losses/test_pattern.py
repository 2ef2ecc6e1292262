import pytest
import torch

from pdsynth.losses.pattern import PatternLoss, region_sums


def blocks() -> torch.Tensor:
    """Labels (1, 1, 4, 2, 2): region i + 1 is plane i, four voxels each; the last plane is background."""
    return torch.tensor([1, 2, 3, 0], dtype=torch.int16).view(1, 1, 4, 1, 1).expand(1, 1, 4, 2, 2)


def planes(*values: float) -> torch.Tensor:
    return torch.tensor(values).view(1, 1, -1, 1, 1).expand(1, 1, -1, 2, 2).clone()


def of_ones() -> PatternLoss:
    loss = PatternLoss()
    loss.set_spread(torch.ones(3))
    return loss


def by_definition(d: list[float]) -> float:
    n = len(d)
    return sum(x * x for x in d) / n + sum((x - y) ** 2 for x in d for y in d) / n**2


def test_closed_form():
    estimate, target = planes(0.5, 0.2, 0.9, 7.0), planes(0.4, 0.4, 0.6, 0.0)
    expected = by_definition([0.1, -0.2, 0.3])
    assert of_ones()(estimate, target, blocks()).item() == pytest.approx(expected, rel=1e-5)


def test_a_common_shift_costs_the_level_and_not_the_coupling():
    target = planes(0.1, 0.5, 0.3, 0.0)
    assert of_ones()(target + 0.2, target, blocks()).item() == pytest.approx(0.04, rel=1e-4)


def test_differences_count_in_units_of_the_training_spread():
    loss = PatternLoss()
    loss.set_spread(torch.tensor([0.1, 0.2, 0.3]))
    value = loss(planes(0.5, 0.2, 0.9, 7.0), planes(0.4, 0.4, 0.6, 0.0), blocks()).item()
    assert value == pytest.approx(by_definition([1.0, -1.0, 1.0]), rel=1e-5)
    assert "spread" in loss.state_dict()


def test_only_region_means_count():
    target = torch.rand(1, 1, 4, 2, 2)
    shuffled = target.flatten(3)[..., torch.tensor([2, 0, 3, 1])].view_as(target)
    assert of_ones()(shuffled, target, blocks()).item() == pytest.approx(0, abs=1e-12)


def test_absent_regions_are_ignored_and_an_empty_patch_costs_nothing():
    estimate, target, labels = planes(0.5, 0.2, 0.9, 7.0), planes(0.4, 0.4, 0.6, 0.0), blocks()
    part = of_ones()(estimate[:, :, :2], target[:, :, :2], labels[:, :, :2]).item()
    assert part == pytest.approx(by_definition([0.1, -0.2]), rel=1e-5)
    patch = torch.rand(1, 1, 1, 2, 2, requires_grad=True)
    empty = of_ones()(patch, torch.rand(1, 1, 1, 2, 2), labels[:, :, 3:])
    empty.backward()
    assert empty.item() == 0 and patch.grad.isfinite().all()


def test_patches_of_a_batch_use_their_own_labels():
    volumes = torch.rand(2, 1, 4, 2, 2), torch.rand(2, 1, 4, 2, 2)
    labels = torch.cat([blocks(), blocks().flip(2)])
    loss = of_ones()
    alone = [loss(volumes[0][i : i + 1], volumes[1][i : i + 1], labels[i : i + 1]) for i in range(2)]
    torch.testing.assert_close(loss(*volumes, labels), torch.stack(alone).mean())


def test_region_sums_and_gradient():
    volume = planes(1.0, 2.0, 3.0, 4.0).requires_grad_()
    sums, counts = region_sums(volume, blocks(), 3)
    assert sums.tolist() == [[4, 8, 12]] and counts.tolist() == [[4, 4, 4]]
    of_ones()(volume, torch.zeros(1, 1, 4, 2, 2), blocks()).backward()
    assert volume.grad[:, :, :3].abs().sum() > 0 and not volume.grad[:, :, 3].any()


def test_one_region_is_refused():
    with pytest.raises(ValueError, match="at least 2"):
        PatternLoss().set_spread(torch.ones(1))
