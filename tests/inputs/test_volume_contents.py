"""Gradient tables, poses, sizes and intensities that cannot be right: refused by name, or corrected with a note.

The first line of each docstring says what lies on disk and what becomes of it; the docs list these lines.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from odd_scans import BOLD, GRID, NATIVE, head, image, put
from pdsynth.cohorts.scans import single_scan
from pdsynth.data.preprocessing import Preprocessing
from pdsynth.data.quality import quality_table
from pdsynth.data.standardise import standardise
from pdsynth.imaging.nifti import Volume
from pdsynth.imaging.plausible import check_brain, check_head_size, check_intensities
from pdsynth.imaging.poses import POSES, check_pose, pose_misfits, words
from pdsynth.imaging.segments import nearest_shell, read_gradients
from pdsynth.imaging.spatial import mni_grid
from pdsynth.imaging.template import epi_template, tissue_template
from pdsynth.types import InputError


def gradients(folder: Path, bvals, bvecs):
    (folder / "a.bval").write_text(" ".join(f"{b:g}" for b in bvals))
    (folder / "a.bvec").write_text("\n".join(" ".join(f"{v:.6f}" for v in row) for row in np.transpose(bvecs)))
    return read_gradients(folder / "a.bval", folder / "a.bvec", len(bvals), folder / "a.nii.gz")


def sphere(n: int, seed: int = 0) -> np.ndarray:
    points = np.random.default_rng(seed).standard_normal((n, 3))
    return points / np.linalg.norm(points, axis=1, keepdims=True)


@pytest.mark.parametrize(("factor", "unit"), [(1e6, "s/m\\^2"), (1e-3, "ms/um\\^2"), (100, "no scanner reaches")])
@given(top=st.sampled_from([700, 1000, 2500, 3000]))
def test_b_values_in_another_unit_are_refused(tmp_path_factory, factor, unit, top) -> None:
    """Input: b-values in s/m^2 (1e9), in ms/um^2 (1) or in no known unit. Result: refused, the unit and the factor named."""  # noqa: E501
    with pytest.raises(InputError, match=unit) as caught:
        gradients(tmp_path_factory.mktemp("dwi"), np.array([0, top, top]) * factor, [[0, 0, 0], *sphere(2)])
    assert caught.value.path.name == "a.bval"


@given(n=st.integers(2, 12), at=st.integers(1, 12), seed=st.integers(0, 99))
def test_a_trace_image_is_left_out_of_the_shell(tmp_path_factory, n, at, seed) -> None:
    """Input: a weighted volume with the direction 0 0 0 beside others, as scanners append a trace image. Result: read, that volume left out, with a note."""  # noqa: E501
    at = min(at, n + 1)
    bvecs = np.insert(np.vstack([np.zeros(3), sphere(n, seed)]), at, 0, axis=0)
    table = gradients(tmp_path_factory.mktemp("dwi"), [0.0] + [1000.0] * (n + 1), bvecs)
    assert nearest_shell(table.bvals)[0].tolist() == [i for i in range(1, n + 2) if i != at]
    assert table.is_b0.tolist() == [True] + [False] * (n + 1)
    assert table.notes[0].startswith(f"volume {at} (b=1000) has no direction") and "left out" in table.notes[0]


def test_a_clinical_trace_scan_is_used_as_the_mean_over_directions(tmp_path: Path) -> None:
    """Input: a dMRI scan of b0 and trace images alone, without directions. Result: read, the trace image taken as the mean over directions, with a note."""  # noqa: E501
    table = gradients(tmp_path, [0, 1000], np.zeros((2, 3)))
    assert nearest_shell(table.bvals)[0].tolist() == [1]
    assert "taken as trace images" in table.notes[0]


def test_volumes_without_a_direction_are_b0_if_no_other_is(tmp_path: Path) -> None:
    """Input: equal b-values for all volumes, the first without a direction, as GE writes b0. Result: read, volumes without direction taken as b0, with a note."""  # noqa: E501
    table = gradients(tmp_path, [1000.0] * 5, [[0, 0, 0], *sphere(2), [0, 0, 0], *sphere(1)])
    assert table.is_b0.tolist() == [True, False, False, True, False] and "taken as b0" in table.notes[0]


@given(shares=st.lists(st.floats(0.1, 0.7), min_size=1, max_size=8), seed=st.integers(0, 99))
def test_lengths_of_directions_that_carry_the_b_values(tmp_path_factory, shares, seed) -> None:
    """Input: equal b-values beside directions of different lengths, the longest of length 1. Result: read, b times the squared length, with a note."""  # noqa: E501
    lengths = np.sqrt([1.0, *shares])
    table = gradients(
        tmp_path_factory.mktemp("dwi"),
        [3000.0] * (len(lengths) + 1),
        np.vstack([np.zeros(3), sphere(len(lengths), seed) * lengths[:, None]]),
    )
    np.testing.assert_allclose(table.bvals, [0, *3000 * np.square(lengths)], rtol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(table.bvecs, axis=1)[1:], 1, rtol=1e-6)
    assert "lengths of its directions carry the b-values" in table.notes[0]


def test_directions_of_other_lengths_or_without_numbers_are_refused(tmp_path: Path) -> None:
    """Input: equal b-values beside directions of any lengths, or NaN as the direction of a weighted volume. Result: refused; NaN for a b0 is read."""  # noqa: E501
    with pytest.raises(InputError, match=r"directions of lengths 0\.5 to 3 beside equal b-values"):
        gradients(tmp_path, [0, 1000, 1000, 1000], [[0, 0, 0], [0.5, 0, 0], [0, 3, 0], [0, 0, 1]])
    with pytest.raises(InputError, match="no number for the direction of volume 1"):
        gradients(tmp_path, [0, 1000, 1000, 1000], [[0, 0, 0], [np.nan] * 3, *sphere(2)])
    table = gradients(tmp_path, [0, 1000, 1000, 1000], [[np.nan] * 3, *sphere(3)])
    assert not table.bvecs[0].any() and table.notes == ()


@pytest.mark.parametrize(
    ("flips", "how"),
    [
        ((1, 1, -1), "the head lies upside down"),
        ((1, -1, 1), "the head faces backwards"),
        ((1, -1, -1), "the head lies upside down"),
        ((2, 0, 1), "the head lies on its side"),
    ],
)
def test_a_head_in_a_wrong_pose_is_refused(flips: tuple[int, ...], how: str) -> None:
    """Input: a header with a wrong sign of y or z, or with exchanged axes. Result: refused, since the template fits another pose better."""  # noqa: E501
    volume = head()
    turn = np.eye(3)[list(flips)] if 0 in flips else np.diag(flips)
    wrong = np.eye(4)
    wrong[:3, :3] = turn
    with pytest.raises(
        ValueError, match=f"by its header {how}.*; look at it in a viewer, and convert it again from DICOM"
    ):
        check_pose(Volume(volume.data, wrong @ volume.affine))


def test_right_poses_are_not_doubted_and_mirrored_ones_cannot_be_seen() -> None:
    """Input: a head with left and right exchanged and no other sign of it. Result: read, since the images of a head cannot show it."""  # noqa: E501
    volume = head()
    mirror, tilt = np.diag([-1.0, 1, 1, 1]), np.eye(4)
    tilt[:3, :3] = Rotation.from_euler("xz", [15, 10], degrees=True).as_matrix()
    for world in (np.eye(4), mirror, tilt):
        assert check_pose(Volume(volume.data, world @ volume.affine)) == ()
    assert check_pose(Volume(volume.data, np.diag([-1.0, 1, 1, 1]))) == ()  # no voxel size: not judged


@pytest.mark.parametrize("factor", [0.62, 1.6])
def test_a_head_of_the_wrong_size_is_refused(tmp_path: Path, factor: float) -> None:
    """Input: a voxel size that is plausible in itself and gives a head of a wrong size. Result: refused; flagged if the head is 1.3 times too large or too small."""  # noqa: E501
    stored = np.stack([head().data] * 3, -1).astype(np.int16)
    path = put(tmp_path / BOLD, image(stored, NATIVE.affine * [[factor], [factor], [factor], [1]]))
    with pytest.raises(InputError, match=r"voxel size is wrong|voxel size in its header") as caught:
        standardise(single_scan(path), Preprocessing(grid=GRID))
    assert caught.value.path == path
    assert "check its voxel size" in check_head_size(np.diag([1.35, 1, 1, 1]))[0]


def test_there_are_24_poses_and_a_turned_header_exchanges_their_misfits() -> None:
    assert len({pose.tobytes() for pose in POSES}) == 24
    np.testing.assert_array_equal(POSES[0], np.eye(3))
    assert all(np.array_equal(p @ p.T, np.eye(3)) and np.linalg.det(p) > 0 for p in POSES)
    assert {words(p) for p in POSES if p[2, 2] == 1} == {"the head faces backwards", "the head faces sideways"}
    volume, pose = head(), POSES[7]
    turn = np.eye(4)
    turn[:3, :3] = pose
    right, turned = pose_misfits(volume), pose_misfits(Volume(volume.data, turn @ volume.affine))
    places = [next(i for i, p in enumerate(POSES) if np.array_equal(p, pose @ q)) for q in POSES]
    np.testing.assert_allclose(turned[places], right, atol=1e-6)
    assert right.argmin() == 0


def test_intensities_that_lost_their_sign_or_wrapped_are_refused() -> None:
    """Input: unsigned values read as signed, values that wrapped at 256 or have exchanged bytes, a saturated, an empty or a constant image. Result: refused, by name."""  # noqa: E501
    grid = mni_grid(4)
    brain = tissue_template(grid)["brain"] > 0.5
    data = epi_template(grid).data * np.random.default_rng(0).normal(1, 0.02, grid.shape)
    check_intensities(Volume(data, grid.affine))
    check_brain(Volume(data, grid.affine), brain)
    signed = (data / data.max() * 65535).astype(np.uint16).view(np.int16)
    for bad, problem in ((signed, "strongly negative"), (0 * data, "no signal"), (0 * data + 7, "no signal")):
        with pytest.raises(ValueError, match=problem):
            check_intensities(Volume(bad, grid.affine))
    grey = (4000 * data / data.max()).astype(np.int16)
    wrapped, exchanged = (grey % 256).astype(np.uint8), grey.astype("<i2").view(">i2")
    saturated, empty = np.minimum(data, np.percentile(data[brain], 60)), np.where(np.arange(56)[:, None] < 40, 0, data)
    cases = (wrapped, "hardly resemble"), (exchanged, "hardly resemble"), (saturated, "saturated"), (empty, "is zero")
    for bad, problem in cases:
        with pytest.raises(ValueError, match=problem):
            check_brain(Volume(bad, grid.affine), brain)
    check_brain(Volume(wrapped, np.diag([6.0, 6, 6, 1])), brain)  # neighbours differ in large voxels


def test_a_pair_that_hardly_agrees_is_flagged() -> None:
    """Input: an fMRI and a dMRI of one session that do not show the same head in the same place. Result: flagged, by
    the correlation of the two."""
    rows = [{"modality": "dmri", "correlation": value, "overlap": 0.9} for value in (0.6, 0.05, None)]
    flags = quality_table(rows)["flag"].tolist()
    assert flags[0] == flags[2] == "" and flags[1].startswith(
        "agrees little with the session's fMRI (correlation 0.05)"
    )
