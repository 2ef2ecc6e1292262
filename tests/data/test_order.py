"""The rows of the steps of a large cohort: read in order, shuffled enough, and few of them new at each step."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from pdsynth.data import pairs as pairs_module
from pdsynth.data.order import USES, Order
from pdsynth.data.pairs import Pairs
from pdsynth.data.shards import MAPPED
from pdsynth.types import Direction

ROWS, PER_FILE, KEPT, WINDOW, SIZE = 4000, 5, 600, 400, 24
FILES = np.array([f"{row // PER_FILE:04d}.npy" for row in range(ROWS)])


def steps(order, numbers, size=SIZE, seed=7):
    return np.stack([order.rows(size, [seed], k, np.random.default_rng([seed, k])) for k in numbers])


def test_a_small_cohort_is_drawn_from_as_a_whole():
    order = Order(FILES[:10], memory=10)
    for size in (4, 10, 23):
        rows = steps(order, [0], size)[0]
        assert np.bincount(rows, minlength=10).max() == -(-size // 10)
        assert np.bincount(rows, minlength=10).min() == size // 10


def test_the_rows_of_a_large_cohort_come_from_a_window_that_passes_over_all_of_them():
    order = Order(FILES, KEPT)
    a_pass = ROWS * USES // SIZE
    drawn = steps(order, range(a_pass + WINDOW))
    assert all(len(set(rows)) == SIZE for rows in drawn)
    assert len(np.unique(drawn)) > 0.99 * ROWS  # a row is missed with a probability of exp(-8)
    for first in (0, 500):  # new rows: the window to begin with, then one eighth of a batch per step
        seen = len(np.unique(drawn[first : first + 300]))
        assert seen <= WINDOW + 300 * SIZE // USES
        assert seen > 0.95 * (WINDOW + 300 * SIZE // USES) - WINDOW / USES
    # neighbours in time share files no more often than a window of this size makes them
    again = np.mean([np.isin(rows, before).mean() for before, rows in pairwise(drawn)])
    assert again == pytest.approx(SIZE / WINDOW, rel=0.3)
    assert np.array_equal(steps(order, [a_pass]), steps(Order(FILES, KEPT), [a_pass]))  # as a resumed run
    assert not np.array_equal(steps(order, [a_pass], seed=8), steps(order, [a_pass]))


def test_devices_that_divide_a_batch_read_other_files():
    drawn = steps(Order(FILES, KEPT), range(700))
    parts = [set(FILES[drawn[:, part * SIZE // 4 : (part + 1) * SIZE // 4].ravel()]) for part in range(4)]
    assert sum(map(len, parts)) == len(set.union(*parts)) > 0.5 * len(set(FILES))


@pytest.fixture
def crowded(make_prepared, monkeypatch):
    """Pairs of 36 people, and memory for the features of 12 of them."""
    made = make_prepared(40, seed=5)
    monkeypatch.setattr(pairs_module, "CACHED_BYTES", 24 * pairs_module.SOURCE_BYTES * int(np.prod(made.grid.shape)))
    return Pairs.open(made.root).train


def test_features_are_computed_once_per_stay_and_memory_is_bounded(crowded):
    volumes, batches = crowded.volumes, 90
    for step in range(batches):
        crowded.patches((8, 8, 8), 4, [0], step)
    cached, opened = volumes.source.cache_info(), volumes._open.cache_info()
    assert volumes.views == cached.maxsize == 24 and cached.currsize <= 24
    assert opened.maxsize == MAPPED and opened.currsize <= 36
    new_rows = volumes.views // 3 + batches * 4 // USES
    assert cached.misses <= 2 * new_rows < cached.hits / 3
    assert len(volumes.threads._threads) <= pairs_module.THREADS


def test_the_parts_of_a_batch_are_those_of_the_whole(crowded, prepared):
    for pairs in (crowded, prepared.train):
        whole = pairs.patches((8, 8, 8), 12, [3], 40)
        parts = [pairs.patches((8, 8, 8), 12, [3], 40, part, 3) for part in range(3)]
        assert np.array_equal(np.concatenate([part.rows for part in parts]), whole.rows)
        for direction in Direction:
            assert torch.equal(torch.cat([part.targets[direction] for part in parts]), whole.targets[direction])
            assert torch.equal(whole.at(slice(4, 8)).targets[direction], parts[1].targets[direction])
            assert torch.equal(whole.parts(3)[2].corner, parts[2].corner)
