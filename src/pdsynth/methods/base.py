"""The interface of a synthesis method (training stages, prediction, sampling), and the registry of methods by name.

The trainer depends on nothing else. A U-Net has one stage with one objective, a GAN one stage with two. PDS has a
diffusion stage, followed by a regression in closed form. A control has no stage.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn

from pdsynth.atlas import Atlas, network_spheres
from pdsynth.data.batch import PairBatch
from pdsynth.data.pairs import Pairs
from pdsynth.discovery import modules_of
from pdsynth.imaging.spatial import Grid
from pdsynth.losses.microstructure import FeatureLoss
from pdsynth.methods.correction import corrected, no_correction
from pdsynth.types import Direction, Modality

Loss = Callable[[PairBatch, torch.Generator], dict[str, Tensor]]
ADDED = ("sd_scale", "correction")  # buffers that models of earlier versions lack
Settings = Mapping[str, Any]  # settings of a method's configuration, by name


@dataclass
class Objective:
    """A network to train, and the loss that trains it.

    name: that of the objective in the log. module: the network, of which all parameters are trained. loss(batch,
    generator) returns scalar terms by name; the optimiser minimises their sum. learning_rate and weight_decay are those
    of the optimiser.
    """

    name: str
    module: nn.Module
    loss: Loss
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4


@dataclass
class Stage:
    """A part of training, with one objective or more that share batches of `batch_size` patches.

    patch: voxels of a patch along each axis. The stage gets the fraction `share` / (sum of the shares of all stages) of
    the run's budget of steps or time. prepare(rows), if given, runs once before the stage and returns the rows to train
    on. It can cache the estimates of an earlier stage, so that the training loop need not compute them. ema_decay: that
    of the moving average of the weights; 0 means no averaging.
    """

    name: str
    objectives: list[Objective]
    patch: tuple[int, int, int]
    batch_size: int
    share: float = 1.0
    ema_decay: float = 0.996
    prepare: Callable[[Pairs], Pairs] | None = None


@dataclass
class MethodConfig:
    """The settings of a method, by which it is built again from JSON; each method adds settings to `grid_shape`.

    grid_shape: number of voxels of the volumes along each axis.
    """

    grid_shape: tuple[int, int, int] = (48, 56, 48)


class Method(nn.Module, ABC):
    """A synthesis method for both directions, fMRI to dMRI and dMRI to fMRI.

    Training minimises the losses of `stages` in turn. State that is fitted in closed form on the training participants
    is stored in buffers, so that one safetensors file holds the whole method. A method never sees a diagnosis: no batch
    contains it.

    name: by which the method is created. config_type: the class of its settings. generative: whether it can draw random
    samples of the target. blind: whether its prediction ignores the source. regional: whether `fit` reads the atlases
    of regions. tiny: settings of its smallest size, for tests. sd_scale (2,): calibration factors of its SD, for fMRI
    to dMRI and dMRI to fMRI.
    """

    name: ClassVar[str]
    config_type: ClassVar[type[MethodConfig]] = MethodConfig
    generative: ClassVar[bool] = False
    blind: ClassVar[bool] = False  # whether the prediction ignores the source
    regional: ClassVar[bool] = False  # whether `fit` reads the atlases A_f and A_d
    tiny: ClassVar[Settings] = {}  # settings of its smallest size, for the conformance tests
    sd_scale: Tensor
    correction: Tensor

    def __init__(self, config: MethodConfig) -> None:
        super().__init__()
        self.config = config
        self.atlases: dict[Modality, Atlas] = {}  # on the training grid; each replaces the default in `regions`
        # calibration factors of the SD, in the order of Direction; `calibrate` sets them
        self.register_buffer("sd_scale", torch.ones(len(Direction)))
        self.register_buffer("correction", no_correction())  # for a new scanner; `adapt` sets it

    def fit(self, train: Pairs, generator: torch.Generator) -> None:
        """Fit the closed-form state (means, templates, regressions) on the training participants.

        The state depends on these participants and the generator only; an earlier fit has no effect on it. train: rows
        that have both scans. By default there is nothing to fit.
        """

    def regions(self, grid: Grid) -> dict[Modality, Atlas]:
        """The atlases of regions on a grid by modality: A_f of fMRI and A_d of dMRI in the paper.

        An atlas that the user gave for training, in `atlases`, takes precedence; the default is the Dosenbach-160
        spheres of three networks.
        """
        return {m: self.atlases[m] if m in self.atlases else network_spheres(grid) for m in Modality}

    def default_steps(self, rows: int) -> int | None:
        """Number of optimiser steps of a full training on `rows` training rows, for a method that counts epochs.

        None means that the recipe (the named configuration) gives the number.
        """
        return None

    def stages(self) -> list[Stage]:
        """The stages of gradient training, in order; empty if everything is fitted in closed form."""
        return []

    def complete(self, train: Pairs) -> None:
        """Fit the closed-form state that depends on the trained networks; called after all stages."""

    @abstractmethod
    def predict(self, batch: PairBatch, direction: Direction) -> Tensor:
        """Estimate the target of each session of a batch: (B, 1, X, Y, Z) in [0, 1].

        The batch holds whole volumes, not patches.
        """

    def estimate(self, batch: PairBatch, direction: Direction) -> tuple[Tensor, Tensor | None]:
        """The corrected prediction and its calibrated SD, (B, 1, X, Y, Z) each; the SD is None if there is none.

        The SD is the method's own, times a calibration factor per direction (`sd_scale`), which is 1 before `pdsynth
        calibrate`. The prediction is corrected if `pdsynth adapt` has fitted a correction for a new scanner.
        """
        mean, sd = self.predict_with_sd(batch, direction)
        mean = corrected(mean, batch.sources[direction], self.correction[direction.index])
        return mean, None if sd is None else sd * self.sd_scale[direction.index]

    def predict_with_sd(self, batch: PairBatch, direction: Direction) -> tuple[Tensor, Tensor | None]:
        """The prediction and the method's own SD per voxel, (B, 1, X, Y, Z) each, without the calibration factor.

        The SD is None if the method gives none.
        """
        return self.predict(batch, direction), None

    @final
    def sample(self, batch: PairBatch, direction: Direction, generator: torch.Generator, steps: int) -> Tensor:
        """One sample per session from the distribution of its target given its source, (B, 1, X, Y, Z) in [0, 1].

        Each call takes one seed from the generator, so that a second call gives other samples. That seed and the
        content of a session's source volume determine the session's noise. Participants therefore have different noise,
        and the sample of a session is equal, to the byte, alone and in any batch. steps: number of sampling steps; a
        method with a fixed number ignores it. Methods implement `draw`, not this function. Raises TypeError if the
        method gives no samples (`generative` is false).
        """
        seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
        each = [batch.only(i) for i in range(len(batch))]
        drawn = torch.cat(
            [self.draw(one, direction, own_generator(one.sources[direction].volume, seed), steps) for one in each]
        )
        return corrected(drawn, batch.sources[direction], self.correction[direction.index])

    def draw(self, batch: PairBatch, direction: Direction, generator: torch.Generator, steps: int) -> Tensor:
        """One sample for a batch of one session, (1, 1, X, Y, Z) in [0, 1]; all noise comes from the generator.

        steps: number of sampling steps; a method with a fixed number ignores it. Raises TypeError if the method gives
        no samples (`generative` is false).
        """
        raise TypeError(f"{self.name} gives no samples: its prediction is a single estimate.")

    def feature_loss(self) -> FeatureLoss | None:
        """The loss on features of a frozen network that training uses; None if it uses no such loss."""
        return None

    def notes(self) -> dict[str, str]:
        """Facts by name that a method adds to the record of its training, in config.json.

        By default the only one is the network whose features the training loss compared, if there is such a loss.
        """
        loss = self.feature_loss()
        return {} if loss is None else {"loss_features": loss.features.source}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Load parameters and buffers by name. Buffers that a fit has filled take their saved shapes.

        Without `sd_scale` or `correction`, which earlier models lack, these stay. Raises RuntimeError if another tensor
        is missing or unknown, or if a parameter has another shape.
        """
        state = {name: getattr(self, name) for name in ADDED} | state
        for name, buffer in self.named_buffers():
            if name in state:
                owner, _, leaf = name.rpartition(".")
                setattr(self.get_submodule(owner), leaf, state[name].to(buffer.dtype, copy=True))
        self.load_state_dict(state)


def own_generator(volume: Tensor, seed: int) -> torch.Generator:
    """Random generator for the noise of one scan, seeded by the content of its volume and by a seed below 2^63.

    The generator is on the volume's device.

    >>> scan, other = torch.zeros(1, 1, 2, 2, 2), torch.ones(1, 1, 2, 2, 2)
    >>> first, again = (own_generator(scan, 0).initial_seed() for _ in range(2))
    >>> first == again, first == own_generator(other, 0).initial_seed(), first == own_generator(scan, 1).initial_seed()
    (True, False, False)
    """
    content = volume.detach().float().cpu().contiguous().numpy().tobytes()
    digest = sha256(seed.to_bytes(8, "little") + content).digest()
    return torch.Generator(volume.device).manual_seed(int.from_bytes(digest[:8], "little"))


_REGISTERED: dict[str, type[Method]] = {}


def register(method: type[Method]) -> type[Method]:
    """Class decorator that adds a method to the registry. Raises ValueError if another method has the same name."""
    if method.name in _REGISTERED:
        raise ValueError(f"two methods are named {method.name!r}")
    _REGISTERED[method.name] = method
    return method


@cache
def registry() -> Mapping[str, type[Method]]:
    """All methods by name. The first call imports all modules of `pdsynth.methods`."""
    modules_of("pdsynth.methods")
    return _REGISTERED


def create(name: str, config: dict[str, Any]) -> Method:
    """Make an untrained method by name. config: its settings as JSON values; the others have their defaults.

    Raises KeyError, with the known names, if there is no such method, and TypeError for an unknown setting.
    """
    if name not in registry():
        raise KeyError(f"no method {name!r}; there are {', '.join(sorted(registry()))}")
    method = registry()[name]
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in config.items()}
    return method(method.config_type(**values))
