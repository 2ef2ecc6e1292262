"""Exponential moving average of a module's trained parameters."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class EMA:
    """Exponential moving averages of the trainable parameters of `module`, without buffers and frozen parameters.

    An update makes an average d * average + (1 - d) * parameter. After n updates, d = min(decay, (1 + n) / (10 + n)),
    so that the initial weights, with which the averages start, soon lose their influence. torch's AveragedModel is not
    used: it also copies frozen networks and buffers, and starts with the weights after the first step. Raises
    ValueError for a decay outside [0, 1).
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"EMA decay is {decay}. Give a number in [0, 1), such as 0.996.")
        self.decay, self.updates = decay, 0
        self.parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self.averages = {name: p.detach().clone() for name, p in self.parameters.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Move the averages towards the current parameters; to be called after each optimiser step."""
        if not self.parameters:
            return
        self._follow_device()
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(list(self.averages.values()), list(self.parameters.values()), 1 - decay)
        self.updates += 1

    @torch.no_grad()
    def copy_to_module(self) -> None:
        """Replace the module's trainable parameters by their averages, which stay as they are."""
        for name, parameter in self.parameters.items():
            parameter.copy_(self.averages[name])

    def state_dict(self) -> dict[str, Any]:
        """Number of updates, and a copy of the averages by parameter name, which later updates do not change."""
        return {"updates": self.updates, "averages": {name: a.clone() for name, a in self.averages.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state that `state_dict` returned. Raises ValueError if its names are not those of this module."""
        averages: dict[str, Tensor] = state["averages"]
        if averages.keys() != self.averages.keys():
            names = sorted(averages.keys() ^ self.averages.keys())
            raise ValueError(f"EMA state and module differ in {', '.join(names[:3])}. Load the state of this model.")
        self.updates = state["updates"]
        for name, average in averages.items():
            self.averages[name].copy_(average)

    def _follow_device(self) -> None:
        # the trainer moves the module to its device after this object was constructed
        for name, parameter in self.parameters.items():
            if self.averages[name].device != parameter.device:
                self.averages[name] = self.averages[name].to(parameter.device)
