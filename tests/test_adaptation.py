"""A model of another contrast is corrected by pairs or by single scans, and only if people who were left out gain."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.adapting import quality

from pdsynth import api
from pdsynth.adaptation import adapt, boosted
from pdsynth.adaptation.boosted import Remains
from pdsynth.adaptation.paired import TRIANGLE, Equations, Scan, fitted
from pdsynth.cli import main
from pdsynth.data.batch import source_batch
from pdsynth.methods import checkpoint, create
from pdsynth.methods.base import ADDED
from pdsynth.methods.correction import (
    COLUMNS,
    DEPTH,
    LOCAL_COLUMNS,
    NODE,
    TREE_COLUMNS,
    corrected,
    no_places,
    no_source,
    no_trees,
    packed,
    packed_sources,
    packed_trees,
    tree_columns,
    unpacked,
)
from pdsynth.methods.trees import walk
from pdsynth.types import Direction

SIZE = (20, 24, 16)


def scan(generator: np.random.Generator, weights: np.ndarray, noise: float = 0) -> Scan:
    """Random columns, of which the first is 1, and an error that is their weighted sum, (LOCAL_COLUMNS,) or a map."""
    x = generator.standard_normal((LOCAL_COLUMNS, *SIZE))
    x[0] = 1
    error = np.einsum("cxyz,c...->xyz" if weights.ndim == 1 else "cxyz,cxyz->xyz", x, weights)
    return Scan(x, error + noise * generator.standard_normal(SIZE), np.ones(SIZE, bool))


def test_the_weights_of_a_voxel_are_those_of_least_squares() -> None:
    """Of all columns if they differ between voxels, and of the columns without neighbours if they are the same."""
    generator = np.random.default_rng(0)
    truth = np.zeros((LOCAL_COLUMNS, *SIZE))
    truth[0, :10], truth[1, :10] = 0.5, -1
    truth[0, 10:], truth[12, 10:] = -0.5, 2
    found = fitted(([scan(generator, truth)] for _ in range(8)), 8)
    weights = found.maps + np.pad(found.weights, (0, LOCAL_COLUMNS - COLUMNS))[:, None, None, None]
    far = np.s_[:, [4, 15], 1:-1, 1:-1]  # voxels near the border between the halves have the weights of both
    assert weights[far] == pytest.approx(truth[far], abs=0.1) and (found.gains > 6).all()


def mirrored(scan: Scan) -> Scan:
    """The scan of the mirrored head, in which the left neighbour is the right one."""
    columns = scan.columns[:, ::-1].copy()
    columns[[COLUMNS, COLUMNS + 1]] = columns[[COLUMNS + 1, COLUMNS]]
    return Scan(columns, scan.error[::-1], scan.inside[::-1])


def test_mirror_images_are_as_good_as_the_scans_of_mirrored_heads() -> None:
    generator = np.random.default_rng(6)
    scans = [scan(generator, generator.standard_normal((LOCAL_COLUMNS, *SIZE))) for _ in range(3)]
    equations = []
    for heads in (scans, [*scans, *map(mirrored, scans)]):
        sums = np.zeros((1, len(TRIANGLE[0]), *SIZE))
        for each in heads:
            each.add_to(sums[0], 3 / len(heads))
        equations.append(Equations(sums))
    places = np.arange(0, np.prod(SIZE), 7)
    joined = equations[0].weights((1.0, True), places)
    assert joined == pytest.approx(equations[1].weights((1.0, False), places), abs=1e-6)
    assert np.abs(joined - equations[0].weights((1.0, False), places)).max() > 0.1


def test_hemispheres_are_joined_if_they_are_alike() -> None:
    """With few people and much noise; `test_the_weights_of_a_voxel_are_those_of_least_squares` has unlike ones."""
    generator = np.random.default_rng(7)
    half = np.zeros((LOCAL_COLUMNS, *SIZE))
    half[1] = np.repeat(np.repeat(np.repeat(generator.standard_normal((5, 6, 4)), 4, 0), 4, 1), 4, 2)
    half[1, 10:] = half[1, 9::-1]
    found = fitted(([scan(generator, half, noise=1)] for _ in range(6)), 6)
    assert found.maps[1] == pytest.approx(found.maps[1, ::-1], abs=1e-6) and np.ptp(found.maps[1]) > 1
    assert found.maps[COLUMNS] == pytest.approx(found.maps[COLUMNS + 1, ::-1], abs=1e-6)


def test_nearly_one_set_of_weights_if_all_voxels_have_the_same() -> None:
    generator = np.random.default_rng(1)
    truth = np.r_[0.2, 0.5, -0.3, np.zeros(LOCAL_COLUMNS - 3)]
    found = fitted(([scan(generator, truth, noise=3)] for _ in range(4)), 4)
    assert np.sqrt(np.mean(found.maps**2)) < 0.06 and found.gains.mean() > 0.1  # .30 and -.5 with the least strength
    assert found.weights == pytest.approx(truth[:COLUMNS], abs=0.06)


def test_the_gain_is_that_of_people_who_were_left_out() -> None:
    """One voxel in the mean has a known gain: the error 1 + e of each becomes e minus the mean e of the others."""
    generator = np.random.default_rng(2)
    own = generator.standard_normal(4)
    x = np.zeros((LOCAL_COLUMNS, *SIZE))
    x[0] = 1
    found = fitted(([Scan(x, np.full(SIZE, 1 + e), np.ones(SIZE, bool))] for e in own), 4)
    rest = (own.sum() - own) / 3
    assert found.gains == pytest.approx(10 * np.log10((1 + own) ** 2 / (own - rest) ** 2), abs=0.1)


def test_noise_is_not_learnt() -> None:
    """Columns without a relation to the error give people who were left out no gain."""
    generator = np.random.default_rng(3)
    gains = fitted(([scan(generator, np.zeros(LOCAL_COLUMNS), noise=1)] for _ in range(5)), 5).gains
    assert abs(gains.mean()) < 0.1 and gains.mean() < gains.std(ddof=1) / np.sqrt(len(gains))


def test_the_weights_of_places_are_added_near_the_source() -> None:
    volume = torch.rand(1, 1, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    brain = np.zeros((8, 8, 8), bool)
    brain[:, :, :4] = True
    source = source_batch(volume[0, 0].numpy(), brain, Direction.FMRI_TO_DMRI, 1000).sources[Direction.FMRI_TO_DMRI]
    maps = torch.zeros(2, LOCAL_COLUMNS, 8, 8, 8)
    maps[0, 0, 2, 2, 2], maps[0, 11, 3, 3, 3], maps[0, 0, 0, 0, 7] = 0.125, 0.5, 0.25
    estimate = torch.full((1, 1, 8, 8, 8), 0.25)
    places, local = packed(maps)
    changed = corrected(estimate, source, torch.zeros(COLUMNS), places, local[0], no_trees()[0], no_source()[0])[0, 0]
    assert places.tolist() == [7, 2 * 73, 3 * 73]
    assert changed[2, 2, 2] == 0.375 and changed[0, 0, 7] == 0.25  # the last one is far from the source's brain
    assert float(changed[3, 3, 3]) == pytest.approx(0.25 + 0.5 * float(volume[0, 0, 2, 3, 3]), abs=1e-3)
    assert (changed != 0.25).sum() == 2
    assert (
        corrected(estimate, source, torch.zeros(COLUMNS), places, local[1], no_trees()[1], no_source()[1]) is estimate
    )


def remains(generator: np.random.Generator, step: float) -> dict[frozenset[int], Remains]:
    """Voxels of a participant whose error is a step in one column, whoever was left out of the weights before."""
    columns = generator.standard_normal((16_000, TREE_COLUMNS)).astype(np.float32)
    error = step * (columns[:, 1] > 0.5) + 0.1 * generator.standard_normal(16_000)
    lefts = (frozenset((g, h)) for g in range(5) for h in range(5))
    return dict.fromkeys(lefts, Remains(columns, error.astype(np.float32)))


def test_trees_learn_what_the_weights_leave_and_people_who_were_left_out_judge_them() -> None:
    generator = np.random.default_rng(8)
    nodes, gains = boosted.fitted([remains(generator, 0.3) for _ in range(7)], 5)
    share = 0.3085  # of voxels above .5
    known = 10 * np.log10((0.3**2 * share + 0.01) / 0.01)
    assert gains == pytest.approx(known, abs=0.3)
    columns = torch.from_numpy(generator.standard_normal((500, TREE_COLUMNS)).astype(np.float32))
    tensor = torch.from_numpy(nodes)
    added = walk(columns, tensor[..., 0], tensor[..., 1], tensor[..., 2:4], tensor[..., 4], DEPTH).numpy()
    assert added == pytest.approx(0.3 * (columns[:, 1] > 0.5).numpy(), abs=0.1) and nodes.shape[2] == NODE


def test_there_are_no_trees_if_only_noise_is_left() -> None:
    generator = np.random.default_rng(9)
    nodes, gains = boosted.fitted([remains(generator, 0) for _ in range(7)], 5)
    assert nodes.shape == (0, 0, NODE) and not gains.any()


def test_a_mirrored_voxel_has_the_columns_of_the_mirrored_head() -> None:
    generator = torch.Generator().manual_seed(1)
    direction = Direction.FMRI_TO_DMRI
    estimate, before, volume, mean = (torch.rand(1, 1, 8, 10, 12, generator=generator) for _ in range(4))
    mean = (mean + mean.flip(2))[0, 0] / 2

    def columns(turn: bool) -> np.ndarray:
        parts = [each.flip(2) if turn else each for each in (estimate, before, volume)]
        source = source_batch(parts[2][0, 0].numpy(), np.ones((8, 10, 12), bool), direction, 1000).sources[direction]
        return tree_columns(parts[0], parts[1], source, mean)[0].numpy()

    inside = np.ones((8, 10, 12), bool)
    own = Remains.drawn(columns(False), estimate[0, 0].numpy(), inside, 50, seed=3)
    head = columns(True)[:, ::-1].reshape(TREE_COLUMNS, -1)
    voxels = np.random.default_rng(3).choice(960, 50, replace=False)
    assert own.mirrored().columns == pytest.approx(head[:, voxels].T, abs=1e-6)
    assert np.abs(own.mirrored().columns - own.columns).max() > 0.1
    assert (own.error == estimate.flatten().numpy()[voxels]).all()


def test_trees_are_added_near_the_source_and_in_their_direction_only() -> None:
    volume = torch.rand(1, 1, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    brain = np.zeros((8, 8, 8), bool)
    brain[:, :, :4] = True
    source = source_batch(volume[0, 0].numpy(), brain, Direction.FMRI_TO_DMRI, 1000).sources[Direction.FMRI_TO_DMRI]
    estimate = torch.full((1, 1, 8, 8, 8), 0.25)
    tree = [[boosted.X, 0, 1, 2, 0], [0, np.inf, 1, 1, 0.125], [0, np.inf, 2, 2, 0.5]]  # by the side of the head
    trees = packed_trees([np.array([tree], np.float32), np.zeros((0, 0, NODE), np.float32)])
    unchanged = torch.zeros(COLUMNS), *(each[0] if each.dim() > 1 else each for each in no_places())
    changed = corrected(estimate, source, *unchanged, trees[0], no_source()[0])[0, 0]
    near = source.near[0, 0]
    assert (changed[:4][near[:4]] == 0.375).all() and (changed[4:][near[4:]] == 0.75).all()
    assert (changed[~near] == 0.25).all() and near.any() and not near.all()
    assert corrected(estimate, source, *unchanged, trees[1], no_source()[1]) is estimate


def test_trees_know_how_a_source_differs_from_the_mean_source() -> None:
    generator = torch.Generator().manual_seed(2)
    volume, mean = torch.rand(8, 8, 8, generator=generator), torch.rand(8, 8, 8, generator=generator)
    direction = Direction.DMRI_TO_FMRI
    source = source_batch(volume.numpy(), np.ones((8, 8, 8), bool), direction, 1000).sources[direction]
    estimate = torch.full((1, 1, 8, 8, 8), 0.25)
    tree = [[TREE_COLUMNS - 3, 0.1, 1, 2, 0], [0, np.inf, 1, 1, 0.125], [0, np.inf, 2, 2, 0.5]]
    trees = packed_trees([np.zeros((0, 0, NODE), np.float32), np.array([tree], np.float32)])
    means = packed_sources([np.zeros((0, 0, 0), np.float32), mean.numpy()])
    unchanged = torch.zeros(COLUMNS), *(each[0] if each.dim() > 1 else each for each in no_places())
    changed = corrected(estimate, source, *unchanged, trees[1], means[1])[0, 0]
    assert torch.equal(changed, torch.where(volume - mean.half().float() > 0.1, 0.75, 0.375))
    without = corrected(estimate, source, *unchanged, trees[1], no_source()[1])[0, 0]  # a model of an earlier version
    assert torch.equal(without, torch.where(volume > 0.1, 0.75, 0.375))


@pytest.fixture
def model(prepared, tmp_path):
    """A model that copies its source, which is a wrong estimate: dMRI falls where fMRI rises."""
    method = create("copy-source", {"grid_shape": list(prepared.grid.shape)})
    card = prepared.preprocessing.entries() | {"scans_sha256": ["0" * 16]}
    return checkpoint.save(method, tmp_path / "model", card)


def test_pairs_of_the_scanner_correct_the_model(prepared, model, tmp_path):
    found = adapt(model, prepared, tmp_path / "adapted", "cpu")
    before, after = (api.load(folder, "cpu").method for folder in (model, tmp_path / "adapted"))
    for direction, each in found.items():
        assert each.correction and each.participants == 6
        gain = quality(after, prepared.test, direction) - quality(before, prepared.test, direction)
        assert gain > 2 and each.gain_db == pytest.approx(gain, abs=1.5)  # people of the test split gain as much
    others = [row for row in range(len(prepared)) if prepared.table["split"].iloc[row] != "test"]
    assert after.correction_trees.any()
    for direction in Direction:  # the trees know the mean source of those from whom they learnt
        assert after.correction_trees[direction.index].any() == after.correction_source[direction.index].any()
        sources = np.mean([prepared.volume(direction.source, row) for row in others], 0)
        if after.correction_trees[direction.index].any():
            expected = (sources + sources[::-1]) / 2
            assert after.correction_source[direction.index].float().numpy() == pytest.approx(expected, abs=1e-3)
    batch = prepared.batch(np.array([0]))
    copy = before.estimate(batch, Direction.FMRI_TO_DMRI)[0]
    assert torch.equal(copy, before.predict(batch, Direction.FMRI_TO_DMRI))  # no correction: the same bytes
    used = set(api.load(tmp_path / "adapted", "cpu").card["scans_sha256"])
    assert used > set(prepared.train.scan_digests()) and used.isdisjoint(prepared.test.scan_digests())


def test_a_direction_that_is_unchanged_keeps_its_earlier_correction(prepared, model, tmp_path):
    """The earlier voxels stay, although the new correction of the other direction has others."""
    method = api.load(model, "cpu").method
    maps = torch.zeros(2, LOCAL_COLUMNS, *prepared.grid.shape)
    maps[0, 0, 0, 0, 0], maps[1, 2, 1, 1, 1] = 0.5, 0.25
    method.correction_places, method.correction_local = packed(maps)
    method.correction_mirror[:] = True
    card = prepared.preprocessing.entries() | {"scans_sha256": ["0" * 16]}
    folder = checkpoint.save(method, tmp_path / "earlier", card)
    adapt(folder, prepared.where(np.arange(len(prepared)) == 0), tmp_path / "same", "cpu")  # one pair is too few
    same = api.load(tmp_path / "same", "cpu").method
    assert torch.equal(unpacked(same.correction_places, same.correction_local, prepared.grid.shape), maps.half())
    assert same.correction_mirror.all()
    adapt(folder, prepared, tmp_path / "new", "cpu")  # both directions gain, and nothing of the earlier one is left
    new = api.load(tmp_path / "new", "cpu").method
    assert not unpacked(new.correction_places, new.correction_local, prepared.grid.shape)[0, 0, 0, 0, 0]
    assert not new.correction_mirror.any()


def test_a_model_that_was_adapted_before_opens(prepared, model, tmp_path):
    """A model of an earlier version has weights for all voxels alone, or none."""
    method = api.load(model, "cpu").method
    method.correction[0, 1] = 0.5
    state = {name: value for name, value in method.state_dict().items() if name not in ADDED[2:]}
    again = create("copy-source", {"grid_shape": list(prepared.grid.shape)})
    again.load_state(state)
    batch = prepared.batch(np.array([0]))
    direction = Direction.FMRI_TO_DMRI
    copy, source = again.predict(batch, direction), batch.sources[direction]
    expected = torch.where(source.near, (1.5 * copy).clamp(0, 1), copy)
    assert torch.allclose(again.estimate(batch, direction)[0], expected)


def test_too_few_pairs_leave_the_model_as_it_was(prepared, model, tmp_path):
    two = prepared.where(prepared.table["participant_id"].isin(["sub-00", "sub-01"]))
    found = adapt(model, two, tmp_path / "same", "cpu")
    assert all(each.participants == 2 and not each.correction for each in found.values())
    same = api.load(tmp_path / "same", "cpu")
    assert not same.method.correction.any() and same.card["scans_sha256"] == ["0" * 16]
    asked = adapt(model, two, tmp_path / "asked", "cpu", unjudged=True)
    assert all(each.correction and np.isnan(each.gain_db) for each in asked.values())
    corrected = api.load(tmp_path / "asked", "cpu").method.correction
    assert corrected.any(1).all()
    adapt(tmp_path / "asked", two, tmp_path / "again", "cpu")  # nobody is new, and nothing can be learnt
    assert torch.equal(api.load(tmp_path / "again", "cpu").method.correction, corrected)


def test_a_model_whose_errors_are_noise_stays_as_it_was(prepared, tmp_path):
    """The oracle's errors have no relation to estimate or source."""
    method = create("oracle", {"grid_shape": list(prepared.grid.shape)})
    card = prepared.preprocessing.entries() | {"scans_sha256": ["0" * 16]}
    found = adapt(checkpoint.save(method, tmp_path / "oracle", card), prepared, tmp_path / "out", "cpu")
    for each in found.values():
        assert each.gain_db < 0.1


def test_the_command_prints_how_and_how_far_to_trust_it(prepared, model, tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        main(["adapt", str(model), str(prepared.root), str(tmp_path / "out")])
    assert not end.value.code
    printed = capsys.readouterr().out
    assert "SIMULATED" in printed and "dB" in printed and "corrected" in printed
    saved = checkpoint.load(tmp_path / "out")[1]["adaptation"]
    assert saved["fmri_to_dmri"]["participants"] == 6 and saved["fmri_to_dmri"]["correction"]
    assert api.load(tmp_path / "out", "cpu").method.correction.shape == (2, COLUMNS)
