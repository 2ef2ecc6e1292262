"""What a method is: stages of objectives, a prediction, and the registry of names.

The trainer knows nothing more than this file. A U-Net is one stage with one objective; a GAN is one stage with two;
PDS is a diffusion stage, then a regression in closed form; a control has no stage at all.
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
from pdsynth.types import Direction, Modality

Loss = Callable[[PairBatch, torch.Generator], dict[str, Tensor]]
Settings = Mapping[str, Any]  # of a method's configuration, by name


@dataclass
class Objective:
    """A module and the loss that trains it: `loss` returns named terms, whose sum is minimised."""

    name: str
    module: nn.Module
    loss: Loss
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4


@dataclass
class Stage:
    """A part of training: its objectives share batches of `batch_size` patches of `patch` voxels.

    `share` is this stage's part of the run's budget. `prepare` runs once before the stage and returns the rows to train
    on: it caches the drafts of an earlier stage, for instance, so that nothing is sampled inside the training loop.
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
    """What every method needs to be rebuilt from JSON: the grid of its volumes. Methods extend it."""

    grid_shape: tuple[int, int, int] = (48, 56, 48)


class Method(nn.Module, ABC):
    """A synthesis method for both directions.

    Parameters are trained by `stages`; state fitted in closed form on the training participants lives in buffers, so
    that one safetensors file holds all of a method. Diagnosis labels never reach it: a batch carries none.
    """

    name: ClassVar[str]
    config_type: ClassVar[type[MethodConfig]] = MethodConfig
    generative: ClassVar[bool] = False
    blind: ClassVar[bool] = False  # whether the prediction is the same whatever the source
    regional: ClassVar[bool] = False  # whether `fit` reads the atlases A_f and A_d
    tiny: ClassVar[Settings] = {}  # settings that make it as small as it can be, for the conformance tests
    sd_scale: Tensor

    def __init__(self, config: MethodConfig) -> None:
        super().__init__()
        self.config = config
        self.atlases: dict[Modality, Atlas] = {}  # on the training grid; they replace the default in `regions`
        self.register_buffer("sd_scale", torch.ones(len(Direction)))  # in the order of Direction; set by `calibrate`

    def fit(self, train: Pairs, generator: torch.Generator) -> None:
        """Closed-form state (means, templates, regressions) from the training participants.

        It is a function of these participants and the generator alone: nothing of an earlier fit is left.
        """

    def regions(self, grid: Grid) -> dict[Modality, Atlas]:
        """A_f and A_d on a grid: those set in `atlases`, else Dosenbach-160 spheres of three networks."""
        return {m: self.atlases[m] if m in self.atlases else network_spheres(grid) for m in Modality}

    def default_steps(self, rows: int) -> int | None:
        """Steps of a full training on so many rows, where the method counts epochs; None: the recipe's number."""
        return None

    def stages(self) -> list[Stage]:
        """Gradient training, in order. Empty for a method of closed forms alone."""
        return []

    def complete(self, train: Pairs) -> None:
        """Closed-form state that rests on the trained networks, after all stages."""

    @abstractmethod
    def predict(self, batch: PairBatch, direction: Direction) -> Tensor:
        """The best single estimate of the target, (B, 1, X, Y, Z) in [0, 1], from whole source volumes."""

    def estimate(self, batch: PairBatch, direction: Direction) -> tuple[Tensor, Tensor | None]:
        """The prediction, and the SD of the target around it, (B, 1, X, Y, Z), where the method states one."""
        mean, sd = self.stated(batch, direction)
        return mean, None if sd is None else sd * self.sd_scale[direction.index]

    def stated(self, batch: PairBatch, direction: Direction) -> tuple[Tensor, Tensor | None]:
        """The same before any calibration."""
        return self.predict(batch, direction), None

    @final
    def sample(self, batch: PairBatch, direction: Direction, generator: torch.Generator, steps: int) -> Tensor:
        """One draw from the method's distribution of targets per session, (B, 1, X, Y, Z) in [0, 1].

        The generator gives one seed per call. From it and the content of each session's source volume, `own_generator`
        makes the generator of that session's noise. So two people have different noise, and a session has the same
        draw, to the byte, alone and in any batch. A method implements `draw`. steps: network
        evaluations per draw. Raises TypeError where the method is not `generative`.
        """
        seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
        each = [batch.only(i) for i in range(len(batch))]
        return torch.cat(
            [self.draw(one, direction, own_generator(one.sources[direction].volume, seed), steps) for one in each]
        )

    def draw(self, batch: PairBatch, direction: Direction, generator: torch.Generator, steps: int) -> Tensor:
        """One draw for the one session of the batch, (1, 1, X, Y, Z) in [0, 1]; all its noise is the generator's."""
        raise TypeError(f"{self.name} gives no samples: its prediction is a single estimate.")

    def feature_loss(self) -> FeatureLoss | None:
        """The loss on features of a frozen network that training uses, where it uses one."""
        return None

    def notes(self) -> dict[str, str]:
        """What the model's card must say of the method beside its settings: whose features its loss compared."""
        loss = self.feature_loss()
        return {} if loss is None else {"loss_features": loss.features.source}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Load parameters and buffers; fitted buffers take the shapes that were saved."""
        state = {"sd_scale": self.sd_scale} | state  # not in models of before calibration
        for name, buffer in self.named_buffers():
            if name in state:
                owner, _, leaf = name.rpartition(".")
                setattr(self.get_submodule(owner), leaf, state[name].to(buffer.dtype, copy=True))
        self.load_state_dict(state)


def own_generator(volume: Tensor, seed: int) -> torch.Generator:
    """The generator of one scan's noise, on the volume's device, seeded by the volume's content and a seed below 2^63.

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
    """Class decorator that makes a method known under its name. Raises ValueError where another one has the name."""
    if method.name in _REGISTERED:
        raise ValueError(f"two methods are named {method.name!r}")
    _REGISTERED[method.name] = method
    return method


@cache
def registry() -> Mapping[str, type[Method]]:
    """Every method by name. The first call imports all modules of `pdsynth.methods`."""
    modules_of("pdsynth.methods")
    return _REGISTERED


def create(name: str, config: dict[str, Any]) -> Method:
    """A fresh method by name, its configuration given as JSON values.

    Raises KeyError with the known names where there is no such method, TypeError for an unknown setting.
    """
    if name not in registry():
        raise KeyError(f"no method {name!r}; there are {', '.join(sorted(registry()))}")
    method = registry()[name]
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in config.items()}
    return method(method.config_type(**values))
