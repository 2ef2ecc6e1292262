"""Splits: sizes, strata, independence of row order, and the scans for leaks."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdsynth.data.splits import assign_splits, check_disjoint, near_duplicates
from pdsynth.types import InputError

people = st.lists(st.tuples(st.sampled_from("xyz"), st.sampled_from(["NC", "MCI", "AD"])), min_size=1, max_size=80)
fractions = st.sampled_from([(0.8, 0.1, 0.1), (0.5, 0.25, 0.25), (1.0, 0.0, 0.0), (0.97, 0.03, 0.0), (0.7, 0.0, 0.3)])


def table(cells: list[tuple[str, str]]) -> pd.DataFrame:
    frame = pd.DataFrame(cells, columns=["site", "diagnosis"])
    return frame.assign(participant_id=[f"sub-{i:03d}" for i in range(len(cells))])


@given(people, fractions, st.integers(0, 5))
def test_sizes_and_completeness(cells, wished, salt) -> None:
    splits = assign_splits(table(cells), wished, str(salt))
    assert splits["participant_id"].tolist() == sorted(table(cells)["participant_id"])
    for name, fraction in zip(("train", "val", "test"), wished, strict=True):
        count = (splits["split"] == name).sum()
        assert abs(count - fraction * len(cells)) < 1 + (len(cells) < 40)  # small cohorts: none left empty
        assert count == 0 if fraction == 0 else count > 0 or len(cells) < 3


@given(people, st.randoms())
def test_row_order_does_not_matter(cells, random) -> None:
    frame = table(cells)
    order = list(range(len(frame)))
    random.shuffle(order)
    pd.testing.assert_frame_equal(assign_splits(frame), assign_splits(frame.iloc[order]))


def test_strata_are_balanced_and_the_salt_matters() -> None:
    frame = table([(site, dx) for site in "xyz" for dx in ("NC", "MCI", "AD") for _ in range(20)])
    splits = assign_splits(frame, (0.5, 0.25, 0.25), "a")
    counts = splits.merge(frame).groupby(["site", "diagnosis", "split"]).size()
    assert counts.xs("train", level="split").between(9, 11).all()
    assert counts.xs("test", level="split").between(4, 6).all()
    assert (splits["split"] != assign_splits(frame, (0.5, 0.25, 0.25), "b")["split"]).any()
    assert splits["sha256"].str.fullmatch("[0-9a-f]{64}").all()


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match=r"the split 0.8,0.1,0.2 is not three fractions that sum to 1"):
        assign_splits(table([("x", "NC")]), (0.8, 0.1, 0.2))
    for fractions in ((float("nan"), 0.5, 0.5), (0.5, float("nan"), 0.5)):
        with pytest.raises(ValueError, match="is not three fractions"):
            assign_splits(table([("x", "NC")]), fractions)
    twice = pd.concat([table([("x", "NC")])] * 2)
    with pytest.raises(ValueError, match="sub-000 is listed twice"):
        assign_splits(twice)


def test_check_disjoint() -> None:
    good = pd.DataFrame({"participant_id": ["a", "b"], "split": ["train", "test"]})
    check_disjoint(good, ["a", "b", "b"], "splits.tsv")
    with pytest.raises(InputError, match=r"splits\.tsv: a has more than one row"):
        check_disjoint(pd.concat([good, good.assign(split="val")]), ["a", "b"], "splits.tsv")
    with pytest.raises(InputError, match="names a split 'dev'"):
        check_disjoint(good.assign(split="dev"), ["a", "b"], "splits.tsv")
    with pytest.raises(InputError, match="has no row of c"):
        check_disjoint(good, ["a", "c"], "splits.tsv")


def test_near_duplicates() -> None:
    volumes = np.random.default_rng(0).random((5, 16, 20, 16)).astype(np.float32)
    volumes[4] = volumes[1].astype(np.float16)
    names = ["a", "b", "c", "d", "e"]
    assert near_duplicates(volumes, names) == [(1, 4)]
    assert near_duplicates(volumes, ["a", "b", "c", "d", "b"]) == []  # two sessions of one participant
    volumes[4] = 0.9 * volumes[1] + 0.1 * volumes[2]
    assert near_duplicates(volumes, names) == []
    assert near_duplicates(volumes[:0], []) == []
