import pytest
import torch
from torch import nn

from pdsynth.networks.ema import EMA


def module(value: float = 0.0) -> nn.Linear:
    layer = nn.Linear(2, 1)
    for p in layer.parameters():
        nn.init.constant_(p, value)
    return layer


def set_to(layer: nn.Module, value: float) -> None:
    with torch.no_grad():
        for p in layer.parameters():
            p.fill_(value)


def test_warm_up_then_decay_in_closed_form():
    layer = module(0.0)
    ema = EMA(layer, decay=0.25)
    set_to(layer, 1.0)
    expected = 0.0
    for n in range(6):
        ema.update()
        decay = min(0.25, (1 + n) / (10 + n))  # 0.1, 2/11, 0.25, ...
        expected = decay * expected + (1 - decay)
        assert ema.averages["weight"].flatten().tolist() == pytest.approx([expected] * 2)


def test_copy_to_module():
    layer = module(1.0)
    ema = EMA(layer, 0.9)
    set_to(layer, 2.0)
    ema.copy_to_module()
    assert layer.bias.item() == 1.0


def test_state_resumes_exactly():
    torch.manual_seed(0)
    a, b = module(), module()
    first, second = EMA(a, 0.99), EMA(b, 0.99)
    for i in range(20):
        set_to(a, float(i))
        first.update()
        if i == 9:
            state = first.state_dict()
    second.load_state_dict(state)
    for i in range(10, 20):
        set_to(b, float(i))
        second.update()
    assert torch.equal(first.averages["weight"], second.averages["weight"])
    assert first.updates == second.updates == 20


def test_frozen_parameters_and_buffers_are_left_alone():
    net = nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1))
    net[0].requires_grad_(False)
    assert sorted(EMA(net, 0.9).averages) == ["1.bias", "1.weight"]


def test_foreign_state_and_bad_decay_are_refused():
    with pytest.raises(ValueError, match="differ in"):
        EMA(module(), 0.9).load_state_dict(EMA(nn.Conv2d(1, 1, 1, bias=False), 0.9).state_dict())
    with pytest.raises(ValueError, match="EMA decay is 1"):
        EMA(module(), 1.0)
