"""Segments of a 4D scan, and their mean volumes, which are computed in one pass over the file.

fMRI segments are contiguous blocks of time in the steady state. dMRI segments are subsets of one shell whose directions
are spread evenly over the sphere, because contiguous blocks of a gradient table would differ in their directions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pdsynth.imaging.nifti import ScanHeader, read_header, stored_voxels
from pdsynth.types import InputError

PIECE = 1 << 20  # bytes in memory at a time
CONVERT_TABLE = "convert it again from DICOM, which writes it with the scan; remove computed volumes such as a trace"
BACKGROUND = "set them to 0 if they are only the background outside the brain; else convert the scan again"
B0_LIMIT = 50.0  # s/mm^2; scanners write a b0 as 0, 1.25 or 5
LARGEST_B = 50_000.0  # s/mm^2
NO_DIRECTION = 0.1  # length of a vector up to which it is none
LENGTH_SPREAD = 1.1  # ratio of lengths, and their distance from 1, from which they are not rounding errors
EQUAL_B = 1.05  # ratio of b-values up to which they are equal
UNSTEADY_SECONDS = 8.0  # about five T1 of grey matter
UNSTEADY_SHARE = 0.1  # of the volumes, at most


def segment_means(path: str | Path, segments: Sequence[np.ndarray]) -> np.ndarray:
    """Mean volume of each of N segments of a 3D or 4D scan: (N, X, Y, Z) float32.

    segments: one array of volume numbers (indices of the fourth axis, from 0) per segment; segments may overlap. The
    file is read once, in pieces, so that a few MB of memory besides the result are enough for a scan of any length. The
    header's scale factors are applied.

    Raises ValueError for an empty segment or an index out of range. Raises InputError for a truncated or damaged file,
    for non-finite voxels in a volume of a segment, and for means beyond the range of float32.
    """
    path = Path(path)
    header = read_header(path)
    members = _members(segments, header.n_volumes)
    x, y, z = header.shape[:3]
    voxels = x * y * z
    sums = np.zeros((len(segments), voxels), np.float32)
    bad: dict[int, int] = {}  # non-finite voxels of each volume that has some
    position = 0
    for values in _values(path, header):
        start = 0
        while start < len(values):
            volume, voxel = divmod(position, voxels)
            stop = min(len(values), start + voxels - voxel)
            if volume in members:
                part = values[start:stop]
                non_finite = len(part) - np.count_nonzero(np.isfinite(part)) if part.dtype.kind == "f" else 0
                if non_finite:
                    bad[volume] = bad.get(volume, 0) + int(non_finite)
                for segment in members[volume]:
                    target = sums[segment, voxel : voxel + len(part)]
                    np.add(target, part, out=target, casting="same_kind")
            position, start = position + stop - start, stop
    if bad:
        worst = min(bad)
        raise InputError(path, f"has {bad[worst]} non-finite voxels in volume {worst}", BACKGROUND)
    sums /= np.array([len(s) for s in segments], np.float32)[:, None]
    with np.errstate(over="ignore", invalid="ignore"):  # values beyond the range of float32 are refused below
        if header.slope != 1:
            sums *= np.float32(header.slope)
        if header.inter != 0:
            sums += np.float32(header.inter)
    if not np.isfinite(sums).all():
        raise InputError(path, "has means beyond the range of float32", "repair its scale factors, or leave it out")
    return sums.reshape(len(segments), z, y, x).transpose(0, 3, 2, 1)  # NIfTI stores x fastest


def time_blocks(n_volumes: int, n_segments: int, skip: int = 0) -> list[np.ndarray]:
    """Volume numbers of contiguous blocks of time after the first `skip` volumes; their lengths differ by at most one.

    Raises ValueError for n_segments below 1, or above the number of volumes after the first `skip`.

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
    """Number of volumes to drop until the magnetisation is steady: the first `seconds`, at most `share` of the volumes.

    The number of volumes in `seconds` is rounded up, and the limit by `share`, a fraction, is rounded down. t_r is the
    repetition time in seconds; None or 0 means that it is unknown, and 2 s are assumed. Raises ValueError for a
    negative t_r.

    >>> steady_start(2.0, 150), steady_start(1.0, 20), steady_start(None, 1)
    (4, 2, 0)
    """
    if t_r is not None and t_r < 0:
        raise ValueError(f"a repetition time of {t_r} s is not possible; check the scan's sidecar.")
    return int(min(share * n_volumes, np.ceil(seconds / (t_r or 2.0))))


@dataclass(frozen=True, eq=False)
class Gradients:
    """Gradient table: bvals (n,) in s/mm^2, and bvecs (n, 3), which are unit vectors, or zero where there is none.

    A volume that is left out, such as a scanner's trace image, has a bval of NaN: it is neither a b0 nor in a shell.
    notes name the doubtful entries of the tables and how they were read.
    """

    bvals: np.ndarray
    bvecs: np.ndarray
    notes: tuple[str, ...] = ()

    @property
    def is_b0(self) -> np.ndarray:
        """Whether each volume is a b0 (b-value of at most B0_LIMIT = 50 s/mm^2), (n,) bool; false for NaN."""
        return self.bvals <= B0_LIMIT


def read_gradients(bval: str | Path | None, bvec: str | Path | None, n_volumes: int, path: str | Path) -> Gradients:
    """Read the gradient table of the scan at `path`: b-values and directions of its n_volumes volumes.

    bval, bvec: the files, or None, which raises InputError. The directions may be the rows or the columns of the .bvec
    file. They are scaled to unit length; one with a length of up to 0.1 counts as none. If all b-values above 50 s/mm^2
    are equal (within 5 %) and the lengths of the directions differ (by more than 10 %), a b-value is multiplied by its
    direction's squared length, as scanners with one nominal b-value and MRtrix define it.

    Some volumes with b > 50 s/mm^2 may have no direction. If others have one, those without are left out: their b-value
    is NaN. They count as b0 instead if the scan has no b0 and the first volume is one of them. If none has a direction,
    as in a clinical trace scan, all are used.

    Raises InputError for a missing or unreadable file, for a number of b-values or directions other than n_volumes, for
    b-values that are negative, in another unit or above 50,000 s/mm^2, for a direction that is not a number at b > 50
    s/mm^2, and for equal b-values if the lengths of the directions differ and the longest is not about 1.
    """
    bvals = _table(bval, "b-values (.bval)", path).ravel()
    bvecs = _table(bvec, "gradient directions (.bvec)", path, gaps=True)
    if bvecs.shape[0] == 3 and bvecs.shape != (3, 3):
        bvecs = bvecs.T
    elif bvecs.shape == (3, 3):
        bvecs = _square_bvecs(bvecs, bvals)
    bval, bvec = Path(str(bval)), Path(str(bvec))
    for name, source, count in (("b-values", bval, len(bvals)), ("directions", bvec, len(bvecs))):
        if count != n_volumes:
            raise InputError(source, f"holds {count} {name} for {n_volumes} volumes", CONVERT_TABLE)
    if bvecs.ndim != 2 or bvecs.shape[1] != 3:
        raise InputError(bvec, f"has {bvecs.shape[1]} numbers per direction", "write three: x, y and z")
    if (bvals < 0).any():
        raise InputError(bval, f"holds a negative b-value, {bvals.min():g}", "repair it")
    unknown = ~np.isfinite(bvecs).all(1)  # tools that divide by the length write NaN for a b0
    if (unknown & (bvals > B0_LIMIT)).any():
        volume = int(np.flatnonzero(unknown & (bvals > B0_LIMIT))[0])
        raise InputError(bvec, f"has no number for the direction of volume {volume}", "repair it")
    bvecs = np.where(unknown[:, None], 0, bvecs)
    length = np.linalg.norm(bvecs, axis=1)
    _check_unit(bval, bvals, length)
    bvals, lengths_note = _with_lengths(bvec, bvals, length)
    bvals, direction_note = _without_direction(bvals, length)
    units = np.divide(bvecs, length[:, None], out=np.zeros_like(bvecs), where=length[:, None] > NO_DIRECTION)
    return Gradients(bvals, units, tuple(filter(None, [lengths_note, direction_note])))


def _check_unit(bval: Path, bvals: np.ndarray, length: np.ndarray) -> None:
    """Raise InputError for b-values that are in s/m^2 or ms/um^2, or too large for any scanner."""
    top = float(bvals.max())
    if top > LARGEST_B:
        if B0_LIMIT < top / 1e6 <= LARGEST_B:
            problem = f"holds b-values up to {top:g}, which are in s/m^2, not in s/mm^2"
            raise InputError(bval, problem, "divide them by 1000000")
        problem = f"holds b-values up to {top:g}, which no scanner reaches in s/mm^2"
        raise InputError(bval, problem, "write them in s/mm^2, for instance 1000")
    if 0 < top <= B0_LIMIT and (length[bvals > 0] > NO_DIRECTION).all() and 1000 * top <= LARGEST_B:
        problem = f"holds b-values up to {top:g} with directions, which are in ms/um^2 or scaled, not in s/mm^2"
        remedy = "look up the b-value of the protocol: if it is 1000, multiply by 1000; else take the .bval of dcm2niix"
        raise InputError(bval, problem, remedy)


def _with_lengths(bvec: Path, bvals: np.ndarray, length: np.ndarray) -> tuple[np.ndarray, str]:
    """The b-values, times the squared lengths of the directions if these carry them; and a note, or "".

    Raises InputError if the lengths differ, all b-values are equal, and the longest direction is not a unit vector.
    """
    weighted = bvals > B0_LIMIT
    directed = weighted & (length > NO_DIRECTION)
    if not directed.any() or bvals[weighted].max() > EQUAL_B * bvals[weighted].min():
        return bvals, ""
    shortest, longest = float(length[directed].min()), float(length[directed].max())
    unit = 1 / LENGTH_SPREAD <= longest <= LENGTH_SPREAD
    if longest <= LENGTH_SPREAD * shortest:
        note = f"its directions have the length {longest:.2g}, not 1; they are scaled, and the b-values are not"
        return bvals, "" if unit else note
    if not unit:
        problem = f"has directions of lengths {shortest:.2g} to {longest:.2g} beside equal b-values"
        raise InputError(bvec, problem, "write unit vectors, and the b-value of each volume into the .bval file")
    scaled = np.where(weighted, bvals * np.square(length), bvals)
    least, most = scaled[directed].min(), scaled[directed].max()
    note = f"the lengths of its directions carry the b-values: {least:.0f} to {most:.0f} s/mm^2 were computed from them"
    return scaled, note


def _without_direction(bvals: np.ndarray, length: np.ndarray) -> tuple[np.ndarray, str]:
    """The b-values, with NaN for weighted volumes that are left out for want of a direction; and a note, or ""."""
    weighted, directed = bvals > B0_LIMIT, length > NO_DIRECTION
    odd = np.flatnonzero(weighted & ~directed)
    if len(odd) == 0:
        return bvals, ""
    listed = f"{'volume' if len(odd) == 1 else 'volumes'} {', '.join(map(str, odd[:5]))}{', ...' * (len(odd) > 5)}"
    first = f"{listed} (b={bvals[odd[0]]:g}) has no direction" if len(odd) == 1 else f"{listed} have no direction"
    if not (weighted & directed).any():
        return bvals, f"{first}: taken as trace images, which are means over directions"
    if not (bvals <= B0_LIMIT).any() and odd[0] == 0:
        return np.where(weighted & ~directed, 0, bvals), f"{first}: taken as b0, because no other volume is one"
    return np.where(weighted & ~directed, np.nan, bvals), f"{first}, as the trace image of a scanner; left out"


def nearest_shell(bvals: np.ndarray, target: float = 1000.0) -> tuple[np.ndarray, float]:
    """Indices of the volumes of the shell nearest to the b-value `target`, and the median b-value of that shell.

    bvals (n,) and target are in s/mm^2. The distance is that of the median; of two equally near shells the lower one
    counts. b0 volumes and those with a NaN belong to no shell. A shell holds b-values up to 100 s/mm^2 or 10 % above
    its lowest one, whichever is more. Raises ValueError if no volume is diffusion-weighted.

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
    best = int(np.argmin(np.abs(np.array(medians) - target)))
    return np.sort(np.array(shells[best])), medians[best]


def direction_subsets(bvecs: np.ndarray, indices: np.ndarray, n_segments: int) -> list[np.ndarray]:
    """Split the volumes of a shell into subsets whose directions are spread evenly over the sphere.

    bvecs (n, 3) are the directions of all volumes, and `indices` the volumes of the shell. Each subset holds volume
    numbers. v and -v count as the same direction. The subsets choose in turn: each takes the free direction with the
    smallest electrostatic energy (Jones et al. 1999) relative to the directions that it has. An empty subset takes the
    one with the largest energy relative to the directions of the other subsets. Their sizes differ by at most one, and
    each is sorted. Raises ValueError if n_segments is below 1 or the shell has fewer volumes than that.
    """
    indices = np.asarray(indices)
    if n_segments < 1 or len(indices) < n_segments:
        raise ValueError(
            f"the shell has {len(indices)} directions; cannot make {n_segments} segments. Lower --segments."
        )
    energy = _repulsion(np.asarray(bvecs)[indices])
    free = np.ones(len(indices), bool)
    subset_energy = np.zeros((n_segments, len(indices)))  # energy of each direction relative to each subset
    subsets: list[list[int]] = [[] for _ in range(n_segments)]
    seeds = energy.sum(1)
    for turn in range(len(indices)):
        subset = turn % n_segments
        # An empty subset takes the direction with the largest energy relative to the others: they would take it last.
        score = subset_energy[subset] if subsets[subset] else -subset_energy.sum(0) - 1e-3 * seeds
        choice = int(np.argmin(np.where(free, score, np.inf)))
        free[choice] = False
        subsets[subset].append(choice)
        subset_energy[subset] += energy[choice]
    return [np.sort(indices[subset]) for subset in subsets]


def _repulsion(directions: np.ndarray) -> np.ndarray:
    """Electrostatic energy of each pair of directions, each a pair of charges at v and -v: (n, n), diagonal zero."""
    cosine = np.clip(directions @ directions.T, -1, 1)
    energy = 1 / np.sqrt(np.maximum(2 - 2 * cosine, 1e-6)) + 1 / np.sqrt(np.maximum(2 + 2 * cosine, 1e-6))
    np.fill_diagonal(energy, 0)
    return energy


def _members(segments: Sequence[np.ndarray], n_volumes: int) -> dict[int, list[int]]:
    """The numbers of the segments that contain each volume: volume -> segments."""
    members: dict[int, list[int]] = {}
    for number, segment in enumerate(segments):
        if len(segment) == 0:
            raise ValueError(f"segment {number} is empty; lower --segments.")
        for volume in np.asarray(segment).tolist():
            if not 0 <= volume < n_volumes:
                raise ValueError(f"segment {number} contains volume {volume}, but the scan has {n_volumes} volumes.")
            members.setdefault(volume, []).append(number)
    return members


def _values(path: Path, header: ScanHeader) -> Iterator[np.ndarray]:
    """The stored voxel values in file order, without the scale factors, in pieces of about PIECE bytes."""
    rest = b""
    for piece in stored_voxels(path, header, PIECE):
        data = rest + piece if rest else piece
        whole = len(data) // header.dtype.itemsize * header.dtype.itemsize
        rest = data[whole:]
        yield np.frombuffer(data[:whole] if rest else data, header.dtype)


def _table(source: str | Path | None, name: str, path: str | Path, gaps: bool = False) -> np.ndarray:
    """Numbers of a text table, (rows, columns); with gaps, some of them may be NaN.

    source: the table's file; name: its name in an error. path: the scan. Raises InputError if it is missing or invalid.
    """
    if source is None or not Path(source).is_file():
        raise InputError(path, f"has no {name} in its folder", "put the table next to the scan")
    try:
        rows = [line for line in Path(source).read_text().splitlines() if line.strip()]
        table = np.loadtxt(rows, ndmin=2, dtype=np.float64) if rows else np.empty((0, 0))
    except ValueError as error:
        raise InputError(source, f"is not a table of numbers ({error})", "write numbers between spaces only") from error
    if table.size == 0 or not (gaps or np.isfinite(table).all()):
        raise InputError(source, "is empty or contains non-finite numbers", "repair it")
    return table


def _square_bvecs(bvecs: np.ndarray, bvals: np.ndarray) -> np.ndarray:
    """Orient a 3 x 3 table so that its rows are directions: those must be unit vectors, or zero, where b > 0.

    If both orientations fit, the columns are taken as directions, as FSL writes them.
    """

    def misfit(rows: np.ndarray) -> float:
        length = np.linalg.norm(rows, axis=1)
        return float(np.minimum(np.abs(length - 1), length)[bvals > B0_LIMIT].sum()) if len(bvals) == 3 else 0.0

    return bvecs.T if misfit(bvecs.T) <= misfit(bvecs) + 1e-6 else bvecs
