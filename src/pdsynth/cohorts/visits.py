"""Which clinical visit belongs to a scan, and which scans of two days make a pair."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pdsynth.cohorts.cohort import Rejection, Session
from pdsynth.cohorts.scans import best_run
from pdsynth.types import Diagnosis, Modality

DAYS_A_YEAR = 365.25
WITHIN_DAYS = 365  # of a visit from the scan whose diagnosis it gives
PAIR_WITHIN_DAYS = 90  # of an fMRI from the dMRI that it is paired with


@dataclass(frozen=True)
class Visit:
    """A clinical visit. excluded says why its participant belongs to no group (dementia of another cause, say)."""

    day: int  # in the cohort's own count
    diagnosis: Diagnosis | None = None
    excluded: str | None = None
    scores: Mapping[str, float] = field(default_factory=dict)


def nearest(visits: Iterable[Visit], day: int, within: int = WITHIN_DAYS) -> Visit | None:
    """The visit nearest to a day, of two as near the earlier; None where none is within that many days.

    >>> nearest([Visit(10), Visit(30)], 20).day
    10
    """
    near = [visit for visit in visits if abs(visit.day - day) <= within]
    return min(near, key=lambda visit: (abs(visit.day - day), visit.day), default=None)


def pair_days(
    fmri: Iterable[int], dmri: Iterable[int], within: int = PAIR_WITHIN_DAYS
) -> list[tuple[int | None, int | None]]:
    """Days of fMRI with days of dMRI, the nearest first, of equals the earlier; a day is in one pair at most.

    What has no partner within that many days stands alone. In the order of time.

    >>> pair_days([0, 400], [30, 410, 900])
    [(0, 30), (400, 410), (None, 900)]
    """
    first, second = set(fmri), set(dmri)
    gaps = sorted((abs(a - b), min(a, b), a, b) for a in first for b in second if abs(a - b) <= within)
    pairs: list[tuple[int | None, int | None]] = []
    for _, _, a, b in gaps:
        if a in first and b in second:
            pairs.append((a, b))
            first.remove(a)
            second.remove(b)
    pairs += [(a, None) for a in first] + [(None, b) for b in second]
    return sorted(pairs, key=lambda pair: min(day for day in pair if day is not None))


def sessions(
    files: Mapping[Modality, Mapping[int, Sequence[Path]]],
    visits: Sequence[Visit],
    session_id: Callable[[int], str],
    age: Callable[[int], float | None],
    rejected: list[Rejection],
) -> list[Session]:
    """The sessions of one participant, from files by modality and day; the first day of a pair names its session.

    A session whose nearest visit with a decision excludes the participant is refused, scan by scan.
    """
    scans = {
        m: {day: scan for day, paths in files.get(m, {}).items() if (scan := best_run(paths, m, rejected)) is not None}
        for m in Modality
    }
    decided = [visit for visit in visits if visit.diagnosis is not None or visit.excluded is not None]
    made = []
    for days in pair_days(scans[Modality.FMRI], scans[Modality.DMRI]):
        there = {m: day for m, day in zip((Modality.FMRI, Modality.DMRI), days, strict=True) if day is not None}
        found = {m: scans[m][day] for m, day in there.items()}
        day = min(there.values())
        visit = nearest(decided, day)
        if visit is not None and visit.excluded is not None:
            remedy = "nothing is wrong with the scan: its participant is in none of the groups NC, MCI and AD"
            rejected += [Rejection(scan.path, visit.excluded, remedy) for scan in found.values()]
            continue
        clinical: dict[str, Any] = {}
        if visit is not None:
            clinical = {"diagnosis": visit.diagnosis, "dx_gap_days": visit.day - day}
        made.append(
            Session(
                session_id(day),
                found,
                age=age(day),
                scan_gap_days=max(there.values()) - day,
                scores=nearest_scores(visits, day),
                **clinical,
            )
        )
    return made


def nearest_scores(visits: Iterable[Visit], day: int, within: int = WITHIN_DAYS) -> dict[str, float]:
    """Each score from the nearest visit that has it.

    >>> nearest_scores([Visit(0, scores={"mmse": 29}), Visit(5, scores={"mmse": 27, "moca": 25})], 1)
    {'mmse': 29, 'moca': 25}
    """
    scores: dict[str, float] = {}
    near = [visit for visit in visits if abs(visit.day - day) <= within]
    for visit in sorted(near, key=lambda v: (abs(v.day - day), v.day)):
        scores = {**visit.scores, **scores}
    return dict(sorted(scores.items()))
