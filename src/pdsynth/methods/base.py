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
from pdsynth.data.batch import PairBatch, mirrored
from pdsynth.data.pairs import Pairs
from pdsynth.discovery import modules_of
from pdsynth.draws import Draws
from pdsynth.imaging.spatial import Grid
from pdsynth.losses.microstructure import FeatureLoss
from pdsynth.methods.correction import corrected, no_correction, no_places, no_source, no_trees
from pdsynth.methods.detail import DetailNetworks
from pdsynth.types import Direction, Modality

Loss = Callable[[PairBatch, Draws], dict[str, Tensor]]
FIXED = ("grid_shape", "detail_directions")  # settings that no recipe chooses
# buffers that models of earlier versions lack
ADDED = (
    "sd_scale", "correction", "correction_places", "correction_local", "correction_trees", "correction_source",
    "correction_mirror",
)  # fmt: skip
Settings = Mapping[str, Any]  # settings of a method's configuration, by name


@dataclass
class Objective:
    """A network to train, and the loss that trains it.

    name: that of the objective in the log. module: the network, of which all parameters that require a gradient are
    trained. loss(batch, draws) returns scalar terms by name, for a part of a batch of training patches; draws gives all
    random numbers. The mean of a term over equal parts is that of the whole batch. The optimiser, AdamW, minimises the
    sum of the terms. learning_rate and weight_decay are those of the optimiser; warm-up and decay multiply the
    learning rate by a factor of up to 1.
    """

    name: str
    module: nn.Module
    loss: Loss
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4


@dataclass
class Stage:
    """A part of training, with one objective or more that share batches of `batch_size` patches.

    name: that of the stage in the log and in the name of its checkpoint. objectives: networks with their losses; each
    training step optimises them in this order, all with the same batch. patch: voxels of a patch along each axis. The
    stage gets the fraction `share` / (sum of the shares of all stages) of the run's budget of steps or time.
    prepare(rows), if given, runs before the stage starts or is resumed and returns the rows to train on. It can cache
    the estimates of an earlier stage, so that the training loop need not compute them. ema_decay: that of the moving
    average of the weights, which replaces the weights at the end of the stage; 0 means no averaging.
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
    """The settings of a method, from which it is built; a saved model holds them as JSON.

    grid_shape: number of voxels of the volumes along each axis. detail_directions: directions of synthesis, such as
    "fmri_to_dmri", with a network that adds detail at 2 mm (`DetailNetworks`). Each method adds its own settings;
    recipes choose only these.
    """

    grid_shape: tuple[int, int, int] = (48, 56, 48)
    detail_directions: tuple[str, ...] = ()


class Method(nn.Module, ABC):
    """A synthesis method for both directions, fMRI to dMRI and dMRI to fMRI.

    Training minimises the losses of `stages` in turn. State that is fitted in closed form on the training participants
    is stored in buffers, so that one safetensors file holds the whole method. A method never sees a diagnosis: no batch
    contains it.

    Attributes of the class. name: by which the method is created. config_type: the class of its settings. generative:
    whether it can draw random samples of the target. blind: whether its prediction ignores the source. regional:
    whether `fit` reads the atlases of regions. tiny: settings of its smallest size, for tests.

    Attributes of an object. config: its settings. atlases: by modality, those that replace the default in `regions`.
    sd_scale (2,): calibration factors of its SD; correction (2, 11): weights of a correction for a new scanner, 0 for
    none; correction_mirror (2,): whether the estimates of a scan and of its mirror image are averaged; all for fMRI to
    dMRI and dMRI to fMRI.
    """

    name: ClassVar[str]
    config_type: ClassVar[type[MethodConfig]] = MethodConfig
    generative: ClassVar[bool] = False
    blind: ClassVar[bool] = False  # whether the prediction ignores the source
    regional: ClassVar[bool] = False  # whether `fit` reads the atlases A_f and A_d
    tiny: ClassVar[Settings] = {}  # settings of its smallest size, for the conformance tests
    sd_scale: Tensor
    correction: Tensor  # (2, COLUMNS): weights of the correction for all voxels, in the order of Direction
    correction_places: Tensor  # (V,) int32: flat indices of voxels with weights of their own
    correction_local: Tensor  # (2, LOCAL_COLUMNS, V) fp16: these weights, which are added
    correction_trees: Tensor  # (2, trees, nodes, NODE): trees that correct the result, zeros for none
    correction_source: Tensor  # (2, X, Y, Z) fp16: mean source scans, from which trees take the difference of a source
    correction_mirror: Tensor  # (2,) bool: whether estimates of a scan and of its mirror image are averaged before

    def __init__(self, config: MethodConfig) -> None:
        super().__init__()
        self.config = config
        self.atlases: dict[Modality, Atlas] = {}  # on the training grid; each replaces the default in `regions`
        # calibration factors of the SD, in the order of Direction; `calibrate` sets them
        self.register_buffer("sd_scale", torch.ones(len(Direction)))
        # the correction for a new scanner; `adapt` sets it
        places, local = no_places()
        self.register_buffer("correction", no_correction())
        self.register_buffer("correction_places", places)
        self.register_buffer("correction_local", local)
        self.register_buffer("correction_trees", no_trees())
        self.register_buffer("correction_source", no_source())
        self.register_buffer("correction_mirror", torch.zeros(len(Direction), dtype=torch.bool))
        # trained on its own, after the method
        self.detail = DetailNetworks(config.detail_directions) if config.detail_directions else None

    def fit(self, train: Pairs, generator: torch.Generator) -> None:
        """Fit the closed-form state (means, templates, regressions) on the training participants.

        train: rows that have both scans. The state depends on these rows, the settings, the atlases and the generator
        only; an earlier fit has no effect on it. By default there is nothing to fit.
        """

    def regions(self, grid: Grid) -> dict[Modality, Atlas]:
        """The atlases of regions on a grid by modality: A_f of fMRI and A_d of dMRI in the paper.

        An atlas that the user gave for training, in `atlases`, takes precedence. It is returned as it is, on the grid
        of the training pairs. The default is the Dosenbach-160 spheres of three networks, on the given grid.
        """
        return {m: self.atlases[m] if m in self.atlases else network_spheres(grid) for m in Modality}

    def default_steps(self, rows: int) -> int | None:
        """Number of training steps, over all stages, of a full training; None for a method that does not count epochs.

        rows: number of training rows, whole scans and segments. If the result is None, the recipe (the named
        configuration) gives the number.
        """
        return None

    def stages(self) -> list[Stage]:
        """The stages of gradient training, in order; empty if everything is fitted in closed form."""
        return []

    def complete(self, train: Pairs) -> None:
        """Fit the closed-form state that depends on the trained networks; called after all stages.

        train: the training rows, with both scans. By default there is nothing to fit.
        """

    @abstractmethod
    def predict(self, batch: PairBatch, direction: Direction) -> Tensor:
        """Estimate the target of each session of a batch: (B, 1, X, Y, Z) in [0, 1].

        The batch holds whole volumes, not patches. A correction for a new scanner is not applied (see `estimate`).
        """

    def estimate(self, batch: PairBatch, direction: Direction) -> tuple[Tensor, Tensor | None]:
        """The corrected prediction and its calibrated SD, (B, 1, X, Y, Z) each; the SD is None if there is none.

        The prediction is corrected if `pdsynth adapt` has fitted a correction for a new scanner; this leaves the SD as
        it is. If it was fitted to single scans, the predictions of the source and of its mirror image (mirrored back)
        are averaged before the correction. The SD is the method's own, times a calibration factor per direction
        (`sd_scale`), which is 1 before `pdsynth calibrate`.
        """
        mean, sd = self.predict_with_sd(batch, direction)
        if self.correction_mirror[direction.index]:
            mean = (mean + mirrored(self.predict_with_sd(batch.map(mirrored), direction)[0])) / 2
        return self._corrected(mean, batch, direction), None if sd is None else sd * self.sd_scale[direction.index]

    def predict_with_sd(self, batch: PairBatch, direction: Direction) -> tuple[Tensor, Tensor | None]:
        """The prediction and the method's own SD per voxel, (B, 1, X, Y, Z) each, in the unit of the volumes (0 to 1).

        The SD is None if the method gives none. Neither calibration of the SD nor correction for a new scanner is
        applied.
        """
        return self.predict(batch, direction), None

    @final
    def sample(self, batch: PairBatch, direction: Direction, generator: torch.Generator, steps: int) -> Tensor:
        """One random sample per session of its target, given its source, (B, 1, X, Y, Z) in [0, 1].

        Each call takes one seed from the generator, so that a second call gives other samples. That seed and the
        content of a session's source volume determine the session's noise. Participants therefore have different noise,
        and for the same seed the sample of a session is equal, to the byte, alone and in any batch. If `pdsynth adapt`
        has fitted a correction for a new scanner, it is applied. steps: number of sampling steps; a method with a fixed
        number ignores it. Methods implement `draw`, not this function. Raises TypeError if the method gives no samples
        (`generative` is false), and ValueError for fewer steps than 1 or more than the method's diffusion has.
        """
        return self._corrected(self._drawn(batch, direction, generator, steps), batch, direction)

    @final
    def first_sample(self, batch: PairBatch, direction: Direction, steps: int) -> Tensor:
        """The sample of seed 0, (B, 1, X, Y, Z) in [0, 1], as the prediction of a method that has no other estimate.

        steps: number of sampling steps. A correction for a new scanner is not applied, since `estimate` applies it to
        every prediction.
        """
        return self._drawn(batch, direction, torch.Generator(batch.corner.device).manual_seed(0), steps)

    def _drawn(self, batch: PairBatch, direction: Direction, generator: torch.Generator, steps: int) -> Tensor:
        """One sample per session without correction, by `draw`, with noise of the session's own."""
        seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
        each = [batch.only(i) for i in range(len(batch))]
        return torch.cat(
            [self.draw(one, direction, own_generator(one.sources[direction].volume, seed), steps) for one in each]
        )

    def _corrected(self, volume: Tensor, batch: PairBatch, direction: Direction) -> Tensor:
        d = direction.index
        local, trees, mean = self.correction_local[d], self.correction_trees[d], self.correction_source[d]
        source, places = batch.sources[direction], self.correction_places
        return corrected(volume, source, self.correction[d], places, local, trees, mean)

    def uncorrect(self) -> None:
        """Remove the correction for a new scanner."""
        device = self.correction.device
        self.correction = no_correction().to(device)
        self.correction_places, self.correction_local = (each.to(device) for each in no_places())
        self.correction_trees, self.correction_source = no_trees().to(device), no_source().to(device)
        self.correction_mirror = torch.zeros(len(Direction), dtype=torch.bool, device=device)

    def draw(self, batch: PairBatch, direction: Direction, generator: torch.Generator, steps: int) -> Tensor:
        """One sample for a batch of one session, (1, 1, X, Y, Z) in [0, 1]; all noise comes from the generator.

        A correction for a new scanner is not applied (see `sample`). steps: number of sampling steps; a method with a
        fixed number ignores it. Raises TypeError if the method gives no samples (`generative` is false).
        """
        raise TypeError(f"{self.name} gives no samples: its prediction is a single estimate.")

    def feature_loss(self) -> FeatureLoss | None:
        """The loss on features of a frozen network that training uses; None if it uses no such loss."""
        return None

    def notes(self) -> dict[str, str]:
        """Facts by name that a method adds to the record of its training, in config.json.

        By default, this is "loss_features", the name of the network whose features the training loss compares; nothing
        if there is no such loss.
        """
        loss = self.feature_loss()
        return {} if loss is None else {"loss_features": loss.features.source}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Load parameters and buffers by name, in the number types of this method.

        Buffers take the saved shapes, since a fit may change them. Those of ADDED, which earlier models lack, stay as
        they are without a saved one. Raises RuntimeError if another tensor is missing or unknown, or if a parameter has
        another shape.
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
    """The classes of all methods by name. The first call imports all modules of `pdsynth.methods`."""
    modules_of("pdsynth.methods")
    return _REGISTERED


def create(name: str, config: dict[str, Any]) -> Method:
    """Make an untrained method by name; its first weights come from torch's global random generator.

    config: its settings as JSON values; the others have their defaults. Raises KeyError, with the known names, if there
    is no such method, and TypeError for an unknown setting.
    """
    if name not in registry():
        raise KeyError(f"no method {name!r}; there are {', '.join(sorted(registry()))}")
    method = registry()[name]
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in config.items()}
    return method(method.config_type(**values))
