"""Train networks that add detail at 2 mm to the estimates of a model, on SIMULATED people, and install them in it.

Usage: python benchmarks/detail_network.py HEADS WORK OUT [--model default] [--people 170] [--minutes 26]
HEADS: folder of label maps of real heads, as `pdsynth simulate --anatomies` takes. WORK keeps the simulated people and
the networks, so that a stopped run goes on. OUT: the model with its networks. The people have random protocols, sharp
scans (voxels of 1.8 to 3.4 mm), and scans that are distorted alike, since a voxel of one is compared with the same
voxel of the other. People whose brain mask overlaps the true brain by less than a Dice coefficient of 0.9 are left out.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, replace
from pathlib import Path
from time import monotonic

import nibabel as nib
import numpy as np
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from pdsynth import api
from pdsynth.cohorts.scans import single_scan
from pdsynth.cohorts.simulated.acquisition import Edges, randomised
from pdsynth.cohorts.simulated.anatomy import draw_anatomy, draw_person
from pdsynth.cohorts.simulated.heads import find_heads, read_head
from pdsynth.cohorts.simulated.session import Session, simulate_scans
from pdsynth.cohorts.simulated.streams import Streams
from pdsynth.data.batch import source_batch
from pdsynth.data.standardise import standardise
from pdsynth.imaging.intensity import flatten
from pdsynth.imaging.nifti import Volume
from pdsynth.imaging.spatial import resample
from pdsynth.methods import checkpoint, create
from pdsynth.methods.detail import DetailNetworks, detail_channels, fine_grid
from pdsynth.synthesis import Model
from pdsynth.types import Diagnosis, Direction, InputError, Modality

SEED, GRID_MM = 90210, 2.7
LEAST_DICE = 0.9
PATCH, BATCH, LEARNING_RATE, WARM_UP, EMA_DECAY = 48, 2, 2e-3, 100, 0.998


def sharp_voxel(g: np.random.Generator, _: bool) -> Edges:
    """Voxel edges of 1.8 to 3.4 mm in plane; slices of the same thickness, or of up to 1.6 times that."""
    edge = float(np.round(g.uniform(1.8, 3.4), 2))
    if g.random() < 0.5:
        return edge, edge, edge
    return edge, edge, float(np.round(np.clip(edge * g.uniform(0.9, 1.6), 1.8, 4.5), 2))


def simulated(index: int, heads: list[Path]) -> Session:
    """One person: a random anatomy from one of the heads, and an acquisition with sharp scans of equal distortion."""
    g = np.random.default_rng((5, index))
    person = draw_person(g, list(Diagnosis)[index % 3])
    anatomy = draw_anatomy(g, person, GRID_MM, read_head(heads[index % len(heads)]))
    acquisition = randomised(g, True, sharp_voxel)
    shift = 0.6 * acquisition.fmri.optics.shift_mm

    def sharp(exposure):
        blur = tuple(g.uniform(0.3, 2.5) * g.uniform(0.8, 1.25, 3))
        return replace(exposure, optics=replace(exposure.optics, shift_mm=shift, psf_mm=blur))

    acquisition = replace(acquisition, fmri=sharp(acquisition.fmri), dmri=sharp(acquisition.dmri))
    return simulate_scans(Streams(SEED, index), person, anatomy, acquisition)


def means(session: Session) -> dict[Modality, tuple[Volume, np.ndarray]]:
    """The mean of each scan, and the map from its mm to those of the anatomy, (4, 4)."""
    shell = session.dwi[..., session.bvals > 0].mean(-1, dtype=np.float32)
    fmri, dmri = session.acquisition.fmri, session.acquisition.dmri
    return {
        Modality.FMRI: (Volume(session.bold.mean(-1, dtype=np.float32), fmri.native.affine), fmri.to_template),
        Modality.DMRI: (Volume(shell, dmri.native.affine), dmri.to_template),
    }


@torch.inference_mode()
def example(model: Model, session: Session, direction: Direction, work: Path) -> dict[str, np.ndarray] | None:
    """Channels (4, x, y, z), what is to be added (x, y, z), and where it is known (x, y, z), on the 2 mm grid.

    None if the scan is refused, or if its brain mask is far from the true brain.
    """
    scans = means(session)
    mean, to_anatomy = scans[direction.source]
    path = work / ("x_bold.nii.gz" if direction.source is Modality.FMRI else "x_dwi.nii.gz")
    nib.save(nib.Nifti1Image(mean.data, mean.affine), path)
    try:
        source = standardise(single_scan(path, direction.source), model.preprocessing)
    except InputError:
        return None
    bval = float(session.bvals.max())
    estimate, _ = model.method.estimate(source_batch(source.volume, source.brain, direction, bval), direction)
    on_grid = Volume(estimate[0, 0].numpy(), source.transform.inverse().matrix @ model.grid.affine)
    fine = fine_grid(source.native, source.native_brain)
    channels = detail_channels(on_grid, source.mean, source.native_brain, fine)
    mask = channels[-1] > 0
    anatomy = session.anatomy
    brain = resample(Volume(anatomy.brain, anatomy.grid.affine), fine, np.linalg.inv(to_anatomy)) > 0.5
    if 2 * (mask & brain).sum() < LEAST_DICE * (mask.sum() + brain.sum()):
        return None
    target, target_to_anatomy = scans[direction.target]
    move = np.linalg.inv(to_anatomy) @ target_to_anatomy
    seen = resample(Volume(np.ones_like(target.data), target.affine), fine, move) > 0.9
    real = resample(target, fine, move)
    known = mask & seen & (real > 0)
    wanted = flatten(Volume(real, fine.affine), known).data - (channels[2] + mask)
    known &= brain
    return {
        "channels": channels.astype(np.float16),
        "wanted": np.where(known, wanted, 0).astype(np.float16),
        "known": known,
    }


def people(model: Model, heads: list[Path], work: Path, count: int) -> None:
    """Simulate the people whose examples are not yet in `work`."""
    for index in range(count):
        paths = {d: work / f"{index:03d}_{d.value}.npz" for d in Direction}
        if all(path.exists() for path in paths.values()):
            continue
        session = simulated(index, heads)
        for direction, path in paths.items():
            np.savez(path, **(example(model, session, direction, work) or {}))
        print("simulated", index, flush=True)


def patch(arrays: dict[str, np.ndarray], g: np.random.Generator) -> list[np.ndarray]:
    """A random patch of channels, addition and mask, (n, PATCH, PATCH, PATCH) float32 each; half are mirrored."""
    corner = [g.integers(0, max(size - PATCH, 0) + 1) for size in arrays["known"].shape]
    window = (slice(None), *(slice(c, c + PATCH) for c in corner))
    cut = []
    for values in (arrays["channels"], arrays["wanted"][None], arrays["known"][None]):
        piece = values[window]
        whole = np.zeros((len(values), PATCH, PATCH, PATCH), np.float32)
        whole[:, : piece.shape[1], : piece.shape[2], : piece.shape[3]] = piece
        cut.append(whole)
    return [c[:, ::-1].copy() for c in cut] if g.random() < 0.5 else cut


def train(networks: DetailNetworks, direction: Direction, work: Path, minutes: float) -> None:
    """Train one network by the mean squared error in the brain, for a time; the result is the mean of its weights."""
    examples = [dict(np.load(path)) for path in sorted(work.glob(f"*_{direction.value}.npz"))]
    examples = [each for each in examples if each]
    network = networks.networks[direction.value]
    averaged = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(EMA_DECAY))
    optimiser = torch.optim.AdamW(network.parameters(), LEARNING_RATE, weight_decay=1e-4)
    g, begun, step = np.random.default_rng(0), monotonic(), 0
    while (share := (monotonic() - begun) / (60 * minutes)) < 1:
        for group in optimiser.param_groups:
            group["lr"] = LEARNING_RATE * min(1, (step + 1) / WARM_UP) * (1 + np.cos(np.pi * share)) / 2
        cut = [patch(examples[g.integers(len(examples))], g) for _ in range(BATCH)]
        channels, wanted, known = (torch.from_numpy(np.stack(parts)) for parts in zip(*cut, strict=True))
        error = (network(channels) - wanted).square() * known
        loss = error.sum() / known.sum().clamp(min=1)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        averaged.update_parameters(network)
        step += 1
    network.load_state_dict(averaged.module.state_dict())
    print(direction.value, len(examples), "people,", step, "steps", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("heads", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", default="default")
    parser.add_argument("--people", type=int, default=170)
    parser.add_argument("--directions", default="fmri_to_dmri", help="with a network, separated by commas")
    parser.add_argument("--minutes", type=float, default=26, help="of training per direction")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    model = api.load(given.model, "cpu")
    people(model, find_heads(given.heads), given.work, given.people)
    torch.manual_seed(0)
    directions = given.directions.split(",")
    networks = DetailNetworks(directions)
    for direction in map(Direction, directions):
        kept = given.work / f"{direction.value}.pt"
        if not kept.exists():
            train(networks, direction, given.work, given.minutes)
            torch.save(networks.networks[direction.value].state_dict(), kept)
        networks.networks[direction.value].load_state_dict(torch.load(kept, weights_only=True))
    method = create(model.method.name, asdict(model.method.config) | {"detail_directions": directions})
    own = {name: value for name, value in model.method.state_dict().items() if not name.startswith("detail.")}
    method.load_state(own | {f"detail.{name}": value for name, value in networks.state_dict().items()})
    checkpoint.save(method, given.out, dict(model.card))


if __name__ == "__main__":
    main()
