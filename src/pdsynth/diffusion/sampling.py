"""The reverse process as pure loops (Eqs. 7-8): DDIM in few steps, and DDPM in all of them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pdsynth.diffusion.schedule import Schedule

Denoise = Callable[[Tensor, Tensor], Tensor]
"""x_0-hat (B, ...) from x_t (B, ...) and t (B,); the source is the caller's, in a closure."""


def step_numbers(total: int, steps: int) -> list[int]:
    """The t of each sampling step, evenly spaced from the last one down ("trailing", Lin et al. 2024).

    Raises ValueError where steps is not within 1 and total.

    >>> step_numbers(1000, 4)
    [999, 749, 499, 249]
    """
    if not 1 <= steps <= total:
        raise ValueError(f"{steps} sampling steps of a process of {total}. Ask for 1 to {total}.")
    return [round(total - i * total / steps) - 1 for i in range(steps)]


def ddim(
    denoise: Denoise,
    x_T: Tensor,
    schedule: Schedule,
    steps: int,
    eta: float = 0.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """x_0 from noise x_T (B, ...) in `steps` evaluations (Song et al. 2021, Eqs. 12 and 16).

    eta = 0 is deterministic; eta = 1 adds as much noise as DDPM does, drawn from `generator`.
    """
    x_t = x_T
    numbers = step_numbers(schedule.steps, steps)
    for number, previous in zip(numbers, [*numbers[1:], None], strict=True):
        t = torch.full((len(x_t),), number, device=x_t.device)
        x_0 = denoise(x_t, t)
        if previous is None:
            return x_0
        eps = schedule.eps_from_x0(x_t, t, x_0)
        signal, noise = schedule.signal[previous], schedule.noise[previous]
        # Eq. 16: sigma = eta sqrt((1 - a_prev) / (1 - a_t)) sqrt(1 - a_t / a_prev)
        sigma = eta * noise / schedule.noise[number] * (1 - (schedule.signal[number] / signal) ** 2).sqrt()
        x_t = signal * x_0 + (noise**2 - sigma**2).sqrt() * eps
        if eta > 0:
            x_t = x_t + sigma * _normal(x_t, generator)
    return x_t


def ddpm(denoise: Denoise, x_T: Tensor, schedule: Schedule, generator: torch.Generator | None = None) -> Tensor:
    """x_0 from noise x_T (B, ...) by ancestral sampling over all T steps (Ho et al. 2020, Eqs. 6-7)."""
    x_t = x_T
    for number in reversed(range(schedule.steps)):
        t = torch.full((len(x_t),), number, device=x_t.device)
        x_t = step_back(x_t, t, denoise(x_t, t), schedule, _normal(x_t, generator) if number else x_t)
    return x_t


def step_back(x_t: Tensor, t: Tensor, x_0: Tensor, schedule: Schedule, z: Tensor) -> Tensor:
    """x_{t-1} drawn from q(x_{t-1} | x_t, x_0) by standard normal z (Ho et al. 2020, Eqs. 6-7); x_0 where t = 0."""
    shape = (-1, *[1] * (x_t.ndim - 1))
    beta = schedule.beta[t].to(x_t.dtype).view(shape)
    _, noise = schedule.levels(t, x_t)
    signal_before, noise_before = schedule.levels((t - 1).clamp_min(0), x_t)
    drawn = (
        signal_before * beta / noise**2 * x_0
        + (1 - beta).sqrt() * (noise_before / noise) ** 2 * x_t
        + beta.sqrt() * noise_before / noise * z
    )
    return torch.where((t == 0).view(shape), x_0, drawn)


def _normal(like: Tensor, generator: torch.Generator | None) -> Tensor:
    # randn_like takes no generator
    return torch.randn(like.shape, generator=generator, device=like.device, dtype=like.dtype)
