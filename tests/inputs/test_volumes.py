"""Volumes that cannot be right: each is refused by name, corrected with a note, or flagged, also on the screen.

The first line of each docstring says what lies on disk and what becomes of it; the docs list these lines.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fixture_trees import copy_source_model, write_dwi, write_scan
from odd_scans import AFFINE, BOLD, NATIVE, SHAPE, head, image, put, with_fields
from pdsynth.cli import main
from pdsynth.cohorts.bids import bids
from pdsynth.cohorts.cohort import Scan
from pdsynth.cohorts.scans import single_scan
from pdsynth.data.means import scan_means, scan_notes
from pdsynth.data.preprocessing import Preprocessing
from pdsynth.data.standardise import standardise
from pdsynth.imaging.nifti import read_header, read_volume
from pdsynth.synthesis import Model
from pdsynth.types import InputError, Modality


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
    assert "gives no orientation in its header" in only.reason and "copy the affine and its code" in only.remedy
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


@pytest.mark.parametrize(("name", "to"), [("a_bold", "fmri"), ("a_dwi", "dmri"), ("series7", "dmri")])
def test_a_scans_own_modality_is_no_target(tmp_path: Path, model: Path, name: str, to: str) -> None:
    """Input: a scan given with --to its own modality, by its name or a .bval beside it. Result: refused, by name."""
    path = write_scan(tmp_path / f"{name}.nii.gz")
    (tmp_path / "series7.bval").write_text("0 1000 1000 1000")
    with pytest.raises(InputError, match=rf"{name}\.nii\.gz: is .* cannot be synthesised from it"):
        single_scan(path, Modality(to).other)
    with pytest.raises(InputError, match="cannot be synthesised from it"):
        Model.load(model, "cpu").synthesize(Scan(Modality(to), path), to=to)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_source_model(tmp_path_factory.mktemp("model"))


def test_inspect_names_the_doubts_of_the_gradient_tables(tmp_path, capsys) -> None:
    """Input: dMRI with b = 2500 alone. Result: flagged, by `inspect` already, before a voxel is read."""
    path = write_dwi(tmp_path / "sub-01/dwi/sub-01_dwi.nii.gz", bvals=(0, 2500, 2500, 2500))
    write_dwi(tmp_path / "sub-02/dwi/sub-02_dwi.nii.gz")
    note = "has no shell near b = 1000 s/mm^2; that of b = 2500 is used, whose contrast differs"
    assert run("inspect", tmp_path, "--json") == 0
    doubts = {row["path"]: row["note"] for row in json.loads(capsys.readouterr().out)["doubtful"]}
    assert [name for name, doubt in doubts.items() if note in doubt] == [str(path)]
    found = scan_notes(single_scan(path), read_header(path))
    assert note in found and doubts[str(path)] == "; ".join(found)
    assert scan_means(single_scan(path), Preprocessing()).notes == found


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    return int(stop.value.code or 0)


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


def test_compression_that_the_name_denies(tmp_path) -> None:
    """Input: a plain NIfTI image named .nii.gz, or a gzip file named .nii. Result: refused, with the name that fits."""
    header = nib.Nifti1Image(np.ones((8, 8, 8), np.int16), np.diag([4.0, 4, 4, 1])).to_bytes()
    for name, content, remedy in (
        ("a.nii.gz", header, "copy .* to .nii if"),
        ("b.nii", gzip.compress(header), "rename it to .nii.gz"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=f"although its name .* Remedy: {remedy}"):
            read_header(tmp_path / name)
