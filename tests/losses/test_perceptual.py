"""The slice-wise perceptual loss against a mean taken by hand."""

from __future__ import annotations

import pytest
import torch

from pdsynth.losses.features import VGGFeatures
from pdsynth.losses.perceptual import SliceLoss


def test_it_compares_the_features_of_chosen_slices():
    torch.manual_seed(0)
    features = VGGFeatures(layer="conv1_2")
    loss = SliceLoss(features)
    a, b = torch.rand(2, 1, 9, 8, 10), torch.rand(2, 1, 9, 8, 10)
    expected = []
    for axis, chosen in ((2, (3, 6)), (3, (2, 5)), (4, (3, 6))):
        each = [(features(a.select(axis, i)) - features(b.select(axis, i))).abs().mean() for i in chosen]
        expected.append(torch.stack(each).mean())
    assert loss(a, b).item() == pytest.approx(torch.stack(expected).mean().item(), rel=1e-5)
    assert loss(a, a).item() == 0


def test_gradients_reach_the_estimate_alone():
    a, b = torch.rand(1, 1, 8, 8, 8, requires_grad=True), torch.rand(1, 1, 8, 8, 8, requires_grad=True)
    SliceLoss(VGGFeatures(layer="conv1_1"))(a, b).backward()
    assert a.grad.abs().sum() > 0 and b.grad is None
