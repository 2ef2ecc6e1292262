"""Prepared pairs: what a batch holds, against the arrays and closed forms; determinism; incomplete folders."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage

from pdsynth.data.batch import COARSE, WholeSource, coarsen, multiscale, source_batch, summarise
from pdsynth.data.pairs import Pairs
from pdsynth.data.shards import write_shard
from pdsynth.types import Direction, InputError, Modality


def test_batch_holds_what_the_arrays_hold(prepared: Pairs) -> None:
    rows = np.array([3, 7])
    batch = prepared.batch(rows)
    assert len(batch) == 2 and batch.corner.tolist() == [[0, 0, 0]] * 2 and batch.bval.tolist() == [[1.0]] * 2
    for direction in Direction:
        shards = [np.load(prepared.root / "sessions" / f"sub-0{row}.npy")[0] for row in rows]
        np.testing.assert_array_equal(batch.targets[direction][:, 0], [s[direction.target.value] for s in shards])
        np.testing.assert_array_equal(batch.masks[direction][:, 0], [s[f"{direction.target}_brain"] for s in shards])
        source = batch.sources[direction]
        np.testing.assert_array_equal(source.volume[:, 0], [s[direction.source.value] for s in shards])
        assert torch.equal(source.context[:, :1], source.volume)
        assert batch.oracle[direction].shape == batch.targets[direction].shape
    assert batch.site == ["b", "b"]
    assert not {"diagnosis", "age", "sex"} & set(vars(batch))


def test_patches_are_cut_from_the_whole_and_repeat(prepared: Pairs) -> None:
    patch = (8, 8, 8)
    batch, again = (prepared.patches(patch, 13, (5,), 2) for _ in range(2))
    whole = prepared.batch(batch.rows)
    for i, (x, y, z) in enumerate(batch.corner.tolist()):
        assert all(c % 2 == 0 for c in (x, y, z))
        for direction in Direction:
            cut = whole.targets[direction][i, :, x : x + 8, y : y + 8, z : z + 8]
            assert torch.equal(batch.targets[direction][i], cut)
            assert torch.equal(batch.sources[direction].summary[i], whole.sources[direction].summary[i])
    assert torch.equal(batch.corner, again.corner) and (batch.rows == again.rows).all()
    assert len(set(batch.rows[:10])) == 10  # every participant before anyone twice
    assert not torch.equal(batch.corner, prepared.patches(patch, 13, (5,), 3).corner)


@pytest.mark.parametrize("patch", [(32, 16, 16), (16, 30, 16), (16, 16, 26)])
def test_a_patch_larger_than_the_grid_is_refused(prepared: Pairs, patch: tuple[int, int, int]) -> None:
    sizes = "24 x 28 x 24 voxels, smaller than the patch of " + " x ".join(map(str, patch))
    with pytest.raises(InputError, match=f"{sizes}.*Remedy: prepare with a smaller --grid-mm"):
        prepared.patches(patch, 4, (0,), 0)


def test_only_and_to_keep_everything(prepared: Pairs) -> None:
    batch = prepared.batch(np.array([0, 4, 8]))
    one, alone = batch.to("cpu").only(1), prepared.batch(np.array([4]))
    for direction in Direction:
        assert torch.equal(one.targets[direction], alone.targets[direction])
        for name, tensor in vars(one.sources[direction]).items():
            assert torch.equal(tensor, getattr(alone.sources[direction], name))


def test_synthesis_sees_what_training_saw(prepared: Pairs) -> None:
    row = 2
    batch = prepared.batch(np.array([row]))
    for direction in Direction:
        modality = direction.source
        single = source_batch(prepared.volume(modality, row), prepared.brain(modality, row), direction, 1000)
        for name, tensor in vars(single.sources[direction]).items():
            assert torch.equal(tensor, getattr(batch.sources[direction], name)), name
        assert single.targets == {}


def test_views_of_a_volume_against_closed_forms() -> None:
    generator = np.random.default_rng(0)
    brain = np.zeros((12, 16, 12), bool)
    brain[2:10, 3:12, 2:9] = True
    volume = (generator.random(brain.shape) * brain).astype(np.float32)
    values = volume[brain]
    expected = [values.mean(), values.std(), brain.mean(), *np.percentile(values, (5, 25, 50, 75, 95))]
    np.testing.assert_allclose(summarise(volume, brain), expected, rtol=1e-6)
    assert not summarise(volume, np.zeros_like(brain)).any()
    np.testing.assert_allclose(coarsen(volume)[1, 2, 0], volume[4:8, 8:12, :4].mean(), rtol=1e-6)
    assert coarsen(np.ones((13, 16, 12), np.float32)).shape == (13 // COARSE, 4, 3)
    context = multiscale(volume, brain)
    np.testing.assert_array_equal(context[0], volume)
    np.testing.assert_allclose(context[2], ndimage.gaussian_filter(volume, 2, truncate=3), atol=1e-6)
    flat = multiscale(np.full((16, 16, 16), 0.5, np.float32), np.ones((16, 16, 16)))
    np.testing.assert_allclose(flat[:4], 0.5, atol=1e-6)
    np.testing.assert_allclose(flat[4], 0, atol=1e-6)
    assert (WholeSource.of(volume, brain).inside == np.flatnonzero(brain)).all()


def test_views_select_rows(prepared: Pairs) -> None:
    train, test = prepared.split("train"), prepared.split("test")
    assert (len(train), len(test), len(prepared.split("val"))) == (6, 4, 0)
    assert not set(train.table["participant_id"]) & set(test.table["participant_id"])
    np.testing.assert_array_equal(test.volume(Modality.DMRI, 1), prepared.volume(Modality.DMRI, 7))


def test_incomplete_or_leaking_folders_are_refused(prepared: Pairs, tmp_path: Path) -> None:
    def copy(name: str) -> Path:
        return Path(shutil.copytree(prepared.root, tmp_path / name))

    with pytest.raises(InputError, match="is not a prepared folder"):
        Pairs.open(tmp_path)
    lost = copy("lost")
    (lost / "sessions" / "sub-03.npy").unlink()
    with pytest.raises(InputError, match=r"sub-03\.npy: is missing"):
        Pairs.open(lost)
    cut = copy("cut")
    shard = cut / "sessions" / "sub-03.npy"
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])
    with pytest.raises(InputError, match=r"sub-03\.npy: is cut short"):
        Pairs.open(cut)
    gone = copy("gone")
    pairs = Pairs.open(gone)
    shutil.rmtree(gone / "sessions")
    with pytest.raises(InputError, match=r"sub-00\.npy: is missing or damaged"):
        pairs.volume(Modality.FMRI, 0)
    other = Path(shutil.copytree(prepared.root / "sessions", gone / "sessions"))
    volume = {"fmri": np.zeros((2, 3, 4), np.float16)}
    write_shard(other / "sub-00.npy", [volume])
    with pytest.raises(InputError, match=r"sub-00\.npy: holds volumes of \{\(2, 3, 4\)\}, not of \(24, 28, 24\)"):
        pairs.volume(Modality.FMRI, 0)
    twice = copy("twice")
    with (twice / "splits.tsv").open("a") as file:
        file.write("sub-00\ttest\t\n")
    with pytest.raises(InputError, match="sub-00 has more than one row"):
        Pairs.open(twice)
    misspelt = copy("misspelt")
    splits = (misspelt / "splits.tsv").read_text()
    (misspelt / "splits.tsv").write_text(splits.replace("\ttrain\t", "\tTrain\t"))
    with pytest.raises(InputError, match=r"splits\.tsv: names a split 'Train'"):
        Pairs.open(misspelt)
    (misspelt / "splits.tsv").write_text("".join(splits.splitlines(keepends=True)[:-1]))
    with pytest.raises(InputError, match=r"splits\.tsv: has no row of sub-"):
        Pairs.open(misspelt)
    changed = copy("changed")
    manifest = json.loads((changed / "manifest.json").read_text())
    (changed / "manifest.json").write_text(json.dumps(manifest | {"outputs": {"pairs.tsv": "0" * 64}}))
    with pytest.raises(InputError, match="changed or removed after"):
        Pairs.open(changed)
