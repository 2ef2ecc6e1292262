"""From a 4D scan to N mean volumes in one pass: which volumes form a segment, and their streamed means.

fMRI segments are contiguous blocks of time after the signal is steady. dMRI segments are subsets of one shell whose
directions are spread evenly over the sphere: blocks along the gradient axis would differ by their directions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pdsynth.imaging.nifti import ScanHeader, read_header, stored_voxels
from pdsynth.types import InputError

PIECE = 1 << 20  # bytes held at a time
B0_LIMIT = 50.0  # s/mm^2; scanners write a b0 as 0, 1.25 or 5
UNSTEADY_SECONDS = 8.0  # about five T1 of grey matter
UNSTEADY_SHARE = 0.1


def segment_means(path: str | Path, segments: Sequence[np.ndarray]) -> np.ndarray:
    """Mean volume of each segment of a 3D or 4D scan: (N, X, Y, Z) float32.

    segments hold indices of the fourth axis and may overlap. The file is read once, in pieces, so the memory needed
    beyond the result is a few MB whatever the scan's length. The header's scale factors are applied.

    Raises ValueError for an empty segment or an index that is out of range; InputError for a truncated or damaged file,
    for non-finite voxels in a volume that is used and for means beyond the range of float32.
    """
    path = Path(path)
    header = read_header(path)
    members = _members(segments, header.n_volumes)
    x, y, z = header.shape[:3]
    voxels = x * y * z
    sums = np.zeros((len(segments), voxels), np.float32)
    bad: dict[int, int] = {}  # non-finite voxels of each volume that has some
    done = 0
    for values in _values(path, header):
        start = 0
        while start < len(values):
            volume, voxel = divmod(done, voxels)
            stop = min(len(values), start + voxels - voxel)
            if volume in members:
                part = values[start:stop]
                lost = len(part) - np.count_nonzero(np.isfinite(part)) if part.dtype.kind == "f" else 0
                if lost:
                    bad[volume] = bad.get(volume, 0) + int(lost)
                for segment in members[volume]:
                    target = sums[segment, voxel : voxel + len(part)]
                    np.add(target, part, out=target, casting="same_kind")
            done, start = done + stop - start, stop
    if bad:
        worst = min(bad)
        raise InputError(
            path, f"has {bad[worst]} non-finite voxels in volume {worst}", "leave the scan out or repair it"
        )
    sums /= np.array([len(s) for s in segments], np.float32)[:, None]
    with np.errstate(over="ignore", invalid="ignore"):  # what leaves the range of float32 is refused below
        if header.slope != 1:
            sums *= np.float32(header.slope)
        if header.inter != 0:
            sums += np.float32(header.inter)
    if not np.isfinite(sums).all():
        raise InputError(path, "has means beyond the range of float32", "repair its scale factors, or leave it out")
    return sums.reshape(len(segments), z, y, x).transpose(0, 3, 2, 1)  # NIfTI stores x fastest


def time_blocks(n_volumes: int, n_segments: int, skip: int = 0) -> list[np.ndarray]:
    """Contiguous blocks of time, after `skip` volumes, whose lengths differ by at most one.

    >>> [b.tolist() for b in time_blocks(8, 3, skip=1)]
    [[1, 2, 3], [4, 5], [6, 7]]
    """
    if n_segments < 1 or n_volumes - skip < n_segments:
        raise ValueError(
            f"the scan has {n_volumes} volumes, {skip} of them not steady; cannot make {n_segments} segments. "
            "Lower --segments."
        )
    return np.array_split(np.arange(skip, n_volumes), n_segments)


def steady_start(
    t_r: float | None, n_volumes: int, seconds: float = UNSTEADY_SECONDS, share: float = UNSTEADY_SHARE
) -> int:
    """How many first volumes to drop until the magnetisation is steady: `seconds` worth, at most `share` of the scan.

    t_r in seconds; None or 0 where it is not known (2 s is taken).

    >>> steady_start(2.0, 150), steady_start(1.0, 20), steady_start(None, 1)
    (4, 2, 0)
    """
    if t_r is not None and t_r < 0:
        raise ValueError(f"a repetition time of {t_r} s is not possible; check the scan's sidecar.")
    return int(min(share * n_volumes, np.ceil(seconds / (t_r or 2.0))))


@dataclass(frozen=True, eq=False)
class Gradients:
    """bvals (n,) in s/mm^2 and bvecs (n, 3), unit vectors, or zero for a b0."""

    bvals: np.ndarray
    bvecs: np.ndarray

    @property
    def is_b0(self) -> np.ndarray:
        """(n,) bool."""
        return self.bvals <= B0_LIMIT


def read_gradients(bval: str | Path | None, bvec: str | Path | None, n_volumes: int, path: str | Path) -> Gradients:
    """Gradient tables of the scan at `path`, whichever way round they lie.

    Directions are scaled to unit length. Raises InputError for a missing or unreadable table, another count than
    n_volumes, or a weighted volume without a direction.
    """
    bvals = _table(bval, "b-values (.bval)", path).ravel()
    bvecs = _table(bvec, "gradient directions (.bvec)", path)
    if bvecs.shape[0] == 3 and bvecs.shape != (3, 3):
        bvecs = bvecs.T
    elif bvecs.shape == (3, 3):
        bvecs = _square_bvecs(bvecs, bvals)
    for name, source, count in (("b-values", bval, len(bvals)), ("directions", bvec, len(bvecs))):
        if count != n_volumes:
            raise InputError(Path(str(source)), f"holds {count} {name} for {n_volumes} volumes", "give the scan's own")
    if bvecs.ndim != 2 or bvecs.shape[1] != 3:
        raise InputError(Path(str(bvec)), f"has {bvecs.shape[1]} numbers a direction", "write three, x y z")
    if (bvals < 0).any():
        raise InputError(Path(str(bval)), f"holds a negative b-value, {bvals.min():g}", "repair it")
    length = np.linalg.norm(bvecs, axis=1)
    lost = np.flatnonzero((bvals > B0_LIMIT) & ~(length > 0.1))
    if len(lost):
        raise InputError(
            Path(str(bvec)), f"has no direction for volume {lost[0]} (b={bvals[lost[0]]:g})", "give the scan's own"
        )
    units = np.divide(bvecs, length[:, None], out=np.zeros_like(bvecs), where=length[:, None] > 0.1)
    return Gradients(bvals, units)


def nearest_shell(bvals: np.ndarray, wanted: float = 1000.0) -> tuple[np.ndarray, float]:
    """Indices of the shell nearest the wanted b-value, and its median b; b0 volumes do not count.

    Neighbouring b-values belong to one shell while they differ by less than 100 s/mm^2 or 10 % of the shell's first.
    Raises ValueError where no volume is diffusion-weighted.

    >>> nearest_shell(np.array([0, 995, 1005, 5, 2000]))
    (array([1, 2]), 1000.0)
    """
    weighted = np.flatnonzero(np.asarray(bvals) > B0_LIMIT)
    if len(weighted) == 0:
        raise ValueError("no volume is diffusion-weighted (all b <= 50 s/mm^2); give a scan with b > 0.")
    order = weighted[np.argsort(bvals[weighted], kind="stable")]
    shells: list[list[int]] = []
    for index in order:
        first = bvals[shells[-1][0]] if shells else -np.inf
        if bvals[index] - first <= max(100.0, 0.1 * first):
            shells[-1].append(int(index))
        else:
            shells.append([int(index)])
    medians = [float(np.median(bvals[shell])) for shell in shells]
    best = int(np.argmin(np.abs(np.array(medians) - wanted)))
    return np.sort(np.array(shells[best])), medians[best]


def direction_subsets(bvecs: np.ndarray, indices: np.ndarray, n_segments: int) -> list[np.ndarray]:
    """Split a shell's volumes into subsets, each spread evenly over the sphere; v and -v are the same direction.

    Directions are handed out one at a time: the subset whose turn it is takes the free direction with the least
    electrostatic energy (Jones et al. 1999) to those it has. Sizes differ by at most one; indices are sorted.
    """
    indices = np.asarray(indices)
    if n_segments < 1 or len(indices) < n_segments:
        raise ValueError(
            f"the shell has {len(indices)} directions; cannot make {n_segments} segments. Lower --segments."
        )
    energy = _repulsion(np.asarray(bvecs)[indices])
    free = np.ones(len(indices), bool)
    felt = np.zeros((n_segments, len(indices)))  # energy of each direction to each subset
    subsets: list[list[int]] = [[] for _ in range(n_segments)]
    seeds = energy.sum(1)
    for turn in range(len(indices)):
        subset = turn % n_segments
        # Before a subset has members, all are alike to it: it takes the one furthest from what the others leave.
        score = felt[subset] if subsets[subset] else -felt.sum(0) - 1e-3 * seeds
        pick = int(np.argmin(np.where(free, score, np.inf)))
        free[pick] = False
        subsets[subset].append(pick)
        felt[subset] += energy[pick]
    return [np.sort(indices[subset]) for subset in subsets]


def _repulsion(directions: np.ndarray) -> np.ndarray:
    """Energy of each pair of directions taken as antipodal charges, (n, n), zero on the diagonal."""
    cosine = np.clip(directions @ directions.T, -1, 1)
    energy = 1 / np.sqrt(np.maximum(2 - 2 * cosine, 1e-6)) + 1 / np.sqrt(np.maximum(2 + 2 * cosine, 1e-6))
    np.fill_diagonal(energy, 0)
    return energy


def _members(segments: Sequence[np.ndarray], n_volumes: int) -> dict[int, list[int]]:
    """For each volume that is used, the segments that hold it."""
    members: dict[int, list[int]] = {}
    for number, segment in enumerate(segments):
        if len(segment) == 0:
            raise ValueError(f"segment {number} is empty; lower --segments.")
        for volume in np.asarray(segment).tolist():
            if not 0 <= volume < n_volumes:
                raise ValueError(f"segment {number} wants volume {volume} of a scan with {n_volumes}.")
            members.setdefault(volume, []).append(number)
    return members


def _values(path: Path, header: ScanHeader) -> Iterator[np.ndarray]:
    """The stored voxels in file order, in pieces of about PIECE bytes."""
    rest = b""
    for piece in stored_voxels(path, header, PIECE):
        data = rest + piece if rest else piece
        whole = len(data) // header.dtype.itemsize * header.dtype.itemsize
        rest = data[whole:]
        yield np.frombuffer(data[:whole] if rest else data, header.dtype)


def _table(source: str | Path | None, name: str, path: str | Path) -> np.ndarray:
    """Numbers of a text table, (rows, columns)."""
    if source is None or not Path(source).is_file():
        raise InputError(path, f"has no {name} beside it", "put the table next to the scan")
    try:
        rows = [line for line in Path(source).read_text().splitlines() if line.strip()]
        table = np.loadtxt(rows, ndmin=2, dtype=np.float64) if rows else np.empty((0, 0))
    except ValueError as error:
        raise InputError(source, f"is no table of numbers ({error})", "give numbers only") from error
    if table.size == 0 or not np.isfinite(table).all():
        raise InputError(source, "is empty or holds non-finite numbers", "repair it")
    return table


def _square_bvecs(bvecs: np.ndarray, bvals: np.ndarray) -> np.ndarray:
    """Of a 3 x 3 table, the orientation whose rows are unit vectors where b > 0; FSL's columns where both are."""

    def misfit(rows: np.ndarray) -> float:
        length = np.linalg.norm(rows, axis=1)
        return float(np.abs(length - 1)[bvals[:3] > B0_LIMIT].sum()) if len(bvals) == 3 else 0.0

    return bvecs.T if misfit(bvecs.T) <= misfit(bvecs) + 1e-6 else bvecs
