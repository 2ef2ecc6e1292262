"""The nearest visit, and the pairs of days."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pdsynth.cohorts.visits import PAIR_WITHIN_DAYS, WITHIN_DAYS, Visit, nearest, nearest_scores, pair_days

DAYS = st.integers(-500, 3000)


@given(st.lists(DAYS, unique=True), DAYS)
def test_the_nearest_visit_is_within_a_year_and_the_earlier_of_two_at_equal_distance(days, scan):
    found = nearest([Visit(day) for day in days], scan)
    near = sorted((abs(day - scan), day) for day in days if abs(day - scan) <= WITHIN_DAYS)
    assert (found and found.day) == (near[0][1] if near else None)


def test_a_tie_goes_to_the_earlier_and_a_year_is_the_limit():
    assert nearest([Visit(30), Visit(10)], 20).day == 10
    assert nearest([Visit(365)], 0).day == 365 and nearest([Visit(366)], 0) is None
    assert nearest([Visit(-365)], 0).day == -365 and nearest([Visit(200)], 0, within=180) is None


@given(st.sets(DAYS, max_size=6), st.sets(DAYS, max_size=6))
def test_each_day_is_used_once_and_pairs_are_near(fmri, dmri):
    pairs = pair_days(fmri, dmri)
    assert sorted(a for a, _ in pairs if a is not None) == sorted(fmri)
    assert sorted(b for _, b in pairs if b is not None) == sorted(dmri)
    assert all(abs(a - b) <= PAIR_WITHIN_DAYS for a, b in pairs if None not in (a, b))
    alone = [a for a, b in pairs if b is None], [b for a, b in pairs if a is None]
    assert not any(abs(a - b) <= PAIR_WITHIN_DAYS for a in alone[0] for b in alone[1])
    assert {day for day in fmri & dmri} <= {a for a, b in pairs if a == b}
    first = [min(day for day in pair if day is not None) for pair in pairs]
    assert first == sorted(first)


def test_a_score_is_that_of_the_nearest_visit_which_has_it():
    visits = [Visit(0, scores={"mmse": 30}), Visit(20, scores={"mmse": 24, "moca": 22}), Visit(800, scores={"moca": 1})]
    assert nearest_scores(visits, 9) == {"mmse": 30, "moca": 22}
    assert nearest_scores(visits, 11) == {"mmse": 24, "moca": 22}
    assert nearest_scores(visits, 5000) == {}
