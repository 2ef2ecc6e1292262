"""The reverse process (Eqs. 7-8) as functions without state: DDIM with few steps, DDPM with all steps."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pdsynth.diffusion.schedule import Schedule

Denoise = Callable[[Tensor, Tensor], Tensor]
"""Estimates x_0 (B, ...) from x_t (B, ...) and the diffusion steps t (B,). A closure passes the source volume."""


def step_numbers(total: int, steps: int) -> list[int]:
    """The diffusion steps t at which a sampler evaluates the network, evenly spaced downwards from total - 1.

    This is the "trailing" spacing (Lin et al. 2024). total: number T of diffusion steps. steps: number of sampling
    steps. Raises ValueError if steps is not in 1..total.

    >>> step_numbers(1000, 4)
    [999, 749, 499, 249]
    """
    if not 1 <= steps <= total:
        raise ValueError(f"cannot take {steps} sampling steps of a process of {total}. Choose 1 to {total}.")
    return [round(total - i * total / steps) - 1 for i in range(steps)]


def ddim(
    denoise: Denoise,
    x_T: Tensor,
    schedule: Schedule,
    steps: int,
    eta: float = 0.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Sample x_0 from noise x_T (B, ...) by DDIM, in `steps` evaluations of the network.

    denoise(x_t, t) estimates x_0 (B, ...) from x_t (B, ...) at the diffusion steps t (B,). schedule: amounts of signal
    and noise at each diffusion step. With eta = 0 the result is a deterministic function of x_T. With eta = 1 every
    sampling step but the last adds as much noise as in DDPM. The noise is drawn from `generator`; None is torch's
    global one. Raises ValueError if steps is not in 1..T, where T is the number of steps of the schedule. Source: Song
    et al. 2021, Eqs. 12 and 16.
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
    """Sample x_0 from noise x_T (B, ...) by DDPM, over all T steps of the schedule (Ho et al. 2020, Eqs. 6-7).

    denoise(x_t, t) estimates x_0 (B, ...) from x_t (B, ...) at the diffusion steps t (B,). schedule: amounts of signal
    and noise at each diffusion step. generator: source of the noise that each step but the last adds; None is torch's
    global one.
    """
    x_t = x_T
    for number in reversed(range(schedule.steps)):
        t = torch.full((len(x_t),), number, device=x_t.device)
        x_t = step_back(x_t, t, denoise(x_t, t), schedule, _normal(x_t, generator) if number else x_t)
    return x_t


def step_back(x_t: Tensor, t: Tensor, x_0: Tensor, schedule: Schedule, z: Tensor) -> Tensor:
    """One reverse step of diffusion: a sample of q(x_{t-1} | x_t, x_0), made from standard normal z.

    x_t, x_0 and z are (B, ...), the diffusion step t is (B,). schedule: amounts of signal and noise at each step. Where
    t = 0 the result is x_0, and z is not used. Source: Ho et al. 2020, Eqs. 6-7.
    """
    shape = (-1, *[1] * (x_t.ndim - 1))
    beta = schedule.beta[t].to(x_t.dtype).view(shape)
    _, noise = schedule.levels(t, x_t)
    signal_before, noise_before = schedule.levels((t - 1).clamp_min(0), x_t)
    sample = (
        signal_before * beta / noise**2 * x_0
        + (1 - beta).sqrt() * (noise_before / noise) ** 2 * x_t
        + beta.sqrt() * noise_before / noise * z
    )
    return torch.where((t == 0).view(shape), x_0, sample)


def _normal(like: Tensor, generator: torch.Generator | None) -> Tensor:
    # randn_like takes no generator
    return torch.randn(like.shape, generator=generator, device=like.device, dtype=like.dtype)
