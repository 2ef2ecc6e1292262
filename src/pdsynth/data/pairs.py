"""Prepared pairs: memory-mapped volumes, what a method may see of them, and batches of patches.

A prepared folder holds `pairs.tsv` (a row a session and segment), `splits.tsv`, and one array a modality
(`fmri.npy`, `dmri.npy`: float16, (rows, X, Y, Z), 0..1, zero away from the brain) with the brain masks beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
import torch
from scipy import ndimage
from torch import Tensor

from pdsynth.imaging.spatial import Grid
from pdsynth.manifest import read as read_manifest
from pdsynth.manifest import sha256
from pdsynth.types import Direction, InputError, Modality

COARSE = 4  # edge, in voxels, of the cells that a whole volume is averaged into
PERCENTILES = (5, 25, 50, 75, 95)
SUMMARY_SIZE = len(PERCENTILES) + 3
CONTEXT_CHANNELS = 6
NEAR = 0.05  # of the blurred brain mask
ARRAYS = ("fmri", "dmri", "fmri_brain", "dmri_brain")
AGAIN = "run `pdsynth prepare` again"
TEXT_COLUMNS = ("participant_id", "session_id", "segment", "site", "diagnosis")

Patch = tuple[int, int, int]
Array = TypeVar("Array", np.ndarray, Tensor)


def content(prepared: Path) -> dict[str, str]:
    """Digests of what tells the pairs and the splits of one prepared folder from those of another."""
    return {name: sha256(prepared / name) for name in ("pairs.tsv", "splits.tsv")}


@dataclass(frozen=True)
class Source:
    """What a method sees of the source scan, at the batch's patches or in whole.

    volume (B, 1, x, y, z) and context (B, CONTEXT_CHANNELS, x, y, z) are cut to the patch: the context holds the
    volume, its Gaussian blurs at 1, 2 and 4 voxels, its gradient magnitude and the blurred brain mask, all computed on
    the whole volume. brain (B, 1, x, y, z) is 0 or 1. summary (B, SUMMARY_SIZE) and coarse (B, 1, X/4, Y/4, Z/4)
    describe the whole volume, whatever the patch.
    """

    volume: Tensor
    context: Tensor
    brain: Tensor
    summary: Tensor
    coarse: Tensor

    @property
    def near(self) -> Tensor:
        """Voxels in the brain or within about 3 voxels of it, (B, 1, x, y, z) bool: elsewhere nothing is scored."""
        return self.context[:, -1:] > NEAR


@dataclass(frozen=True)
class PairBatch:
    """Sources and targets of B sessions by direction; no diagnosis, age or sex.

    targets are (B, 1, x, y, z) in [0, 1]; masks (B, 1, x, y, z) are the targets' brains; corner (B, 3) is the patch's
    first voxel on the grid; bval (B, 1) is the dMRI shell in ms/um^2, of the source or wanted of the target;
    oracle holds E[target | shared anatomy] where the cohort is simulated. Directions without a scan are absent.
    """

    sources: dict[Direction, Source]
    corner: Tensor
    bval: Tensor
    site: list[str]
    rows: np.ndarray
    targets: dict[Direction, Tensor]
    masks: dict[Direction, Tensor]
    oracle: dict[Direction, Tensor]

    def map(self, change: Callable[[Tensor], Tensor]) -> PairBatch:
        """The batch with every tensor changed."""

        def each(tensors: dict[Direction, Tensor]) -> dict[Direction, Tensor]:
            return {d: change(t) for d, t in tensors.items()}

        return replace(
            self,
            sources={d: Source(**{k: change(v) for k, v in vars(s).items()}) for d, s in self.sources.items()},
            corner=change(self.corner),
            bval=change(self.bval),
            targets=each(self.targets),
            masks=each(self.masks),
            oracle=each(self.oracle),
        )

    def to(self, device: torch.device | str) -> PairBatch:
        """The same batch on another device."""
        return self.map(lambda tensor: tensor.to(device))

    def only(self, i: int) -> PairBatch:
        """The batch of session i alone."""
        one = self.map(lambda tensor: tensor[i : i + 1])
        return replace(one, site=self.site[i : i + 1], rows=self.rows[i : i + 1])

    def __len__(self) -> int:
        return len(self.corner)


def multiscale(volume: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """Context channels of one whole volume: (X, Y, Z) -> (CONTEXT_CHANNELS, X, Y, Z) float32."""
    blurs = [ndimage.gaussian_filter(volume, sigma, truncate=3) for sigma in (1, 2, 4)]
    gradient = np.sqrt(sum(np.square(g) for g in np.gradient(blurs[0])))
    edge = ndimage.gaussian_filter(brain.astype(np.float32), 2, truncate=3)
    return np.stack([volume, *blurs, gradient, edge]).astype(np.float32)


def summarise(volume: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """Mean, SD, brain fraction and percentiles inside the brain: (SUMMARY_SIZE,) float32."""
    inside = volume[brain > 0]
    if inside.size == 0:
        return np.zeros(SUMMARY_SIZE, np.float32)
    values = [inside.mean(), inside.std(), inside.size / volume.size, *np.percentile(inside, PERCENTILES)]
    return np.asarray(values, np.float32)


def coarsen(volume: np.ndarray) -> np.ndarray:
    """Averages over cells of COARSE^3 voxels: (X, Y, Z) -> (X/4, Y/4, Z/4); a rest at the far edge is dropped."""
    x, y, z = (n // COARSE for n in volume.shape)
    cut = volume[: x * COARSE, : y * COARSE, : z * COARSE]
    return cut.reshape(x, COARSE, y, COARSE, z, COARSE).mean((1, 3, 5), dtype=np.float32)


@dataclass(frozen=True)
class WholeSource:
    """The source views of one whole volume, as arrays (see `Source` for the shapes, without B)."""

    context: np.ndarray
    brain: np.ndarray
    summary: np.ndarray
    coarse: np.ndarray

    @cached_property
    def inside(self) -> np.ndarray:
        """Flat indices of the brain voxels, or of all voxels where the brain is empty."""
        flat = np.flatnonzero(self.brain)
        return (flat if flat.size else np.arange(self.brain.size)).astype(np.int32)

    @classmethod
    def of(cls, volume: np.ndarray, brain: np.ndarray) -> WholeSource:
        """volume (X, Y, Z) in 0..1 and its brain (X, Y, Z)."""
        volume = np.asarray(volume, np.float32)
        context = multiscale(volume, brain).astype(np.float16)
        return cls(context, brain.astype(bool), summarise(volume, brain), coarsen(volume))


def stack_sources(wholes: list[WholeSource], corners: np.ndarray, patch: Patch) -> Source:
    """Cut each whole source to its patch and stack them."""
    context = torch.from_numpy(
        np.stack([crop(w.context, c, patch) for w, c in zip(wholes, corners, strict=True)]).astype(np.float32)
    )
    brain = np.stack([crop(w.brain, c, patch) for w, c in zip(wholes, corners, strict=True)])[:, None]
    return Source(
        volume=context[:, :1],
        context=context,
        brain=torch.from_numpy(brain.astype(np.float32)),
        summary=torch.from_numpy(np.stack([w.summary for w in wholes])),
        coarse=torch.from_numpy(np.stack([w.coarse for w in wholes])[:, None]),
    )


def crop(array: Array, corner: np.ndarray | Tensor, patch: Patch) -> Array:
    """The patch of the last three axes that begins at corner."""
    x, y, z = (int(c) for c in corner)
    return array[..., x : x + patch[0], y : y + patch[1], z : z + patch[2]]


def source_batch(volume: np.ndarray, brain: np.ndarray, direction: Direction, bval: float) -> PairBatch:
    """A batch of one whole source and no target: what synthesis hands to a method. bval in s/mm^2."""
    whole = WholeSource.of(volume, brain)
    corners = np.zeros((1, 3), np.int64)
    return PairBatch(
        sources={direction: stack_sources([whole], corners, volume.shape)},
        corner=torch.from_numpy(corners),
        bval=torch.tensor([[bval / 1000]], dtype=torch.float32),
        site=[""],
        rows=np.array([-1]),
        targets={},
        masks={},
        oracle={},
    )


def _memory_map(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    try:
        array = np.load(path, mmap_mode="r")
    except (ValueError, EOFError) as error:
        raise InputError(path, f"is cut short or damaged ({error})", AGAIN) from error
    if array.shape != shape:
        raise InputError(path, f"has shape {array.shape} where the tables and the grid say {shape}", AGAIN)
    return array


class Arrays(dict[str, np.ndarray]):
    """The memory-mapped arrays of a prepared folder by name, and the source views made of them so far."""

    def __init__(self, arrays: dict[str, np.ndarray]) -> None:
        super().__init__(arrays)
        self.source = lru_cache(maxsize=4096)(self._source)

    def _source(self, modality: Modality, index: int) -> WholeSource:
        brain = np.asarray(self[f"{modality}_brain"][index], bool)
        return WholeSource.of(np.asarray(self[modality.value][index], np.float32), brain)


class Pairs:
    """Rows of a prepared folder. Slicing makes another view of the same memory-mapped arrays.

    Attributes: root; table (a row a session and segment, see `pairs.tsv`); grid; simulated.
    """

    def __init__(self, root: Path, table: pd.DataFrame, manifest: dict, arrays: Arrays) -> None:
        self.root, self.table, self.manifest, self.arrays = root, table.reset_index(drop=True), manifest, arrays

    @classmethod
    def open(cls, root: str | Path) -> Pairs:
        """Open a prepared folder; raises InputError where it is none, or is incomplete, or its parts do not fit."""
        root = Path(root)
        if not (root / "pairs.tsv").exists():
            raise InputError(root, "is no prepared folder (it has no pairs.tsv)", "run `pdsynth prepare` first")
        entries = read_manifest(root)
        lost = [n for n in ("splits.tsv", *(f"{a}.npy" for a in ARRAYS)) if not (root / n).exists()]
        if not entries.keys() >= {"grid_shape", "grid_affine", "simulated"}:
            lost.append("a finished manifest.json")
        if lost:
            raise InputError(root, f"is an incomplete prepared folder (without {lost[0]})", AGAIN)
        text = dict.fromkeys(TEXT_COLUMNS, str)
        table = pd.read_csv(root / "pairs.tsv", sep="\t", keep_default_na=False, dtype=text)
        splits = pd.read_csv(root / "splits.tsv", sep="\t", dtype=str, keep_default_na=False)
        repeated = splits.loc[splits["participant_id"].duplicated(), "participant_id"]
        if len(repeated):
            raise InputError(
                root / "splits.tsv",
                f"{repeated.iloc[0]} stands in more than one split row, so people could leak between splits",
                "keep one row for each participant",
            )
        table = table.merge(splits[["participant_id", "split"]], on="participant_id", how="left")
        for name, digest in entries.get("outputs", {}).items():
            if not (root / name).exists() or sha256(root / name) != digest:
                raise InputError(root / name, "was changed or removed after the folder was prepared", AGAIN)
        arrays = {p.stem: _memory_map(p, (len(table), *entries["grid_shape"])) for p in sorted(root.glob("*.npy"))}
        return cls(root, table, entries, Arrays(arrays))

    @property
    def grid(self) -> Grid:
        return Grid(tuple(self.manifest["grid_shape"]), np.asarray(self.manifest["grid_affine"]))

    @property
    def simulated(self) -> bool:
        return bool(self.manifest["simulated"])

    @property
    def has_oracle(self) -> bool:
        return all(f"oracle_{m}" in self.arrays for m in Modality)

    def __len__(self) -> int:
        return len(self.table)

    def where(self, keep: np.ndarray | pd.Series) -> Pairs:
        """The rows for which keep is true."""
        return Pairs(self.root, self.table[np.asarray(keep, bool)], self.manifest, self.arrays)

    def split(self, name: str) -> Pairs:
        """The paired rows of one split: train, val or test."""
        return self.where((self.table["split"] == name) & (self.table["available"] == "both"))

    @property
    def train(self) -> Pairs:
        """The training participants' pairs."""
        return self.split("train")

    @property
    def val(self) -> Pairs:
        """The validation participants' pairs."""
        return self.split("val")

    @property
    def test(self) -> Pairs:
        """The test participants' pairs."""
        return self.split("test")

    def whole_scans(self) -> Pairs:
        """The rows of whole-scan means: the unit of evaluation."""
        return self.where(self.table["segment"] == "mean")

    def volume(self, modality: Modality, row: int) -> np.ndarray:
        """(X, Y, Z) float32 in 0..1."""
        return np.asarray(self.arrays[modality.value][self.table["index"].iloc[row]], np.float32)

    def brain(self, modality: Modality, row: int) -> np.ndarray:
        """(X, Y, Z) bool."""
        return np.asarray(self.arrays[f"{modality}_brain"][self.table["index"].iloc[row]], bool)

    def source(self, modality: Modality, row: int) -> WholeSource:
        """The row's source views, made once for all slices of the same folder."""
        return self.arrays.source(modality, int(self.table["index"].iloc[row]))

    def batch(self, rows: np.ndarray, corners: np.ndarray | None = None, patch: Patch | None = None) -> PairBatch:
        """Both directions of some paired rows, whole or cut to a patch at each row's corner."""
        rows = np.asarray(rows)
        patch = self.grid.shape if patch is None else patch
        corners = np.zeros((len(rows), 3), np.int64) if corners is None else corners
        cut = {}
        for name, array in self.arrays.items():
            index = self.table["index"].to_numpy()[rows]
            stacked = np.stack([crop(array[i], c, patch) for i, c in zip(index, corners, strict=True)])
            cut[name] = torch.from_numpy(stacked.astype(np.float32)[:, None])
        wholes = {m: [self.source(m, int(r)) for r in rows] for m in Modality}
        bval = self.table["dmri_bval"].to_numpy(np.float32)[rows] / 1000
        return PairBatch(
            sources={d: stack_sources(wholes[d.source], corners, patch) for d in Direction},
            corner=torch.from_numpy(corners),
            bval=torch.from_numpy(bval[:, None]),
            site=self.table["site"].iloc[rows].astype(str).tolist(),
            rows=rows,
            targets={d: cut[d.target.value] for d in Direction},
            masks={d: cut[f"{d.target}_brain"] for d in Direction},
            oracle={d: cut[f"oracle_{d.target}"] for d in Direction if f"oracle_{d.target}" in cut},
        )

    def patches(self, patch: Patch, batch_size: int, seed: Sequence[int], step: int) -> PairBatch:
        """The batch of one training step: patches around random brain voxels of as many participants as there are.

        The same seed and step give the same batch, so a resumed run sees what an uninterrupted one would. Corners are
        even, so that Haar cells of different patches coincide.
        """
        generator = np.random.default_rng([*seed, step])
        rounds = -(-batch_size // len(self))
        rows = np.concatenate([generator.permutation(len(self)) for _ in range(rounds)])[:batch_size]
        limit = np.asarray(self.grid.shape) - np.asarray(patch)
        corners = np.empty((batch_size, 3), np.int64)
        for i, row in enumerate(rows):
            inside = self.source(Modality.FMRI, int(row)).inside
            voxel = inside[generator.integers(len(inside))]
            centre = np.asarray(np.unravel_index(voxel, self.grid.shape)) - np.asarray(patch) // 2
            corners[i] = np.clip(centre // 2 * 2, 0, limit)
        return self.batch(rows, corners, patch)
