"""Matches clinical visits to scans, and fMRI to dMRI of another day, by their distance in days."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pdsynth.cohorts.cohort import Rejection, Scan, Session
from pdsynth.cohorts.kinds import Verdict
from pdsynth.cohorts.ledger import Key, Ledger, refused_in
from pdsynth.types import Diagnosis, Modality

DAYS_PER_YEAR = 365.25
WITHIN_DAYS = 365  # from a scan to the visit that provides its diagnosis, at most
PAIR_WITHIN_DAYS = 90  # between the fMRI and the dMRI of a pair, at most


@dataclass(frozen=True)
class Visit:
    """A clinical visit.

    day counts from an origin of the cohort: the entry of the participant into the study (OASIS-3), or the calendar day
    as `date.toordinal` counts (ADNI). excluded is the reason why the participant belongs to no group, such as dementia
    of another cause. scores: "mmse" and "moca", if known.
    """

    day: int
    diagnosis: Diagnosis | None = None
    excluded: str | None = None
    scores: Mapping[str, float] = field(default_factory=dict)


def consistent(visits: Iterable[Visit]) -> tuple[list[Visit], list[int]]:
    """One visit per day, in order, and the days on which visits contradict each other.

    A diagnosis or score that differs between visits of one day is unknown.

    >>> consistent([Visit(3, Diagnosis.NC), Visit(3, Diagnosis.AD), Visit(5, Diagnosis.AD), Visit(5)])
    ([Visit(day=3, ...), Visit(day=5, diagnosis=<Diagnosis.AD: 'AD'>, ...)], [3])
    """
    by_day: dict[int, list[Visit]] = {}
    for visit in visits:
        by_day.setdefault(visit.day, []).append(visit)
    result, contradicted = [], []
    for day, group in sorted(by_day.items()):
        decisions = {(v.diagnosis, v.excluded) for v in group} - {(None, None)}
        scores: dict[str, set[float]] = {}
        for score, value in (item for visit in group for item in visit.scores.items()):
            scores.setdefault(score, set()).add(value)
        if len(decisions) > 1 or any(len(values) > 1 for values in scores.values()):
            contradicted.append(day)
        decision = decisions.pop() if len(decisions) == 1 else (None, None)
        known = {score: values.pop() for score, values in scores.items() if len(values) == 1}
        result.append(Visit(day, *decision, scores=known))
    return result, contradicted


def nearest(visits: Iterable[Visit], day: int, within: int = WITHIN_DAYS) -> Visit | None:
    """The visit nearest to a day, the earlier one if two are; None if all are more than `within` days away.

    >>> nearest([Visit(10), Visit(30)], 20).day
    10
    """
    near = [visit for visit in visits if abs(visit.day - day) <= within]
    return min(near, key=lambda visit: (abs(visit.day - day), visit.day), default=None)


def pair_days(
    fmri: Iterable[int], dmri: Iterable[int], within: int = PAIR_WITHIN_DAYS
) -> list[tuple[int | None, int | None]]:
    """Pair days of fMRI with days of dMRI, as (fMRI day, dMRI day); each day is in one pair at most.

    The nearest days are paired first, and the earlier ones if the distance is equal. Days more than `within` days apart
    are not paired; a day without a partner stands beside None. The pairs are in chronological order.

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
    verdicts: Iterable[Verdict],
    visits: Sequence[Visit],
    session_id: Callable[[int], str],
    age: Callable[[int], float | None],
    ledger: Ledger,
    conflict: Callable[[Verdict], Rejection | None],
) -> list[Session]:
    """The sessions of one participant from the verdicts on its files, whose sessions are days, and its clinical visits.

    All days count from the origin of `Visit.day`. An fMRI and a dMRI within PAIR_WITHIN_DAYS form a session (see
    `pair_days`); a scan without a partner is a session alone. The day of a session is that of its earlier scan;
    session_id and age (in years) are called with it. The diagnosis is that of the visit nearest to this day, within
    WITHIN_DAYS, that has a diagnosis or an exclusion; else None. If that visit excludes the participant, the session's
    scans are rejected in the ledger. conflict: see `Ledger.participant`. A refused scan within PAIR_WITHIN_DAYS of a
    session counts as refused in that session.
    """
    found, reasons = ledger.participant(verdicts, conflict)
    scans: dict[Modality, dict[int, Scan]] = {modality: {} for modality in Modality}
    for (key, modality), scan in found.items():
        if isinstance(key, int):
            scans[modality][key] = scan
    decided = [visit for visit in visits if visit.diagnosis is not None or visit.excluded is not None]
    result = []
    for pair in pair_days(scans[Modality.FMRI], scans[Modality.DMRI]):
        days = {m: day for m, day in zip((Modality.FMRI, Modality.DMRI), pair, strict=True) if day is not None}
        session_scans = {m: scans[m][day] for m, day in days.items()}
        day = min(days.values())
        visit = nearest(decided, day)
        if visit is not None and visit.excluded is not None:
            remedy = "none is needed: the scan is valid, but its participant is in none of the groups NC, MCI and AD"
            ledger.exclude(session_scans.values(), visit.excluded, remedy)
            continue
        clinical: dict[str, Any] = {}
        if visit is not None:
            clinical = {"diagnosis": visit.diagnosis, "dx_gap_days": visit.day - day}
        result.append(
            Session(
                session_id(day),
                session_scans,
                age=age(day),
                scan_gap_days=max(days.values()) - day,
                scores=nearest_scores(visits, day),
                refused=_refused(reasons, days),
                **clinical,
            )
        )
    return result


def _refused(reasons: Mapping[Key, str], days: Mapping[Modality, int]) -> dict[Modality, str]:
    """The refused modalities of a session with the reason of the nearest refusal, if within PAIR_WITHIN_DAYS.

    days: those of the session's scans. A refusal of an unknown day counts if there is no nearer one.
    """
    near: dict[Key, tuple[int, str]] = {}
    for (day, modality), reason in reasons.items():
        distance = min(abs(day - own) for own in days.values()) if isinstance(day, int) else PAIR_WITHIN_DAYS
        if distance <= PAIR_WITHIN_DAYS:
            near[None, modality] = min(near.get((None, modality), (distance, reason)), (distance, reason))
    return refused_in(None, {key: reason for key, (_, reason) in near.items()}, days)


def nearest_scores(visits: Iterable[Visit], day: int, within: int = WITHIN_DAYS) -> dict[str, float]:
    """Each clinical score from the visit nearest to `day` that has it, at most `within` days away; unknown ones absent.

    >>> nearest_scores([Visit(0, scores={"mmse": 29}), Visit(5, scores={"mmse": 27, "moca": 25})], 1)
    {'mmse': 29, 'moca': 25}
    """
    scores: dict[str, float] = {}
    near = [visit for visit in visits if abs(visit.day - day) <= within]
    for visit in sorted(near, key=lambda v: (abs(v.day - day), v.day)):
        scores = {**visit.scores, **scores}
    return dict(sorted(scores.items()))
