import math

import pytest
import torch
from monai.networks.nets.diffusion_model_unet import get_timestep_embedding

from pdsynth.networks.embedding import time_embedding


def test_equals_monai():
    t = torch.tensor([0, 1, 37, 500, 999])
    torch.testing.assert_close(time_embedding(t, 32), get_timestep_embedding(t, 32), rtol=0, atol=1e-5)


def test_closed_form():
    expected = [math.cos(3), math.cos(0.03), math.sin(3), math.sin(0.03)]
    assert time_embedding(torch.tensor([3]), 4)[0].tolist() == pytest.approx(expected, abs=1e-6)


def test_odd_size_is_refused():
    with pytest.raises(ValueError, match="even number"):
        time_embedding(torch.tensor([3]), 5)
