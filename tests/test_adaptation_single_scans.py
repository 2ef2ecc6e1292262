"""A model is corrected from scans of different people: the mean error, carried by the anatomy of each person."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage
from tests.adapting import quality

from pdsynth import api
from pdsynth.adaptation import adapt
from pdsynth.adaptation.unpaired import carried, mean_error
from pdsynth.cli import main
from pdsynth.data.batch import source_batch
from pdsynth.data.pairs import Pairs
from pdsynth.methods import checkpoint, create
from pdsynth.methods.correction import ESTIMATE, LOCAL_COLUMNS, SOURCE, local_columns
from pdsynth.types import Available, Direction

SIZE = (20, 24, 16)


def single_scans(generator: np.random.Generator, error: np.ndarray, people: int) -> tuple[np.ndarray, np.ndarray]:
    """Targets and estimates of different people, whose anatomy has an SD of .1; the targets are higher by `error`."""
    return (error + 0.1 * generator.standard_normal((people, *SIZE)), 0.1 * generator.standard_normal((people, *SIZE)))


@pytest.mark.parametrize("people", [5, 20])
@pytest.mark.parametrize("alike", [False, True])
def test_the_mean_error_is_learnt_from_different_people(people: int, alike: bool) -> None:
    """The fraction that is judged to be removed is the true one, if the hemispheres are alike and if they are not."""
    generator = np.random.default_rng(4)
    x = np.abs(np.arange(SIZE[0]) - 9.5) < 5 if alike else np.arange(SIZE[0]) < 10
    error = np.where(x, 0.2, 0)[:, None, None] * np.ones(SIZE)
    judged, true, opposite = [], [], []
    for _ in range(20):
        volumes = single_scans(generator, error, people)
        found = mean_error(*volumes, np.ones(SIZE, bool), np.tile(np.arange(people) % 5, 2))
        judged.append(found.removed)
        true.append(1 - np.square(error - found.map).sum() / np.square(error).sum())
        opposite.append(np.sqrt(np.square(found.map - found.map[::-1]).mean()) / 2)
    assert np.mean(true) > 0.8
    chance = 0.1 / np.sqrt(people)  # without shrinking
    assert np.mean(opposite) < 0.5 * chance if alike else np.mean(opposite) == pytest.approx(0.1, abs=0.02)
    assert np.mean(judged) == pytest.approx(np.mean(true), abs=0.05 if people == 5 else 0.02)
    assert np.std(judged) < found.error < 0.05  # the error is that of a known mean error, and too large


def test_a_mean_error_of_chance_is_not_learnt() -> None:
    generator = np.random.default_rng(5)
    kept = 0
    for _ in range(20):
        found = mean_error(
            *single_scans(generator, np.zeros(SIZE), 6), np.ones(SIZE, bool), np.tile(np.arange(6) % 5, 2)
        )
        assert np.abs(found.map).mean() < 0.02
        kept += found.removed > found.error
    assert kept <= 6


def field(generator: np.random.Generator, low: float, high: float) -> np.ndarray:
    """A smooth random volume with this range, (X, Y, Z)."""
    smooth = ndimage.gaussian_filter(generator.standard_normal(SIZE), 2)
    return low + (high - low) * (smooth - smooth.min()) / np.ptp(smooth)


def deformed(volume: np.ndarray, shift: np.ndarray) -> np.ndarray:
    return ndimage.shift(volume, shift, order=1, mode="nearest")


def columns(estimate: np.ndarray, source: np.ndarray) -> np.ndarray:
    direction = Direction.FMRI_TO_DMRI
    batch = source_batch(source, np.ones(SIZE, bool), direction, 1000)
    return local_columns(torch.from_numpy(estimate).float()[None, None], batch.sources[direction])[0].numpy()


def corrected(maps: np.ndarray, of: np.ndarray) -> np.ndarray:
    return of[ESTIMATE] + (maps * of).sum(0)


def test_the_mean_over_people_is_the_mean_error() -> None:
    """Of scans with unequal weights; the error has no relation to any column."""
    generator = np.random.default_rng(10)
    people = [(columns(field(generator, 0, 1), field(generator, 0, 1)), weight) for weight in (1.0, 0.5, 0.5, 1.0)]
    error = 0.1 * generator.standard_normal(SIZE)
    maps = carried(error, field(generator, 0, 1), lambda: people, np.ones(SIZE, bool))
    added = sum(weight * (maps * of).sum(0) for of, weight in people) / 3
    assert added == pytest.approx(error, abs=1e-4) and maps.shape == (LOCAL_COLUMNS, *SIZE)


def test_an_error_that_is_a_function_of_the_source_is_that_of_each_person() -> None:
    """The mean error is that of the mean person. Everybody's own one is known from the same function."""
    generator = np.random.default_rng(11)
    sources = [field(generator, 0, 1) for _ in range(6)]
    people = [(columns(0.5 * source, source), 1.0) for source in sources]
    targets = [0.9 - 0.6 * source for source in sources]
    mean = np.mean(targets, 0)
    error = mean - 0.5 * np.mean(sources, 0)
    maps = carried(error, mean, lambda: people, np.ones(SIZE, bool))
    after = [np.square(corrected(maps, of) - t).mean() for (of, _), t in zip(people, targets, strict=True)]
    alone = [np.square(of[ESTIMATE] + error - t).mean() for (of, _), t in zip(people, targets, strict=True)]
    assert np.mean(after) < 0.3 * np.mean(alone)


def test_the_mean_target_follows_the_anatomy_of_a_person() -> None:
    """Source and target are unrelated textures of one anatomy, which lies elsewhere in each head."""
    generator = np.random.default_rng(12)
    texture, other = field(generator, 0, 1), field(generator, 0, 1)
    shifts = generator.uniform(-1.2, 1.2, (12, 3))
    people = [(columns(np.full(SIZE, 0.5), deformed(texture, shift)), 1.0) for shift in shifts]
    targets = [deformed(other, shift) for shift in shifts]
    mean = np.mean(targets, 0)
    maps = carried(mean - 0.5, mean, lambda: people, np.ones(SIZE, bool))
    inner = np.s_[3:-3, 3:-3, 3:-3]
    after = [np.square(corrected(maps, of) - t)[inner].mean() for (of, _), t in zip(people, targets, strict=True)]
    alone = [np.square(mean - t)[inner].mean() for t in targets]
    assert np.mean(after) < 0.75 * np.mean(alone)


def test_estimates_of_a_scan_and_of_its_mirror_image_are_averaged(prepared) -> None:
    """In one direction, of a method whose estimate is the same volume for everybody, and so for a mirrored head."""
    method = create("population-mean", {"grid_shape": list(prepared.grid.shape)})
    method.means.copy_(torch.rand(method.means.shape, generator=torch.Generator().manual_seed(3)))
    method.correction_mirror[0] = True
    batch = prepared.batch(np.arange(2))
    one, other = (method.predict(batch, direction) for direction in Direction)
    averaged = method.estimate(batch, Direction.FMRI_TO_DMRI)[0]
    assert torch.equal(averaged, (one + one.flip(2)) / 2) and not torch.equal(averaged, one)
    assert torch.equal(method.estimate(batch, Direction.DMRI_TO_FMRI)[0], other)
    copy = create("copy-source", {"grid_shape": list(prepared.grid.shape)})
    copy.correction_mirror[:] = True  # a method that treats both sides alike gives the same volume
    assert torch.equal(copy.estimate(batch, Direction.FMRI_TO_DMRI)[0], copy.predict(batch, Direction.FMRI_TO_DMRI))


def alone(pairs: Pairs) -> Pairs:
    """The pairs as if every second person had the fMRI alone, and the others the dMRI."""
    table = pairs.table.assign(available=[(Available.FMRI, Available.DMRI)[row % 2] for row in range(len(pairs))])
    return Pairs(pairs.root, table, pairs.manifest, pairs.volumes)


def test_scans_without_a_partner_correct_the_model(make_prepared, tmp_path, capsys):
    """The model's estimate is .3 everywhere. The mean error is learnt from 15 people with fMRI and 15 with dMRI."""
    pairs = make_prepared(40, test=10)
    method = create("population-mean", {"grid_shape": list(pairs.grid.shape)})
    method.means.fill_(0.3)
    model = checkpoint.save(method, tmp_path / "model", pairs.preprocessing.entries() | {"scans_sha256": ["0" * 16]})
    of_single = alone(pairs)
    found = adapt(model, of_single, tmp_path / "adapted", "cpu")
    before, after = (api.load(folder, "cpu") for folder in (model, tmp_path / "adapted"))
    for direction, each in found.items():
        assert each.correction and (each.participants, each.sources, each.targets) == (0, 15, 15)
        assert each.removed == pytest.approx(0.96, abs=0.05) and each.removed > 5 * each.removed_error
        assert quality(after.method, pairs.test, direction) - quality(before.method, pairs.test, direction) > 5
    assert not after.method.correction.any() and after.method.correction_local[:, SOURCE].any()
    assert after.method.correction_mirror.all() and not before.method.correction_mirror.any()
    used = set(after.card["scans_sha256"])
    assert len(used) == 1 + 2 * 30 and used.isdisjoint(pairs.test.scan_digests())
    of_single.table.drop(columns="split").to_csv(pairs.root / "pairs.tsv", sep="\t", index=False)
    with pytest.raises(SystemExit) as end:
        main(["adapt", str(model), str(pairs.root), str(tmp_path / "out")])
    assert not end.value.code
    printed = " ".join(capsys.readouterr().out.split())
    assert "source and" in printed and "of the mean" in printed and "corrected" in printed


def test_few_scans_without_a_partner_change_nothing(prepared, tmp_path):
    """Three people have each scan. Their anatomy would decide the means."""
    card = prepared.preprocessing.entries() | {"scans_sha256": ["0" * 16]}
    method = create("copy-source", {"grid_shape": list(prepared.grid.shape)})
    model = checkpoint.save(method, tmp_path / "model", card)
    found = adapt(model, alone(prepared), tmp_path / "same", "cpu", True)
    assert all(each.participants == 0 and not each.correction for each in found.values())
    same = api.load(tmp_path / "same", "cpu").method
    assert not same.correction.any() and not same.correction_local.any() and not same.correction_mirror.any()
