"""Estimates of training rows, in memory or, if they are many, in a file that all processes share."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from pdsynth.methods import cached
from pdsynth.methods.cached import Cached, RowFile
from pdsynth.types import Direction


def filled(pairs):
    cache = Cached()
    cache.fill(pairs, lambda batch, direction: batch.targets[direction] / 3, torch.device("cpu"))
    return cache


@pytest.mark.parametrize("bytes_in_memory", [0, 1 << 30])
def test_patches_are_cut_from_the_estimates_of_their_rows(prepared, monkeypatch, bytes_in_memory):
    monkeypatch.setattr(cached, "IN_MEMORY", bytes_in_memory)
    pairs = prepared.train
    cache = filled(pairs)
    batch = pairs.patches((8, 6, 4), 5, [0], 0)
    for direction in Direction:
        assert isinstance(cache.volumes[direction], RowFile) == (bytes_in_memory == 0)
        expected = (batch.targets[direction] / 3).half().float()
        assert torch.equal(cache.at(batch, direction), expected)
        if bytes_in_memory == 0:
            assert torch.equal(pickle.loads(pickle.dumps(cache)).at(batch, direction), expected)


def test_a_file_is_as_large_as_its_rows_and_is_removed_with_the_cache(prepared, monkeypatch):
    monkeypatch.setattr(cached, "IN_MEMORY", 0)
    pairs = prepared.train
    cache = filled(pairs)
    paths = [volumes.path for volumes in cache.volumes.values()]
    copy = pickle.loads(pickle.dumps(cache))  # a process that ends does not remove it
    del copy
    assert [path.stat().st_size for path in paths] == [2 * len(pairs) * int(np.prod(pairs.grid.shape))] * 2
    del cache
    assert not any(path.exists() for path in paths)
