import tracemalloc

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from pdsynth.imaging import segments
from pdsynth.imaging.segments import (
    direction_subsets,
    nearest_shell,
    read_gradients,
    segment_means,
    steady_start,
    time_blocks,
)
from pdsynth.types import InputError


def save(path, data, slope=None, inter=0.0, order="<"):
    image = nib.Nifti1Image(data, np.diag([3.0, 3, 4, 1]), header=nib.Nifti1Header(endianness=order))
    image.header.set_data_dtype(data.dtype)
    if slope is not None:
        image.header.set_slope_inter(slope, inter)
    nib.save(image, path)
    return path


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("dtype", ["u1", "i2", "u2", "i4", "f4", "f8"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_means_equal_those_of_the_whole_array(tmp_path, monkeypatch, name, dtype, order):
    monkeypatch.setattr(segments, "PIECE", 999)  # pieces end inside values and volumes
    data = np.random.default_rng(0).integers(0, 200, (7, 5, 3, 11)).astype(order + dtype)
    path = save(tmp_path / name, data, slope=0.25, inter=-3.0, order=order)
    chosen = [np.array([0, 3, 4]), np.array([10]), np.arange(11)]  # overlapping
    means = segment_means(path, chosen)
    assert means.shape == (3, 7, 5, 3)
    assert means.dtype == np.float32
    whole = nib.load(path).get_fdata()
    for mean, indices in zip(means, chosen, strict=True):
        np.testing.assert_allclose(mean, whole[..., indices].mean(-1), rtol=1e-5, atol=1e-4)


@given(
    shape=st.tuples(st.integers(1, 6), st.integers(1, 6), st.integers(1, 6), st.integers(1, 8)),
    seed=st.integers(0, 1000),
    piece=st.integers(1, 400),
)
def test_means_do_not_depend_on_the_piece(tmp_path_factory, shape, seed, piece):
    generator = np.random.default_rng(seed)
    data = generator.integers(-3000, 3000, shape).astype(np.int16)
    path = save(tmp_path_factory.mktemp("scan") / "a.nii.gz", data)
    chosen = [np.flatnonzero(generator.random(shape[3]) < 0.5), np.arange(shape[3])]
    chosen = [c for c in chosen if len(c)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segments, "PIECE", piece)
        means = segment_means(path, chosen)
    expected = np.stack([data[..., c].mean(-1) for c in chosen])
    np.testing.assert_allclose(means, expected, rtol=1e-5, atol=1e-3)


def test_three_dimensional_scan_is_its_own_mean(tmp_path):
    data = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    np.testing.assert_array_equal(segment_means(save(tmp_path / "a.nii", data), [np.array([0])])[0], data)


def test_long_scan_needs_little_memory_and_equals_nibabels_mean(tmp_path):
    """Its time is measured in benchmarks/segment_means.py."""
    head = np.random.default_rng(0).integers(200, 4000, (64, 64, 36, 1))
    path = save(tmp_path / "a.nii.gz", (head + np.arange(150) % 7).astype(np.int16))
    blocks = [np.arange(5, 150), *time_blocks(150, 3, 5)]
    tracemalloc.start()
    try:
        means = segment_means(path, blocks)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak - means.nbytes <= 16 * 2**20
    stored = np.asarray(nib.load(path).dataobj)
    for mean, block in zip(means, blocks, strict=True):
        np.testing.assert_allclose(mean, stored[..., block].mean(-1), rtol=1e-6)


def test_bad_scans_and_segments_are_refused(tmp_path):
    data = np.ones((4, 4, 4, 6), np.float32)
    data[1, 2, 3, 4] = np.nan
    data[0, 0, :, 5] = np.inf
    path = save(tmp_path / "a.nii.gz", data)
    with pytest.raises(InputError, match="1 non-finite voxels in volume 4"):
        segment_means(path, [np.arange(6)])
    with pytest.raises(InputError, match="4 non-finite voxels in volume 5"):
        segment_means(path, [np.array([5])])
    np.testing.assert_array_equal(segment_means(path, [np.arange(4)]), 1)  # the bad volumes are not used
    for wrong in (np.array([6]), np.array([-1])):
        with pytest.raises(ValueError, match="but the scan has 6 volumes"):
            segment_means(path, [wrong])
    with pytest.raises(ValueError, match="empty"):
        segment_means(path, [np.array([], int)])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"a\.nii\.gz"):
        segment_means(path, [np.arange(4)])


@given(st.integers(1, 60), st.integers(1, 12), st.integers(0, 9))
def test_time_blocks_are_a_partition(n_volumes, n_segments, skip):
    if n_volumes - skip < n_segments:
        with pytest.raises(ValueError, match="Lower --segments"):
            time_blocks(n_volumes, n_segments, skip)
        return
    blocks = time_blocks(n_volumes, n_segments, skip)
    assert np.concatenate(blocks).tolist() == list(range(skip, n_volumes))
    sizes = [len(b) for b in blocks]
    assert len(sizes) == n_segments
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(
    ("t_r", "n", "dropped"), [(2.0, 150, 4), (0.8, 400, 10), (3.0, 10, 1), (None, 100, 4), (0, 5, 0)]
)
def test_steady_start_is_eight_seconds_or_a_tenth(t_r, n, dropped):
    assert steady_start(t_r, n) == dropped


def test_negative_repetition_time_is_refused():
    with pytest.raises(ValueError, match="-2"):
        steady_start(-2.0, 100)


def sphere(n, seed=0):
    points = np.random.default_rng(seed).standard_normal((n, 3))
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def tables(folder, bvals, bvecs):
    np.savetxt(folder / "a.bval", np.atleast_2d(bvals), fmt="%.6g")
    np.savetxt(folder / "a.bvec", bvecs, fmt="%.8f")
    return folder / "a.bval", folder / "a.bvec"


@pytest.mark.parametrize("n", [1, 2, 4, 12])
@pytest.mark.parametrize("transposed", [False, True])
def test_gradients_are_read_from_rows_or_columns(tmp_path, n, transposed):
    vectors = sphere(n)
    files = tables(tmp_path, np.full(n, 1000.0), vectors if transposed else vectors.T)
    np.testing.assert_allclose(read_gradients(*files, n, "scan.nii.gz").bvecs, vectors, atol=1e-6)


@pytest.mark.parametrize("transposed", [False, True])
def test_three_gradients_are_distinguished_from_their_transpose_by_unit_length(tmp_path, transposed):
    vectors = sphere(3)
    files = tables(tmp_path, np.full(3, 1000.0), vectors if transposed else vectors.T)
    np.testing.assert_allclose(read_gradients(*files, 3, "scan.nii.gz").bvecs, vectors, atol=1e-6)


def test_gradients_are_scaled_and_b0_recognised(tmp_path):
    vectors = np.vstack([np.zeros(3), 0.7 * sphere(3), [0, 0, 0]])
    gradients = read_gradients(*tables(tmp_path, [1.25, 1000, 1000, 990, 5], vectors.T), 5, "scan.nii.gz")
    assert gradients.is_b0.tolist() == [True, False, False, False, True]
    np.testing.assert_allclose(np.linalg.norm(gradients.bvecs, axis=1), [0, 1, 1, 1, 0], atol=1e-6)


def test_bad_gradients_are_refused(tmp_path):
    bval, bvec = tables(tmp_path, [0, 1000, 1000], np.vstack([np.zeros(3), sphere(2)]).T)
    with pytest.raises(InputError, match=r"scan.*\.bval"):
        read_gradients(None, bvec, 3, "scan.nii.gz")
    with pytest.raises(InputError, match=r"scan.*\.bvec"):
        read_gradients(bval, tmp_path / "none.bvec", 3, "scan.nii.gz")
    with pytest.raises(InputError, match=r"a\.bval.*3 b-values for 4 volumes"):
        read_gradients(bval, bvec, 4, "scan.nii.gz")
    bval.write_text("0 1000 word\n")
    with pytest.raises(InputError, match="not a table of numbers"):
        read_gradients(bval, bvec, 3, "scan.nii.gz")
    bval.write_text("0 1000 nan\n")
    with pytest.raises(InputError, match="non-finite"):
        read_gradients(bval, bvec, 3, "scan.nii.gz")
    bval.write_text("0 1000 -1000\n")
    with pytest.raises(InputError, match="negative"):
        read_gradients(bval, bvec, 3, "scan.nii.gz")


@pytest.mark.parametrize(
    ("bvals", "indices", "shell"),
    [
        ([0, 1000, 1000], [1, 2], 1000),
        ([1.25, 929.75, 929.75], [1, 2], 929.75),
        ([0, 700, 1005, 995, 2000, 2010, 1000], [2, 3, 6], 1000),
        ([5, 2500, 2490, 0], [1, 2], 2495),
        ([0, 2000, 2180, 3000], [1, 2], 2090),  # ten percent of a high shell
    ],
)
def test_nearest_shell(bvals, indices, shell):
    found, b = nearest_shell(np.array(bvals, float))
    assert found.tolist() == indices
    assert b == shell


def test_no_shell_is_an_error():
    with pytest.raises(ValueError, match="b > 0"):
        nearest_shell(np.array([0.0, 5.0]))


@given(n=st.integers(1, 40), n_segments=st.integers(1, 6), seed=st.integers(0, 99))
def test_direction_subsets_are_an_antipodally_symmetric_partition(n, n_segments, seed):
    vectors, indices = np.vstack([np.zeros((2, 3)), sphere(n, seed)]), np.arange(2, n + 2)
    if n < n_segments:
        with pytest.raises(ValueError, match="Lower --segments"):
            direction_subsets(vectors, indices, n_segments)
        return
    subsets = direction_subsets(vectors, indices, n_segments)
    assert sorted(np.concatenate(subsets).tolist()) == indices.tolist()
    sizes = [len(s) for s in subsets]
    assert max(sizes) - min(sizes) <= 1
    flipped = vectors * np.random.default_rng(seed).choice([-1, 1], (len(vectors), 1))
    for a, b in zip(subsets, direction_subsets(flipped, indices, n_segments), strict=True):
        assert a.tolist() == b.tolist()


def anisotropy(vectors):
    """Distance of the directions' scatter from that of a uniform sphere."""
    return np.linalg.norm(vectors.T @ vectors / len(vectors) - np.eye(3) / 3)


def test_subsets_cover_the_sphere_better_than_blocks():
    # Sorted by height, as some scanners order their directions: blocks are bands of the sphere.
    vectors = Rotation.from_rotvec([0.3, 0.2, 0.1]).apply(sphere(64, seed=3))
    vectors = vectors[np.argsort(np.abs(vectors[:, 2]))]
    subsets = direction_subsets(vectors, np.arange(64), 4)
    spread = [anisotropy(vectors[s]) for s in subsets]
    blocks = [anisotropy(vectors[b]) for b in np.array_split(np.arange(64), 4)]
    shuffles = [
        anisotropy(vectors[s])
        for seed in range(20)
        for s in np.array_split(np.random.default_rng(seed).permutation(64), 4)
    ]
    assert max(spread) < 0.5 * np.mean(blocks)
    assert np.mean(spread) < np.mean(shuffles)


def test_real_gradient_tables(real_data):
    cases = {
        "bids-real/sub-xa30/dwi/sub-xa30_dir-AP_dwi": (21, 2500, 20),
        "single/dwi_siemens_b1000": (42, 1000, 40),
        "odd/dwi_partial-slab_b0-reads-1.25": (17, 929.75, 16),
        "odd/dwi_toshiba": (13, 1500, 12),
    }
    for name, (n, b, directions) in cases.items():
        scan = real_data / name
        gradients = read_gradients(f"{scan}.bval", f"{scan}.bvec", n, f"{scan}.nii.gz")
        indices, shell = nearest_shell(gradients.bvals)
        assert (len(indices), shell, gradients.is_b0.sum()) == (directions, b, n - directions)
        np.testing.assert_allclose(np.linalg.norm(gradients.bvecs[indices], axis=1), 1)
