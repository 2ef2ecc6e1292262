"""Volumes that cannot be right: each is refused by name, corrected with a note, or flagged, also on the screen.

The first line of each docstring says what lies on disk and what becomes of it; the docs list these lines.
"""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial.transform import Rotation

from fixture_trees import write_scan
from pdsynth.cli import main
from pdsynth.cohorts.bids import bids
from pdsynth.cohorts.cohort import Scan
from pdsynth.cohorts.scans import single_scan
from pdsynth.data.means import scan_means
from pdsynth.data.preprocessing import Preprocessing
from pdsynth.data.quality import quality_table
from pdsynth.data.standardise import standardise
from pdsynth.imaging.nifti import Volume, read_header, read_volume
from pdsynth.imaging.plausible import check_brain, check_head_size, check_intensities
from pdsynth.imaging.poses import POSES, check_pose, pose_misfits, words
from pdsynth.imaging.segments import nearest_shell, read_gradients
from pdsynth.imaging.spatial import Grid, mni_grid, resample
from pdsynth.imaging.template import epi_template, tissue_template
from pdsynth.methods import checkpoint, create
from pdsynth.synthesis import Model
from pdsynth.types import InputError, Modality

GRID = mni_grid(8)
NATIVE = Grid((30, 34, 28), np.array([[-6, 0, 0, 88], [0, 6, 0, -118], [0, 0, 6, -70], [0, 0, 0, 1]], float))
AFFINE = np.eye(4)  # oblique, left-handed as scanners write it
AFFINE[:3, :3] = Rotation.from_euler("xyz", [6, -3, 2], degrees=True).as_matrix() * [-5.0, 5.1, 5.5]
AFFINE[:3, 3] = 60, -70, -50
SHAPE = (24, 26, 20, 3)
BOLD = "sub-01_task-rest_bold.nii"


def head(seed: int = 0) -> Volume:
    """The template brain under a person's own smooth field, as a scan of 6 mm voxels sees it."""
    field = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(NATIVE.shape), 3)
    data = resample(epi_template(mni_grid(4)), NATIVE) * (1 + 0.15 * field / field.std())
    return Volume(100 * data, NATIVE.affine)


def with_fields(raw: bytes, kind=nib.Nifti1Header, **values: object) -> bytes:
    """The same image with other values in its header, which nibabel would not write."""
    order = "<" if int.from_bytes(raw[:4], "little") == kind.sizeof_hdr else ">"
    header = np.frombuffer(raw[: kind.sizeof_hdr], kind.template_dtype.newbyteorder(order)).copy()
    for name, value in values.items():
        header[name] = value
    return header.tobytes() + raw[kind.sizeof_hdr :]


def image(data: np.ndarray | None = None, affine: np.ndarray = AFFINE, **fields: object) -> bytes:
    """The bytes of a .nii file of a scan, with both forms and a repetition time of 2 s; `fields` are changed."""
    data = np.ones(SHAPE, np.int16) if data is None else data
    made = nib.Nifti1Image(data, affine)
    made.set_sform(affine, 1)
    made.set_qform(affine, 1)
    made.header.set_xyzt_units("mm", "sec")
    made.header["pixdim"][4] = 2.0
    return with_fields(made.to_bytes(), **fields)


def put(path: Path, raw: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(raw) if path.name.endswith(".gz") else raw)
    return path


def notes(path: Path) -> tuple[str, ...]:
    header = read_header(path)
    return (*header.notes, *filter(None, [header.time_note]))


def refused(path: Path, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        single_scan(path)
    assert caught.value.path == path and caught.value.remedy


def test_a_scan_without_orientation_codes_is_refused_and_the_others_are_read(tmp_path: Path) -> None:
    """Input: a NIfTI file whose sform_code and qform_code are 0. Result: refused, since left and right are not known."""  # noqa: E501
    name = "sub-{0}/func/sub-{0}_task-rest_bold.nii.gz"
    put(tmp_path / name.format("01"), image(sform_code=0, qform_code=0))
    put(tmp_path / name.format("02"), image())
    cohort = bids(tmp_path)
    assert [s.participant_id for s in cohort.subjects if s.sessions] == ["sub-02"]
    (only,) = cohort.rejected
    assert "gives no orientation in its header" in only.reason and "sform_code" in only.remedy
    refused(tmp_path / name.format("01"), "left and right are not known")


def test_sform_and_qform_of_opposite_handedness_are_refused(tmp_path: Path) -> None:
    """Input: an sform and a qform that mirror each other. Result: refused, since left and right are not known."""
    mirrored = nib.Nifti1Image(np.ones(SHAPE, np.int16), AFFINE)
    mirrored.set_sform(AFFINE, 1)
    mirrored.set_qform(AFFINE * [[-1], [1], [1], [1]], 1)
    refused(put(tmp_path / BOLD, mirrored.to_bytes()), "opposite handedness: left and right are not known")
    mirrored.set_sform(AFFINE, 0)
    nib.save(mirrored, tmp_path / BOLD)
    assert single_scan(tmp_path / BOLD).modality is Modality.FMRI  # only one of the two is valid


def test_a_qform_that_is_no_rotation_matters_only_alone(tmp_path: Path) -> None:
    """Input: a qform whose quaternion is no rotation. Result: ignored beside an sform; refused if it is the only form."""  # noqa: E501
    path = put(tmp_path / BOLD, image(quatern_b=2.0))
    np.testing.assert_allclose(read_header(path).affine, AFFINE, rtol=1e-6)
    refused(put(tmp_path / BOLD, image(quatern_b=2.0, sform_code=0)), "is not a readable NIfTI image")


def test_an_sform_far_from_the_qform_is_noted(tmp_path: Path) -> None:
    """Input: an sform and a qform that put voxels at places more than 10 mm apart. Result: read by the sform, with a note."""  # noqa: E501
    far = nib.Nifti1Image(np.ones(SHAPE, np.int16), AFFINE)
    moved = AFFINE.copy()
    moved[0, 3] += 25
    far.set_sform(moved, 1)
    far.set_qform(AFFINE, 1)
    path = put(tmp_path / BOLD, far.to_bytes())
    assert notes(path)[0] == "its sform and qform differ by up to 25 mm; the sform is used"
    np.testing.assert_allclose(read_header(path).affine, moved, rtol=1e-6)


def test_an_identity_sform_beside_another_pixdim_is_refused(tmp_path: Path) -> None:
    """Input: an identity matrix as sform beside a pixdim of other voxels. Result: refused, since the voxel size is doubtful."""  # noqa: E501
    odd = nib.Nifti1Image(np.zeros((60, 60, 39, 2), np.int16), np.diag([-4.0, 4, 4, 1]))
    odd.set_qform(np.diag([-4.0, 4, 4, 1]), 1)
    odd.set_sform(np.eye(4), 1)
    refused(put(tmp_path / BOLD, odd.to_bytes()), "1x1x1 mm by its affine, but of 4x4x4 mm.*the voxel size is doubtful")


@pytest.mark.parametrize(("shape", "words"), [((64, 64, 33, 2), "too small"), ((200, 210, 180, 1), "identity matrix")])
def test_an_identity_affine_is_refused(tmp_path: Path, shape: tuple[int, ...], words: str) -> None:
    """Input: an identity matrix as affine, and voxels of 1 mm. Result: refused, since voxel size and orientation are doubtful."""  # noqa: E501
    refused(put(tmp_path / BOLD, nib.Nifti1Image(np.zeros(shape, np.uint8), np.eye(4)).to_bytes()), words)


def test_an_affine_of_voxel_sizes_alone_and_a_missing_pixdim_are_noted(tmp_path: Path) -> None:
    """Input: an affine without an origin; or a pixdim of 1x1x1 beside a right sform. Result: read, with a note."""
    path = write_scan(tmp_path / BOLD)
    assert "left and right may be exchanged" in notes(path)[0]
    path = put(tmp_path / BOLD, image(pixdim=[-1, 1, 1, 1, 2, 0, 0, 0], qform_code=0))
    assert notes(path)[0].endswith("but of 1x1x1 mm by its pixdim; the affine is used")
    np.testing.assert_allclose(read_header(path).affine, AFFINE, rtol=1e-6)


def test_an_intercept_that_is_not_a_number_is_read_as_zero(tmp_path: Path) -> None:
    """Input: scl_slope 2 and scl_inter NaN or infinite. Result: read with intercept 0, as niftilib does, with a note."""  # noqa: E501
    data = np.arange(120, dtype=np.int16).reshape(4, 5, 6)
    for inter in (np.nan, np.inf):
        path = put(tmp_path / "a.nii.gz", image(data, scl_slope=2, scl_inter=inter))
        np.testing.assert_array_equal(read_volume(path).data, 2.0 * data)
        assert notes(path)[0].startswith(f"scl_inter is {inter:g} beside scl_slope 2")
    for slope in (0, np.nan, np.inf):  # NIfTI: not scaled, whatever the intercept
        path = put(tmp_path / "a.nii.gz", image(data, scl_slope=slope, scl_inter=7))
        np.testing.assert_array_equal(read_volume(path).data, data)
        assert notes(path) == ()


def test_voxels_are_read_behind_the_header_if_vox_offset_is_zero(tmp_path: Path) -> None:
    """Input: vox_offset 0 in a .nii file. Result: read from byte 352 (544 in NIfTI-2), as niftilib does, with a note."""  # noqa: E501
    data = np.arange(120, dtype=np.int16).reshape(4, 5, 6)
    for kind in (nib.Nifti1Image, nib.Nifti2Image):
        raw = kind(data, AFFINE).to_bytes()
        path = put(tmp_path / "a.nii", with_fields(raw, kind.header_class, vox_offset=0))
        np.testing.assert_array_equal(read_volume(path).data, data)
        assert notes(path) == (f"vox_offset is 0 in its header; {kind.header_class.single_vox_offset} is used",)
        path.write_bytes(path.read_bytes()[:-2])
        with pytest.raises(InputError, match="truncated"):
            read_header(path)
    with_extension = nib.Nifti1Image(data, AFFINE)
    with_extension.header.extensions.append(nib.nifti1.Nifti1Extension(6, b"a comment"))
    raw = with_fields(with_extension.to_bytes(), vox_offset=0)
    with pytest.raises(InputError, match="vox_offset 0 beside header extensions"):
        read_header(put(tmp_path / "a.nii", raw))


@pytest.mark.parametrize(
    ("value", "unit", "seconds", "note"),
    [
        (2.0, 8, 2.0, ""),
        (2000.0, 16, 2.0, ""),
        (2e6, 24, 2.0, ""),
        (2000.0, 8, 2.0, "gives a repetition time of 2000 in s; 2 s is used, as if it were in ms"),
        (2.0, 16, 2.0, "gives a repetition time of 2 in ms; 2 s is used, as if it were in s"),
        (2000.0, 0, 2.0, "2000 in an unknown unit; 2 s is used, as if it were in ms"),
        (0.0, 8, 0.0, "gives no repetition time; 2 s is assumed"),
        (50.0, 8, 0.0, "50 in s, which no scan has; 2 s is assumed"),
        (np.nan, 8, 0.0, "nan in s, which no scan has; 2 s is assumed"),
    ],
)
def test_the_repetition_time_is_read_in_its_unit(tmp_path: Path, value, unit, seconds, note) -> None:
    """Input: a repetition time of 0, in ms or us, or in another unit than the header says. Result: read in s, with a note if the header is wrong."""  # noqa: E501
    path = put(tmp_path / BOLD, image(pixdim=[-1, 5, 5, 5, value, 0, 0, 0], xyzt_units=2 + unit, qform_code=0))
    assert read_header(path).zooms[3] == pytest.approx(seconds, rel=1e-6)
    assert read_header(path).time_note.endswith(note) and bool(note) == bool(read_header(path).time_note)


def test_the_unit_of_length_is_the_one_that_fits_a_head(tmp_path: Path) -> None:
    """Input: voxel sizes in m or um, or in another unit than the header says. Result: read in mm, with a note if the header is wrong."""  # noqa: E501
    for stated, true, note in ((1, 1e-3, False), (3, 1e3, False), (1, 1, True), (3, 1, True), (2, 1e-3, True)):
        affine = np.vstack([AFFINE[:3] * true, AFFINE[3:]])
        path = put(tmp_path / BOLD, image(affine=affine, xyzt_units=stated + 8))
        np.testing.assert_allclose(read_header(path).affine, AFFINE, rtol=1e-5, atol=1e-4)
        assert any("is taken as the unit" in each for each in notes(path)) is note


FORMS = {
    "kind": st.sampled_from([nib.Nifti1Image, nib.Nifti2Image]),
    "order": st.sampled_from("<>"),
    "dtype": st.sampled_from(["u1", "i2", "u2", "i4", "f4", "f8"]),
    "scaled": st.booleans(),
    "unit": st.sampled_from([(0, 1.0), (1, 1e-3), (2, 1.0), (3, 1e3)]),
    "time": st.sampled_from([(8, 2.0), (16, 2000.0), (24, 2e6)]),
    "codes": st.sampled_from([(1, 0), (0, 1), (2, 1), (4, 4)]),
    "axes": st.tuples(st.permutations([0, 1, 2]), st.tuples(*[st.sampled_from([1, -1])] * 3)),
    "offset": st.booleans(),
    "ending": st.sampled_from([".nii", ".nii.gz"]),
}


def rewritten(stored: np.ndarray, affine: np.ndarray, form: dict[str, object]) -> bytes:
    """The scan 0.5 * stored - 3 in another valid form."""
    perm, flips = form["axes"]
    turn = np.column_stack([perm, flips])
    data = nib.orientations.apply_orientation(stored, turn)
    affine = affine @ nib.orientations.inv_ornt_aff(turn, stored.shape[:3])
    scaled = form["scaled"] or form["dtype"][0] in "iu"
    values = (data if scaled else 0.5 * data - 3).astype(form["order"] + form["dtype"])
    (unit, factor), (time, seconds) = form["unit"], form["time"]
    affine = np.vstack([factor * affine[:3], affine[3:]])
    made = form["kind"](values, affine, header=form["kind"].header_class(endianness=form["order"]))
    made.header.set_data_dtype(values.dtype)
    made.set_sform(affine, form["codes"][0])
    made.set_qform(affine, form["codes"][1])
    if scaled:
        made.header.set_slope_inter(0.5, -3)
    raw = made.to_bytes()
    header = np.frombuffer(raw[: made.header.sizeof_hdr], made.header.structarr.dtype)
    pixdim = header["pixdim"].copy()
    pixdim[..., 4] = seconds
    values = {"xyzt_units": unit + time, "pixdim": pixdim, "scl_slope": 0.5 if scaled else 0, "scl_inter": -3}
    if form["offset"]:
        values["vox_offset"] = 0
    return with_fields(raw, form["kind"].header_class, **values)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(form=st.fixed_dictionaries(FORMS), seed=st.integers(0, 99))
def test_a_scan_in_any_valid_form_gives_the_same_volume(tmp_path: Path, form: dict[str, object], seed: int) -> None:
    """Input: a scan in NIfTI-1 or 2, either byte order, any number type, scaled, in m or um, in ms or us, with one form or two, axes in any order. Result: read, always as the same volume."""  # noqa: E501
    stored = np.random.default_rng(seed).integers(6, 250, (9, 8, 7, 3)).astype(np.uint8)
    path = put(tmp_path / f"sub-01_bold{form['ending']}", rewritten(stored, AFFINE, form))
    mean = scan_means(Scan(Modality.FMRI, path), Preprocessing()).means[0]
    plain = nib.as_closest_canonical(nib.Nifti1Image(0.5 * stored.mean(-1) - 3, AFFINE))
    found = nib.as_closest_canonical(nib.Nifti1Image(mean.data, mean.affine))
    np.testing.assert_allclose(found.dataobj, plain.dataobj, rtol=1e-6)
    np.testing.assert_allclose(found.affine, plain.affine, rtol=1e-4, atol=1e-3)
    assert read_header(path).zooms[3] == pytest.approx(2.0, rel=1e-6)
    assert [note for note in notes(path) if "vox_offset" not in note] == []


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
    with pytest.raises(ValueError, match=f"by its header {how}.*; convert it again from DICOM"):
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


@pytest.mark.parametrize(("name", "to"), [("a_bold", "fmri"), ("a_dwi", "dmri"), ("series7", "dmri")])
def test_a_scans_own_modality_is_no_target(tmp_path: Path, model: Path, name: str, to: str) -> None:
    """Input: a scan given with --to its own modality, by its name or a .bval beside it. Result: refused."""
    path = write_scan(tmp_path / f"{name}.nii.gz")
    (tmp_path / "series7.bval").write_text("0 1000 1000 1000")
    with pytest.raises(InputError, match=rf"{name}\.nii\.gz: is .* cannot be synthesised from it"):
        single_scan(path, Modality(to).other)
    with pytest.raises(InputError, match="cannot be synthesised from it"):
        Model.load(model, "cpu").synthesize(Scan(Modality(to), path), to=to)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    card = {"grid_shape": list(GRID.shape), "grid_affine": GRID.affine.tolist()}
    return checkpoint.save(
        create("copy-source", {"grid_shape": list(GRID.shape)}), tmp_path_factory.mktemp("model"), card
    )


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    return int(stop.value.code or 0)


def test_a_pair_that_hardly_agrees_is_flagged() -> None:
    """Input: an fMRI and a dMRI of one session that do not show the same head in the same place. Result: flagged."""
    rows = [{"modality": "dmri", "correlation": value, "overlap": 0.9} for value in (0.6, 0.05, None)]
    flags = quality_table(rows)["flag"].tolist()
    assert flags[0] == flags[2] == "" and flags[1].startswith(
        "agrees little with the session's fMRI (correlation 0.05)"
    )


def test_doubtful_scans_are_on_the_screen_of_prepare_and_synthesize(tmp_path, model, capsys, monkeypatch) -> None:
    """Input: a folder with a right scan, an upside-down one, and one with a doubtful header. Result: flagged, on the screen and in quality.tsv or synthesised.tsv; the second is refused in rejected.tsv."""  # noqa: E501
    monkeypatch.setenv("COLUMNS", "200")
    stored = np.stack([head(1).data] * 3, -1).astype(np.int16)
    others = np.stack([head(2).data] * 3, -1).astype(np.int16)
    upside = NATIVE.affine @ np.diag([1.0, 1, -1, 1])
    study, name = tmp_path / "study", "sub-{0}/func/sub-{0}_task-rest_bold.nii.gz"
    put(study / name.format("a"), image(stored, NATIVE.affine))
    down = put(study / name.format("b"), image(stored, upside))
    doubtful = put(study / name.format("c"), image(others, NATIVE.affine, scl_slope=2, scl_inter=np.nan))
    assert run("inspect", study) == 0
    assert "scl_inter is nan" in " ".join(capsys.readouterr().out.split())
    assert run("prepare", study, tmp_path / "prepared", "--grid-mm", 8, "--jobs", 1) == 0
    screen = " ".join(capsys.readouterr().out.split())
    assert "upside down" in screen and "scl_inter is nan" in screen and "Doubtful scans" in screen
    rejected = pd.read_csv(tmp_path / "prepared/rejected.tsv", sep="\t").set_index("path")
    assert "by its header the head lies upside down" in rejected.loc[name.format("b"), "reason"]
    quality = pd.read_csv(tmp_path / "prepared/quality.tsv", sep="\t", keep_default_na=False).set_index("path")
    assert "scl_inter is nan" in quality.loc[name.format("c"), "flag"]
    assert quality.loc[name.format("a"), "flag"] == ""
    for _ in range(2):  # the second run makes nothing, and prints the same
        assert run("synthesize", model, study, tmp_path / "out", "--jobs", 1, "--device", "cpu") == 0
        screen = " ".join(capsys.readouterr().out.split())
        assert "upside down" in screen and "scl_inter is nan" in screen
    table = pd.read_csv(tmp_path / "out/synthesised.tsv", sep="\t", keep_default_na=False).set_index("participant_id")
    assert table["status"].tolist() == ["made", "refused", "made"]
    assert "scl_inter is nan" in table.loc["sub-c", "reason"] and table.loc["sub-a", "reason"] == ""
    assert run("synthesize", model, down, tmp_path / "one", "--device", "cpu") == 2
    assert "upside down" in capsys.readouterr().err
    assert standardise(single_scan(doubtful), Model.load(model, "cpu").preprocessing).notes
