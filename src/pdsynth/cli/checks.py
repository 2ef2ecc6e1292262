"""The checks of `pdsynth doctor`. Each check is a function that returns its finding, or raises if it fails."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from shutil import which

import numpy as np
import torch

from pdsynth import api
from pdsynth.data.batch import PairBatch, source_batch
from pdsynth.diffusion.schedule import cosine_schedule
from pdsynth.draws import Draws
from pdsynth.imaging.intensity import RobustScale
from pdsynth.imaging.nifti import Volume
from pdsynth.imaging.spatial import mni_grid
from pdsynth.imaging.template import tissue_template
from pdsynth.methods import create
from pdsynth.resources import resolve_device
from pdsynth.types import Direction
from pdsynth.workers import limited_threads

REINSTALL = "install pdsynth again, in a new virtual environment"
OVERFIT_STEPS = 60
OVERFIT_EDGE = 16  # voxels


@dataclass(frozen=True)
class Check:
    """Result of one check of the installation.

    name: of the check. ok: whether it passed. finding: its finding as text, or the message of the error if it failed.
    """

    name: str
    ok: bool
    finding: str


class FailedCheckError(Exception):
    """A check of the installation failed; the message is its finding, with the remedy."""


def run_checks(device: str) -> Iterator[Check]:
    """Run all checks of the installation, one after the other, and yield their results.

    device: "auto", "cpu" or "cuda". The seven checks have the names device, torchvision absent (which also passes if
    torchvision is installed, with a note), template, data range, schedule ends, one-batch overfit and shipped model. A
    check that fails does not stop the others.
    """
    checks: dict[str, Callable[[], str]] = {
        "device": lambda: _device(device),
        "torchvision absent": _torchvision,
        "template": _template,
        "data range": _data_range,
        "schedule ends": _schedule,
        "one-batch overfit": lambda: _overfit(resolve_device(device)),
        "shipped model": _shipped_model,
    }
    for name, check in checks.items():
        try:
            yield Check(name, True, check())
        except (FailedCheckError, ValueError) as error:  # these name their remedy
            yield Check(name, False, str(error))
        except Exception as error:  # any error is a finding
            yield Check(name, False, f"{type(error).__name__}: {error}. Remedy: {REINSTALL}.")


def _require(condition: bool, finding: str, remedy: str = REINSTALL) -> str:
    if not condition:
        raise FailedCheckError(f"{finding}. Remedy: {remedy}.")
    return finding


def _device(device: str) -> str:
    chosen = resolve_device(device)
    unused = chosen == "cpu" and device == "auto" and which("nvidia-smi") is not None
    note = "; this machine has an NVIDIA driver, but torch finds no CUDA device: install a CUDA build of torch"
    return f"{chosen}; torch {torch.__version__}, Python {platform.python_version()}{note if unused else ''}"


def _torchvision() -> str:
    found = find_spec("torchvision") is not None
    return "torchvision is installed; it must match the build of torch" if found else "absent; pdsynth does not need it"


def _template() -> str:
    brain = tissue_template(mni_grid(4.0))["brain"]
    litres = float((brain > 0.5).sum()) * 4**3 / 1e6
    return _require(1.2 < litres < 2.4, f"the MNI152 brain holds {litres:.2f} l")


def _data_range() -> str:
    grid = mni_grid(4.0)
    brain = tissue_template(grid)["brain"]
    volume = Volume(750 * brain, grid.affine)
    scaled = RobustScale.flat_median(volume, brain > 0.5).apply(volume.data)
    return _require(
        scaled.min() >= 0 and scaled.max() <= 1,
        f"a scan is scaled to {scaled.min():.2f}..{scaled.max():.2f}; it must stay inside 0..1",
    )


def _schedule() -> str:
    alpha_bar = cosine_schedule().alpha_bar
    first, last = float(alpha_bar[0]), float(alpha_bar[-1])
    return _require(
        first > 0.999 and last < 1e-2,
        f"the noise schedule keeps {first:.5f} of the signal at first and {last:.1e} at last; it must fall from 1 to 0",
    )


def _overfit(device: str) -> str:
    torch.manual_seed(0)
    batch = _toy_batch().to(device)
    shape = [OVERFIT_EDGE] * 3
    objective = create("unet", {"grid_shape": shape, "width": 16}).to(device).train().stages()[0].objectives[0]
    optimizer = torch.optim.AdamW(objective.module.parameters(), lr=3e-3)
    draws = Draws(torch.Generator(device).manual_seed(0))
    losses = []
    with limited_threads(1):  # on a busy machine, several threads wait for each other for a minute
        for _ in range(OVERFIT_STEPS):
            loss = torch.stack(list(objective.loss(batch, draws).values())).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
    finding = f"the loss fell from {losses[0]:.4f} to {losses[-1]:.4f}"
    return _require(losses[-1] < 0.2 * losses[0], finding, "give --device cpu, or install another build of torch")


def _toy_batch() -> PairBatch:
    """One pair of smooth volumes in both directions; dMRI is 1 - fMRI."""
    axis = np.linspace(-1, 1, OVERFIT_EDGE, dtype=np.float32)
    x, y, z = np.meshgrid(axis, axis, axis, indexing="ij")
    fmri = np.exp(-2 * (x**2 + y**2 + z**2)) * (0.7 + 0.3 * np.sin(4 * x))
    volumes = {"fmri": fmri, "dmri": 1 - fmri}
    brain = np.ones(fmri.shape, bool)
    batches = {d: source_batch(volumes[d.source], brain, d, bval=1000.0) for d in Direction}
    targets = {d: torch.from_numpy(volumes[d.target])[None, None] for d in Direction}
    return replace(
        batches[Direction.FMRI_TO_DMRI],
        sources={d: batches[d].sources[d] for d in Direction},
        targets=targets,
        masks={d: torch.ones_like(target) for d, target in targets.items()},
    )


def _shipped_model() -> str:
    model = api.load("default", "cpu")
    return f"{model.method.name}, sha256 {model.sha256[:12]}; preprocessing: {model.preprocessing}"
