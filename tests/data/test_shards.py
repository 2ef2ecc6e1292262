"""A shard that was damaged is named where its voxels are read, whatever the damage."""

from __future__ import annotations

import io
import pickle

import numpy as np
import pytest

from pdsynth.data.shards import FOLDER, Shards, write_shard
from pdsynth.files import sha256
from pdsynth.types import InputError

SHAPE = (4, 5, 6)


@pytest.fixture
def shards(tmp_path):
    (tmp_path / FOLDER).mkdir()
    generator = np.random.default_rng(0)
    rows = [{"fmri": generator.random(SHAPE).astype(np.float16), "fmri_brain": np.ones(SHAPE, bool)} for _ in range(2)]
    write_shard(tmp_path / FOLDER / "a.npy", rows)
    return tmp_path, rows


def test_volumes_come_back_as_they_were_written(shards):
    root, rows = shards
    read = Shards(root, SHAPE, {f"{FOLDER}/a.npy": sha256(root / FOLDER / "a.npy")})
    for number, row in enumerate(rows):
        np.testing.assert_array_equal(read.read("a.npy", number, "fmri"), row["fmri"])


def test_every_damaged_byte_of_the_header_is_an_error_that_names_the_file(shards):
    root, _ = shards
    path = root / FOLDER / "a.npy"
    whole = path.read_bytes()
    generator, seen = np.random.default_rng(1), 0
    for place in range(0, 256):
        spoilt = bytearray(whole)
        spoilt[place] ^= 1 << int(generator.integers(8))
        path.write_bytes(spoilt)
        try:
            volume = Shards(root, SHAPE).read("a.npy", 0, "fmri")  # without its digest, as an older folder
        except InputError as error:
            assert error.path == path and "pdsynth prepare" in error.remedy
            seen += 1
        else:
            assert volume.shape == SHAPE  # a blank of the header, say
    assert seen > 60


def test_one_flipped_bit_of_a_voxel_is_noticed(shards):
    root, _ = shards
    path = root / FOLDER / "a.npy"
    digest = sha256(path)
    spoilt = bytearray(path.read_bytes())
    spoilt[-7] ^= 4
    path.write_bytes(spoilt)
    with pytest.raises(InputError, match=r"a\.npy: was changed after the folder was prepared"):
        Shards(root, SHAPE, {f"{FOLDER}/a.npy": digest}).read("a.npy", 0, "fmri")


def test_other_kinds_of_file_in_its_place_are_refused_and_not_run(shards, tmp_path):
    root, _ = shards
    path, canary = root / FOLDER / "a.npy", tmp_path / "canary"

    class Bomb:
        def __reduce__(self):
            return (canary.touch, ())

    archive, objects = io.BytesIO(), io.BytesIO()
    np.savez(archive, a=np.zeros(3))
    np.save(objects, np.array([Bomb()], object), allow_pickle=True)
    for content in (b"", archive.getvalue(), objects.getvalue(), pickle.dumps(Bomb())):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"a\.npy: is missing or damaged"):
            Shards(root, SHAPE).read("a.npy", 0, "fmri")
    assert not canary.exists()
