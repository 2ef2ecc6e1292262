"""Reads a prepared folder: its rows, and batches of whole volumes or of patches.

A prepared folder holds `pairs.tsv` (one row per session and segment), `splits.tsv`, and one file per session (see
`shards`) with its volumes (`fmri`, `dmri`: float16, (X, Y, Z), 0..1, zero outside the brain and its rim) and their
brain masks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from pydantic import BaseModel

from pdsynth.data.batch import CONTEXT_CHANNELS, PairBatch, Patch, WholeSource, crop, stack_sources
from pdsynth.data.order import Order
from pdsynth.data.preprocessing import Preprocessing
from pdsynth.data.rows import read_pairs, read_quality, read_rejected, read_splits
from pdsynth.data.sessions import Inputs
from pdsynth.data.shards import AGAIN, FOLDER, MAPPED, Shards, check_sizes
from pdsynth.data.splits import check_disjoint
from pdsynth.data.standardise import BY_B0, TO_MNI
from pdsynth.discovery import Pictured
from pdsynth.files import sha256
from pdsynth.formats import ARRAYS_READER, unread
from pdsynth.imaging.spatial import Grid, Transform
from pdsynth.manifest import FILES, NAME
from pdsynth.manifest import read as read_manifest
from pdsynth.schemas import Affine, Count, Shape, check, read_object
from pdsynth.types import WHOLE_SCAN, Available, Direction, InputError, Modality, Split

CACHED_BYTES = 4 << 30  # memory for source features, at most
THREADS = 4  # for the features of a training batch
STREAMED = 2  # files that are mapped at a time in a pass over the rows
SOURCE_BYTES = 2 * CONTEXT_CHANNELS + 1 + 4  # per voxel: context, mask, and index of a brain voxel, at most
DIGEST = 16  # hexadecimal digits, enough to distinguish any two scans
NEEDED = {"grid_shape", "grid_affine", "simulated", "volumes", "shards"}  # entries of a finished manifest.json


class _Prepared(BaseModel):
    grid_shape: Shape
    grid_affine: Affine
    simulated: bool
    volumes: list[Literal["fmri", "fmri_brain", "oracle_fmri", "dmri", "dmri_brain", "oracle_dmri"]]
    shards: dict[str, Count]
    outputs: dict[str, str] = {}
    files: dict[str, str] = {}
    masks_given: Count = 0
    parameters: dict[str, Any] = {}
    version: str = ""


def content(prepared: Path) -> dict[str, str]:
    """SHA-256, in hexadecimal digits, of the tables pairs.tsv and splits.tsv of a prepared folder, by file name.

    They identify its pairs and splits. Raises InputError if one of them is missing.
    """
    return {name: sha256(prepared / name) for name in ("pairs.tsv", "splits.tsv")}


class Volumes(Shards):
    """Reads the volumes of a prepared folder, and caches the source features that are computed from them.

    root, shape, digests: as in `Shards`. `source(shard, row, modality)` returns the features of one volume,
    `WholeSource`: shard is the file's name, row the index in it. The cache holds `views` of them: up to 4 GiB, or the
    memory of 16 volumes if that is more. streamed: keep no source features and few open files, so that the memory does
    not grow with the number of sessions.
    """

    def __init__(
        self,
        root: Path,
        shape: tuple[int, int, int],
        digests: Mapping[str, str] | None = None,
        streamed: bool = False,
    ) -> None:
        super().__init__(root, shape, digests, STREAMED if streamed else MAPPED)
        self.views = 0 if streamed else max(16, CACHED_BYTES // (SOURCE_BYTES * int(np.prod(shape))))
        self.source = lru_cache(maxsize=self.views)(self._source)
        self.threads = ThreadPoolExecutor(THREADS)  # they start with the first task

    def _source(self, shard: str, row: int, modality: Modality) -> WholeSource:
        brain = np.asarray(self.read(shard, row, f"{modality}_brain"), bool)
        return WholeSource.of(np.asarray(self.read(shard, row, modality), np.float32), brain)


class Pairs(Pictured):
    """The pairs of scans of a prepared folder: its table of rows, and the volumes on disk that belong to them.

    Attributes: root, the folder; table, one row per session and segment with the columns of `pairs.tsv` and the split;
    preprocessing, the steps from scans to these volumes; grid of the volumes; simulated, whether the cohort is
    simulated; has_oracle, whether it has oracle volumes (the expected scan, given the simulated anatomy) of both
    modalities; manifest, the content of manifest.json. `len` is the number of rows. Methods take `row`, the position of
    a row in the table, from 0. A selection of rows shares the volumes of the whole. Raises InputError for a
    preprocessing that this version cannot rebuild.
    """

    def __init__(self, root: Path, table: pd.DataFrame, manifest: dict, volumes: Volumes) -> None:
        self.root, self.table, self.manifest, self.volumes = root, table.reset_index(drop=True), manifest, volumes
        self.preprocessing = Preprocessing.of(manifest, root / NAME)

    @classmethod
    def open(cls, root: str | Path) -> Pairs:
        """Open a prepared folder. Raises InputError if it is incomplete, damaged or not a prepared folder.

        Tables are checked by their digest, and files of volumes by their size. The digest of a file of volumes is
        checked when it is first read.
        """
        root = Path(root)
        if not (root / "pairs.tsv").exists():
            raise InputError(root, "is not a prepared folder (it has no pairs.tsv)", "run `pdsynth prepare` first")
        entries = read_manifest(root)
        if entries.get("finished") and "shards" not in entries:
            raise unread(root, "is a prepared folder with one array of all sessions", ARRAYS_READER)
        lost = [] if (root / "splits.tsv").exists() else ["splits.tsv"]
        if not entries.keys() >= NEEDED:
            lost.append("a finished manifest.json of this version")
        if lost:
            raise InputError(root, f"is an incomplete prepared folder (without {lost[0]})", AGAIN)
        check(entries, _Prepared, root / NAME, AGAIN)
        table, splits = read_pairs(root), read_splits(root)
        needed = {f"{modality}{end}" for modality in Modality for end in ("", "_brain")}
        if (table["available"] == Available.BOTH).any() and not needed <= {*entries["volumes"]}:
            raise InputError(root / NAME, "lacks volumes of the pairs in pairs.tsv", AGAIN)
        check_disjoint(splits, table["participant_id"], root / "splits.tsv")
        table = table.merge(splits[["participant_id", "split"]], on="participant_id", how="left")
        for name, digest in entries.get("outputs", {}).items():
            if not (root / name).exists() or sha256(root / name) != digest:
                raise InputError(root / name, "was changed or removed after the folder was prepared", AGAIN)
        for read, name in ((read_quality, "quality.tsv"), (read_rejected, "rejected.tsv")):
            if (root / name).exists():
                read(root)
        check_sizes(root, entries["shards"])
        return cls(root, table, entries, cls._volumes(root, entries))

    @staticmethod
    def _volumes(root: Path, entries: dict[str, Any]) -> Volumes:
        return Volumes(root, entries["grid_shape"], entries.get(FILES))

    def __getstate__(self) -> dict[str, Any]:
        """The state without the volumes, which another process reads from the disk."""
        return {name: value for name, value in vars(self).items() if name not in ("volumes", "_order")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, volumes=self._volumes(state["root"], state["manifest"]))

    @cached_property
    def _order(self) -> Order:
        return Order(self.table["shard"].to_numpy(str), self.volumes.views // len(Modality))  # both scans of a row

    @property
    def grid(self) -> Grid:
        return self.preprocessing.grid

    @property
    def masks_given(self) -> int:
        """Number of scans of the prepared folder whose brain mask was read from the file of a preprocessing tool.

        It is that of the folder in a selection of rows, too; 0 if the manifest does not give it.
        """
        return int(self.manifest.get("masks_given", 0))

    @property
    def simulated(self) -> bool:
        return bool(self.manifest["simulated"])

    @property
    def has_oracle(self) -> bool:
        return {f"oracle_{m}" for m in Modality} <= set(self.manifest["volumes"])

    @property
    def participants(self) -> int:
        """The number of participants."""
        return int(self.table["participant_id"].nunique())

    def __len__(self) -> int:
        return len(self.table)

    def where(self, keep: np.ndarray | pd.Series) -> Pairs:
        """A selection of the rows: those for which keep, (rows,) bool, is true.

        In the selection, the positions of the rows count from 0 again.
        """
        return Pairs(self.root, self.table[np.asarray(keep, bool)], self.manifest, self.volumes)

    def split(self, name: str) -> Pairs:
        """The rows of one split (train, val or test) that have both scans, of whole scans and of segments.

        Another name gives no rows.
        """
        return self.where((self.table["split"] == name) & (self.table["available"] == Available.BOTH))

    @property
    def train(self) -> Pairs:
        """The training participants' rows that have both scans, of whole scans and of segments."""
        return self.split(Split.TRAIN)

    @property
    def val(self) -> Pairs:
        """The validation participants' rows that have both scans, of whole scans and of segments."""
        return self.split(Split.VAL)

    @property
    def test(self) -> Pairs:
        """The test participants' rows that have both scans, of whole scans and of segments."""
        return self.split(Split.TEST)

    def whole_scans(self) -> Pairs:
        """The rows of whole-scan means, which evaluation uses; rows of segments are left out.

        Rows of sessions with one scan only are among them.
        """
        return self.where(self.table["segment"] == WHOLE_SCAN)

    def streamed(self) -> Pairs:
        """The same rows, for passes over many of them: memory does not grow with the number of rows.

        No source features are cached, and few files stay mapped, as the pages that were read of them count as memory of
        the process.
        """
        volumes = Volumes(self.root, self.grid.shape, self.volumes.digests, streamed=True)
        return Pairs(self.root, self.table, self.manifest, volumes)

    def read(self, name: str, row: int) -> np.ndarray:
        """A row's volume by name: (X, Y, Z), in the data type of the file.

        name: `fmri` or `dmri`, `fmri_brain` or `dmri_brain` (masks), `oracle_fmri` or `oracle_dmri` (expected scans of
        a simulated cohort). The volume is zero if the file of the session holds none of this name. Raises InputError
        for a file that is missing, damaged or changed.
        """
        return self.volumes.read(*self._place(row), name)

    def volume(self, modality: Modality, row: int) -> np.ndarray:
        """The volume of a row and modality, (X, Y, Z) float32 in 0..1.

        It is zero if the session's file holds no such volume. A scan that was rejected because another participant has
        the same image is still in the file; the column `available` of the table does not name it.
        """
        return np.asarray(self.read(modality, row), np.float32)

    def brain(self, modality: Modality, row: int) -> np.ndarray:
        """The brain mask of a row and modality, (X, Y, Z) bool.

        It is false everywhere if the session's file holds no such mask (see `volume` for rejected scans).
        """
        return np.asarray(self.read(f"{modality}_brain", row), bool)

    def source(self, modality: Modality, row: int) -> WholeSource:
        """The features of a row's scan of a modality, for synthesis from this scan.

        They are cached in up to about 4 GiB of memory, for all selections of the folder together. `streamed` pairs
        compute them anew at each call.
        """
        return self.volumes.source(*self._place(row), modality)

    def transform(self, modality: Modality, row: int) -> Transform:
        """The affine transform from the row's scan of this modality to the grid, mm to mm, as named steps.

        Raises InputError if the session has no scan of this modality, and if the file that `prepare` wrote on the
        session is missing or changed.
        """
        shard = self.table["shard"].iloc[row]
        steps = self._record(shard).get("steps", {})
        if modality not in steps:
            raise InputError(self._record_path(shard), f"has no transform of a scan of the kind {modality}", AGAIN)
        return Transform.of(steps[modality])

    def has_dmri_alone(self) -> bool:
        """Whether a dMRI of these rows was registered to MNI by `pdsynth`, and not through its session's fMRI.

        Raises InputError if the file that `prepare` wrote on a session is missing or changed.
        """
        steps = (self._record(shard).get("steps", {}).get(Modality.DMRI, []) for shard in self.table["shard"].unique())
        return any(each and each[0]["name"] in (TO_MNI, BY_B0) for each in steps)

    def scan_digests(self) -> dict[str, str]:
        """Identify the scans of these rows: a dict from the digest of a scan's file to its participant.

        A digest is the first 16 hexadecimal digits of the SHA-256 of the file's bytes. Raises InputError if the file
        that `prepare` wrote on a session is missing or changed, or holds no digest.
        """
        found: dict[str, str] = {}
        rows = self.table.drop_duplicates("shard")
        for shard, person, *paths in rows[["shard", "participant_id", "fmri_path", "dmri_path"]].to_numpy(str).tolist():
            inputs = self._record(shard).get("inputs", {})
            for path in filter(None, paths):
                try:
                    found[inputs[path]["sha256"][:DIGEST]] = person
                except (KeyError, TypeError) as error:
                    problem = f"has no digest of {path}, which is needed to check whether a model was trained on it"
                    raise InputError(self._record_path(shard), problem, AGAIN) from error
        return found

    def _record_path(self, shard: str) -> Path:
        return (self.root / FOLDER / shard).with_suffix(".json")

    def _record(self, shard: str) -> dict[str, Any]:
        """The record that `prepare` wrote for a session. Raises InputError if it is missing, damaged or edited."""
        path = self._record_path(shard)
        record = read_object(path, Inputs, AGAIN)
        digest = self.manifest.get(FILES, {}).get(f"{FOLDER}/{path.name}")
        if digest is not None and sha256(path) != digest:
            raise InputError(path, "was changed after the folder was prepared", AGAIN)
        return record

    def _place(self, row: int) -> tuple[str, int]:
        """The row's file, and its index in this file."""
        return self.table["shard"].iloc[row], int(self.table["index"].iloc[row])

    def batch(
        self,
        rows: np.ndarray,
        corners: np.ndarray | None = None,
        patch: Patch | None = None,
        directions: Sequence[Direction] = tuple(Direction),
    ) -> PairBatch:
        """A batch of rows that have both scans: whole volumes, or one patch per row.

        rows (B,): positions in the table. corners (B, 3): first voxel of each patch, by default 0; a patch must not
        reach beyond the grid. patch: its size in voxels along each axis, by default that of the grid. directions: the
        directions of synthesis whose source features are computed; the targets are always those of both. Raises
        InputError for a patch that is larger than the grid.
        """
        rows = np.asarray(rows)
        corners = np.zeros((len(rows), 3), np.int64) if corners is None else corners
        patch = self.grid.shape if patch is None else patch
        self._refuse_larger(patch)
        wholes = {d: [self.source(d.source, int(r)) for r in rows] for d in directions}
        return self._batch(rows, corners, patch, wholes)

    def _refuse_larger(self, patch: Patch) -> None:
        if (np.asarray(patch) > self.grid.shape).any():
            sizes = (" x ".join(map(str, shape)) for shape in (self.grid.shape, patch))
            problem = "has a grid of {} voxels, smaller than the patch of {} that training takes".format(*sizes)
            raise InputError(
                self.root, problem, "prepare with a smaller --grid-mm, or train on smaller patches (--set patch=N)"
            )

    def _batch(
        self, rows: np.ndarray, corners: np.ndarray, patch: Patch, wholes: Mapping[Direction, list[WholeSource]]
    ) -> PairBatch:
        """The batch of patches at these corners, with the features `wholes` of the whole sources of its rows."""
        cut = {}
        for name in self.manifest["volumes"]:
            stacked = np.stack([crop(self.read(name, int(r)), c, patch) for r, c in zip(rows, corners, strict=True)])
            cut[name] = torch.from_numpy(stacked.astype(np.float32)[:, None])
        bval = self.table["dmri_bval"].to_numpy(np.float32)[rows] / 1000
        return PairBatch(
            sources={d: stack_sources(each, corners, patch) for d, each in wholes.items()},
            corner=torch.from_numpy(corners),
            bval=torch.from_numpy(bval[:, None]),
            site=self.table["site"].iloc[rows].astype(str).tolist(),
            rows=rows,
            targets={d: cut[d.target.value] for d in Direction},
            masks={d: cut[f"{d.target}_brain"] for d in Direction},
            oracle={d: cut[f"oracle_{d.target}"] for d in Direction if f"oracle_{d.target}" in cut},
        )

    def patches(
        self, patch: Patch, batch_size: int, seed: Sequence[int], step: int, part: int = 0, parts: int = 1
    ) -> PairBatch:
        """The batch of one training step: patches of `patch` voxels around random fMRI brain voxels of random rows.

        All rows must have both scans. In a batch no row is used twice before all are used once. If the cache cannot
        hold the features of all rows, the rows of a step are from a window that moves over them (`Order`). The same
        seed (whole numbers) and step number give the same batch, so that a resumed run gets the batches of an
        uninterrupted one. A patch is moved into the grid if it would reach beyond. The first voxel of a patch of even
        sides has even coordinates, so that the 2-voxel cells of the Haar transform of different patches coincide. part:
        number, from 0, of the part to return, of `parts` equal ones, in the order of the batch. Raises InputError for a
        patch that is larger than the grid.
        """
        self._refuse_larger(patch)
        generator = np.random.default_rng([*seed, step])
        rows = self._order.rows(batch_size, seed, step, generator)
        own = slice(part * batch_size // parts, (part + 1) * batch_size // parts)
        # one number for each patch of the whole batch, so that a part need not read the scans of the others
        places, rows = generator.random(batch_size)[own], rows[own]
        wholes = {d: list(self.volumes.threads.map(partial(self.source, d.source), rows.tolist())) for d in Direction}
        limit = np.asarray(self.grid.shape) - np.asarray(patch)
        corners = np.empty((len(rows), 3), np.int64)
        for i, (whole, place) in enumerate(zip(wholes[Direction.FMRI_TO_DMRI], places, strict=True)):
            inside = whole.inside
            voxel = inside[int(place * len(inside))]
            centre = np.asarray(np.unravel_index(voxel, self.grid.shape)) - np.asarray(patch) // 2
            corners[i] = np.clip(centre // 2 * 2, 0, limit)
        return self._batch(rows, corners, patch, wholes)
