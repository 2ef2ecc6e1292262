"""The forward process: how much signal and noise x_t holds at each step (Eqs. 1-6)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class Schedule(nn.Module):
    """Coefficients of T steps, t = 0 (almost clean) to T - 1 (almost noise).

    x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps, with alpha_bar_t the product of 1 - beta up to t
    (Ho et al. 2020, Eq. 4). It is a module so that its tables follow the model's device; they are never saved.
    Every method takes t (B,) and tensors (B, ...). Raises ValueError where a beta is outside (0, 1).
    """

    beta: Tensor
    alpha_bar: Tensor
    signal: Tensor  # sqrt(alpha_bar)
    noise: Tensor  # sqrt(1 - alpha_bar)

    def __init__(self, beta: Tensor) -> None:
        super().__init__()
        if not bool(((beta > 0) & (beta < 1)).all()):
            raise ValueError(f"beta spans [{beta.min():g}, {beta.max():g}]. Keep it inside (0, 1).")
        alpha_bar = (1 - beta.double()).cumprod(0)
        # in double precision until here: 1 - alpha_bar of the first steps has 3 digits left in float32
        tables = {"beta": beta, "alpha_bar": alpha_bar, "signal": alpha_bar.sqrt(), "noise": (1 - alpha_bar).sqrt()}
        for name, table in tables.items():
            self.register_buffer(name, table.float(), persistent=False)

    @property
    def steps(self) -> int:
        """T."""
        return len(self.beta)

    def levels(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """sqrt(alpha_bar_t) and sqrt(1 - alpha_bar_t), shaped (B, 1, ...) to multiply `like`."""
        shape = (-1, *[1] * (like.ndim - 1))
        return self.signal[t].to(like.dtype).view(shape), self.noise[t].to(like.dtype).view(shape)

    def add_noise(self, x_0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """x_t of x_0 and standard normal eps."""
        signal, noise = self.levels(t, x_0)
        return signal * x_0 + noise * eps

    def noised(self, x_0: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """x_t of x_0 (B, ...) at steps t (B,) drawn for each, t, and the fresh noise. What a denoiser trains on."""
        t = torch.randint(self.steps, (len(x_0),), generator=generator, device=x_0.device)
        eps = torch.randn(x_0.shape, generator=generator, device=x_0.device)
        return self.add_noise(x_0, t, eps), t, eps

    def eps_from_x0(self, x_t: Tensor, t: Tensor, x_0: Tensor) -> Tensor:
        """The noise that turned x_0 into x_t."""
        signal, noise = self.levels(t, x_t)
        return (x_t - signal * x_0) / noise

    def x0_from_eps(self, x_t: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """The x_0 that eps turned into x_t."""
        signal, noise = self.levels(t, x_t)
        return (x_t - noise * eps) / signal


def cosine_schedule(steps: int = 1000, beta_min: float = 1e-4, beta_max: float = 0.02) -> Schedule:
    """The cosine schedule (Nichol & Dhariwal 2021, Eq. 17) with beta clipped to [beta_min, beta_max].

    The paper's clip leaves alpha_bar = 0.0032 at the last step, which holds 6 % of x_0's amplitude; a `beta_max` of
    0.999 leaves none.

    >>> schedule = cosine_schedule()
    >>> schedule.steps, round(float(schedule.alpha_bar[-1]), 4)
    (1000, 0.0032)
    """
    offset = 0.008
    x = torch.arange(steps + 1, dtype=torch.float64, device="cpu") / steps  # even where weights are made on "meta"
    alpha_bar = torch.cos((x + offset) / (1 + offset) * math.pi / 2).square()
    return Schedule((1 - alpha_bar[1:] / alpha_bar[:-1]).clip(beta_min, beta_max))
