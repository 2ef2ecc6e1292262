import errno
import gzip
import json
import os

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixture_trees import write_volume
from pdsynth.imaging import nifti, stream
from pdsynth.imaging.nifti import SyntheticMark, Volume, read_header, read_volume, write_synthetic
from pdsynth.types import Direction, InputError

AFFINE = np.array([[-3.0, 0.2, 0, 90], [0, 3.1, 0.4, -120], [0, -0.3, 3.5, -60], [0, 0, 0, 1]])
MARK = SyntheticMark(Direction.DMRI_TO_FMRI, ["bids::sub-1/dwi/sub-1_dwi.nii.gz"], "ab" * 32, 7, "1.2.3")


@pytest.fixture
def volume() -> Volume:
    return Volume(np.random.default_rng(0).random((5, 6, 7), np.float32), AFFINE)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_volume_round_trip(tmp_path, volume, name):
    sidecar = write_synthetic(volume, tmp_path / "new" / name, MARK)
    back = read_volume(tmp_path / "new" / name)
    np.testing.assert_array_equal(back.data, volume.data)
    np.testing.assert_allclose(back.affine, volume.affine, atol=1e-5)
    assert {p.name for p in (tmp_path / "new").iterdir()} == {name, sidecar.name}  # no temporary file stays


def test_same_volume_gives_same_bytes(tmp_path, volume):
    for name in ("a.nii.gz", "b.nii.gz"):
        write_synthetic(volume, tmp_path / name, MARK)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


def test_failed_write_leaves_the_old_file(tmp_path, volume, monkeypatch):
    path = tmp_path / "a.nii.gz"
    sidecar = write_synthetic(volume, path, MARK)
    before = path.read_bytes()

    def broken(image, target):
        target.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))

    monkeypatch.setattr(nifti.nib, "save", broken)
    with pytest.raises(OSError, match="No space left"):
        write_synthetic(Volume(volume.data * 2, AFFINE), path, MARK)
    assert path.read_bytes() == before
    assert set(tmp_path.iterdir()) == {path, sidecar}


def test_single_volume_in_four_dimensions_and_scale_factors_are_read(tmp_path):
    stored = np.arange(24, dtype=np.int16).reshape(2, 3, 4, 1)
    image = nib.Nifti1Image(stored, AFFINE)
    image.header.set_slope_inter(0.5, 10)
    nib.save(image, tmp_path / "a.nii.gz")
    np.testing.assert_allclose(read_volume(tmp_path / "a.nii.gz").data, stored[..., 0] * 0.5 + 10)


def test_header_has_shape_affine_and_zooms(tmp_path):
    image = nib.Nifti1Image(np.zeros((8, 9, 4, 3), np.int16), AFFINE)
    image.header["pixdim"][4] = 2.5
    nib.save(image, tmp_path / "a.nii.gz")
    header = read_header(tmp_path / "a.nii.gz")
    assert (header.shape, header.n_volumes, header.notes) == ((8, 9, 4, 3), 3, ())
    np.testing.assert_allclose(header.affine, AFFINE, rtol=1e-6)
    np.testing.assert_allclose(header.zooms, [*np.linalg.norm(AFFINE[:3, :3], axis=0), 2.5], rtol=1e-6)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("share", [0.001, 0.3, 0.7, 0.99])
def test_truncated_files_are_refused_by_name(tmp_path, name, share):
    data = np.random.default_rng(0).integers(0, 9999, (16, 16, 8, 5)).astype(np.int16)
    path = tmp_path / name
    nib.save(nib.Nifti1Image(data, AFFINE), path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(InputError, match=r"a\.nii.*Remedy"):
        read_header(path)


def test_members_and_padding_of_gzip_are_read_through(tmp_path):
    data = np.random.default_rng(0).integers(0, 9999, (9, 8, 7)).astype(np.int16)
    nib.save(nib.Nifti1Image(data, AFFINE), tmp_path / "a.nii")
    raw = (tmp_path / "a.nii").read_bytes()
    path = tmp_path / "b.nii.gz"
    path.write_bytes(gzip.compress(raw[:500]) + gzip.compress(raw[500:]) + b"\0" * 512)
    assert b"".join(stream.inflate(path, 100)) == raw
    assert read_header(path).shape == data.shape


def test_flipped_bit_is_noticed(tmp_path):
    path = tmp_path / "a.nii.gz"
    raw = bytearray(gzip.compress(bytes(range(256)) * 100))
    raw[-7] ^= 1  # in the checksum
    path.write_bytes(raw)
    with pytest.raises(InputError, match="damaged"):
        list(stream.inflate(path))


def test_reading_a_volume_verifies_the_checksum(tmp_path):
    path = tmp_path / "a.nii.gz"
    nib.save(nib.Nifti1Image(np.random.default_rng(0).random((16, 16, 16), np.float32), AFFINE), path)
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 0xFF  # nibabel reads the wrong voxels without a word
    path.write_bytes(raw)
    with pytest.raises(InputError, match=r"a\.nii\.gz: is damaged"):
        read_volume(path)


@given(payload=st.binary(max_size=5000), cut=st.integers(1, 200), block=st.integers(1, 300))
def test_inflate_returns_all_bytes_or_reports_truncation(tmp_path_factory, payload, cut, block):
    path = tmp_path_factory.mktemp("gz") / "a.gz"
    whole = gzip.compress(payload)
    path.write_bytes(whole)
    assert b"".join(stream.inflate(path, block)) == payload
    path.write_bytes(whole[: max(1, len(whole) - cut)])
    with pytest.raises(InputError, match="truncated"):
        list(stream.inflate(path, block))


def test_bad_images_are_refused(tmp_path, volume):
    def refused(array, affine, words, name="a.nii.gz"):
        nib.save(nib.Nifti1Image(array, affine), tmp_path / name)
        with pytest.raises(InputError, match=words):
            read_volume(tmp_path / name)

    refused(np.zeros((4, 4), np.int16), AFFINE, "shape")
    refused(np.zeros((4, 4, 4, 2), np.int16), AFFINE, "2 volumes")
    refused(np.zeros((4, 4, 4, 1, 3), np.int16), AFFINE, "shape")
    refused(np.zeros((4, 4, 4), np.complex64), AFFINE, "complex64")
    refused(np.where(np.arange(64).reshape(4, 4, 4) < 3, np.nan, 1).astype(np.float32), AFFINE, "3 non-finite")
    singular = nib.Nifti1Image(np.zeros((4, 4, 4), np.int16), None)
    singular.header["sform_code"] = 1  # with rows of zeros
    nib.save(singular, tmp_path / "s.nii")
    with pytest.raises(InputError, match="singular"):
        read_header(tmp_path / "s.nii")
    with pytest.raises(InputError, match="does not exist"):
        read_header(tmp_path / "none.nii.gz")
    for name, words in (("text.nii", "not a readable NIfTI"), ("text.nii.gz", "is not gzip data")):
        (tmp_path / name).write_text("no image")
        with pytest.raises(InputError, match=words):
            read_header(tmp_path / name)
    (tmp_path / "a.mgz").write_text("")
    with pytest.raises(InputError, match=r"neither .nii nor .nii.gz"):
        read_header(tmp_path / "a.mgz")
    with pytest.raises(ValueError, match="3 axes"):
        Volume(np.zeros((2, 2)), AFFINE)
    with pytest.raises(ValueError, match="must end"):
        write_synthetic(volume, tmp_path / "a.img", MARK)


def test_synthetic_image_carries_every_mark(tmp_path, volume):
    path = tmp_path / "sub-1_desc-synthetic_boldref.nii.gz"
    sidecar = write_synthetic(volume, path, MARK)
    header = nib.load(path).header
    assert header["descrip"].item() == b"SYNTHETIC pdsynth v1.2.3 dMRI->fMRI NOT ACQUIRED"
    assert header["intent_name"].item() == b"SYNTHETIC"
    assert [e.get_code() for e in header.extensions] == [6]
    written = json.loads(sidecar.read_text())
    assert sidecar.name == "sub-1_desc-synthetic_boldref.json"
    expected = {
        "Synthetic": True,
        "SourceModality": "dMRI",
        "Sources": MARK.sources,
        "ModelSHA256": MARK.model_sha256,
        "Seed": 7,
        "IntendedUse": "research only",
    }
    assert expected.items() <= written.items()
    np.testing.assert_array_equal(read_volume(path).data, volume.data)
    assert read_header(path).synthetic


@pytest.mark.parametrize("left", ["intent_name", "descrip", "extension", "sidecar"])
def test_one_mark_is_enough(tmp_path, volume, left):
    path = tmp_path / "a.nii.gz"
    sidecar = write_synthetic(volume, path, MARK)
    image = nib.load(path)
    image = nib.Nifti1Image(np.asarray(image.dataobj), image.affine, image.header)
    if left != "sidecar":
        sidecar.unlink()
    if left != "extension":
        image.header.extensions.clear()
    for name in {"intent_name", "descrip"} - {left}:
        image.header[name] = b""
    nib.save(image, path)
    assert read_header(path).synthetic


def test_acquired_image_is_not_synthetic(tmp_path, volume):
    write_volume(volume, tmp_path / "a.nii.gz")
    assert not read_header(tmp_path / "a.nii.gz").synthetic
    for text in ('{"Synthetic": false}', "no json", "[]"):
        (tmp_path / "a.json").write_text(text)
        assert not read_header(tmp_path / "a.nii.gz").synthetic


@given(version=st.text("0123456789.abcdev+", max_size=120))
def test_description_fits_the_header(version):
    mark = SyntheticMark(Direction.FMRI_TO_DMRI, [], "", None, version)
    assert len(mark.descrip.encode()) <= 79
    assert mark.descrip.startswith("SYNTHETIC pdsynth v")
    assert mark.descrip.endswith("fMRI->dMRI NOT ACQUIRED")


def test_real_headers(real_data):
    header = read_header(real_data / "bids-real/sub-xa30/func/sub-xa30_task-fa_bold.nii.gz")
    assert header.shape == (64, 64, 33, 20)
    np.testing.assert_allclose(header.zooms, [3.375, 3.375, 3.4, 1], atol=1e-4)
    assert header.notes == () and header.time_note == ""
    with pytest.raises(InputError, match="gives no orientation in its header"):
        read_header(real_data / "odd/bold_header-zooms-1mm_filtered_func_data.nii.gz")
