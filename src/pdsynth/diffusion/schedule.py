"""The forward process: the amounts of signal and noise in x_t at each step (Eqs. 1-6)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pdsynth.draws import Draws


class Schedule(nn.Module):
    """The amounts of signal and noise at each of T diffusion steps, from t = 0 (almost clean) to T - 1 (almost noise).

    x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps, where alpha_bar_t is the product of 1 - beta from step 0 to
    t, and eps is standard normal noise (Ho et al. 2020, Eq. 4). beta (T,) is the variance of the noise that each step
    adds. signal (T,) is sqrt(alpha_bar), noise (T,) is sqrt(1 - alpha_bar). The class is a module so that these tables
    move with the model to a device; they are not saved. Methods that take a step t (B,) have one step per item of a
    batch (B, ...). Raises ValueError if a beta is outside (0, 1).
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
        # double precision up to here: in float32, 1 - alpha_bar of the first steps would have 3 digits left
        tables = {"beta": beta, "alpha_bar": alpha_bar, "signal": alpha_bar.sqrt(), "noise": (1 - alpha_bar).sqrt()}
        for name, table in tables.items():
            self.register_buffer(name, table.float(), persistent=False)

    @property
    def steps(self) -> int:
        """The number of steps T."""
        return len(self.beta)

    def levels(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """sqrt(alpha_bar_t) and sqrt(1 - alpha_bar_t) at the steps t (B,), shaped (B, 1, ...) to broadcast to `like`.

        like: a tensor (B, ...), of which the results also have the data type.
        """
        shape = (-1, *[1] * (like.ndim - 1))
        return self.signal[t].to(like.dtype).view(shape), self.noise[t].to(like.dtype).view(shape)

    def add_noise(self, x_0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """x_t (B, ...) from x_0 (B, ...) and standard normal noise eps (B, ...) at the diffusion steps t (B,)."""
        signal, noise = self.levels(t, x_0)
        return signal * x_0 + noise * eps

    def noised(self, x_0: Tensor, draws: Draws) -> tuple[Tensor, Tensor, Tensor]:
        """A training sample of the denoiser: x_t of x_0 (B, ...), the random steps t (B,), and the noise eps (B, ...).

        t is uniform over all T steps, one per item of the batch.
        """
        t, eps = draws.integers(self.steps, len(x_0)), draws.normal(x_0)
        return self.add_noise(x_0, t, eps), t, eps

    def eps_from_x0(self, x_t: Tensor, t: Tensor, x_0: Tensor) -> Tensor:
        """The noise eps (B, ...) with which x_0 (B, ...) became x_t (B, ...) at the diffusion steps t (B,).

        The inverse of `add_noise`, solved for eps.
        """
        signal, noise = self.levels(t, x_t)
        return (x_t - signal * x_0) / noise

    def x0_from_eps(self, x_t: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """The x_0 (B, ...) that became x_t (B, ...) with the noise eps (B, ...) at the diffusion steps t (B,).

        The inverse of `add_noise`, solved for x_0.
        """
        signal, noise = self.levels(t, x_t)
        return (x_t - noise * eps) / signal


def cosine_schedule(steps: int = 1000, beta_min: float = 1e-4, beta_max: float = 0.02) -> Schedule:
    """The cosine schedule (Nichol & Dhariwal 2021, Eq. 17) with beta clipped to [beta_min, beta_max].

    steps: number T of diffusion steps. With the paper's clip (the defaults), alpha_bar is 0.0032 at the last step of
    1000, so that x_T still contains 6 % of the amplitude of x_0. With beta_max = 0.999 it contains almost nothing.

    >>> schedule = cosine_schedule()
    >>> schedule.steps, round(float(schedule.alpha_bar[-1]), 4)
    (1000, 0.0032)
    """
    offset = 0.008
    x = torch.arange(steps + 1, dtype=torch.float64, device="cpu") / steps  # also when weights are created on "meta"
    alpha_bar = torch.cos((x + offset) / (1 + offset) * math.pi / 2).square()
    return Schedule((1 - alpha_bar[1:] / alpha_bar[:-1]).clip(beta_min, beta_max))
