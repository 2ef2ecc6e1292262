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
    """A clinical visit of one participant.

    day: number of its day, either in days since the participant entered the study (OASIS-3) or as `date.toordinal`
    counts calendar days (ADNI). diagnosis: None if the visit gives none. excluded: the reason why the participant
    belongs to none of the groups NC, MCI and AD, such as dementia of another cause; None if there is no such reason.
    scores: those of "mmse" and "moca" that are known, in points.
    """

    day: int
    diagnosis: Diagnosis | None = None
    excluded: str | None = None
    scores: Mapping[str, float] = field(default_factory=dict)


def consistent(visits: Iterable[Visit]) -> tuple[list[Visit], list[int]]:
    """Merge the visits of one participant that are of the same day, and find contradictions between them.

    Returns the merged visits, one per day in the order of days, and the days on which visits contradict each other. If
    diagnosis or reason of exclusion differ between visits of one day, both are None in the merged visit; a score that
    differs is absent. A value that only one of the visits has is not a contradiction.

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
    """The visit nearest to a day; of two equally near ones the earlier.

    It is None if no visit is at most `within` days away (by default 365).

    >>> nearest([Visit(10), Visit(30)], 20).day
    10
    """
    near = [visit for visit in visits if abs(visit.day - day) <= within]
    return min(near, key=lambda visit: (abs(visit.day - day), visit.day), default=None)


def pair_days(
    fmri: Iterable[int], dmri: Iterable[int], within: int = PAIR_WITHIN_DAYS
) -> list[tuple[int | None, int | None]]:
    """Pair days of fMRI with days of dMRI, as (fMRI day, dMRI day); each day is in one pair at most.

    fmri, dmri: day numbers of the scans of one participant. The nearest days are paired first, and the earlier ones if
    the distance is equal. Days that are more than `within` days apart (by default 90) are not paired; a day without a
    partner stands beside None. The pairs are in chronological order.

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
    """Form the sessions of one participant from its files and its clinical visits, by their distance in days.

    verdicts: one per file, the decision whether it may be used, with its modality and, as its session, its day. visits:
    their days count from the same origin. session_id(day): the session's name. age(day): the age in years, or None.
    ledger: the lists of used, unneeded and refused files of the cohort, to which this function adds the files.
    conflict(verdict): the refusal of a file whose name contradicts its folder; None for any other file.

    An fMRI and a dMRI that are at most 90 days apart form a session, the nearest days first. A scan without a partner
    is a session alone. The day of a session is that of its earlier scan. Its diagnosis is that of the nearest visit
    within 365 days that has a diagnosis or a reason of exclusion, or None without such a visit. Each score is that of
    the nearest visit within 365 days that has it. If the visit of the diagnosis excludes the participant, the session
    is left out, and its scans are refused in the ledger. If a session has no usable scan of a modality, but a refused
    one within 90 days or of an unknown day, it holds the reason of the refusal.
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
    """Each clinical score of a participant ("mmse", "moca") from the visit nearest to `day` that has it.

    Only visits that are at most `within` days away (by default 365) count; of two equally near ones the earlier counts.
    A score that none of them has is absent.

    >>> nearest_scores([Visit(0, scores={"mmse": 29}), Visit(5, scores={"mmse": 27, "moca": 25})], 1)
    {'mmse': 29, 'moca': 25}
    """
    scores: dict[str, float] = {}
    near = [visit for visit in visits if abs(visit.day - day) <= within]
    for visit in sorted(near, key=lambda v: (abs(v.day - day), v.day)):
        scores = {**visit.scores, **scores}
    return dict(sorted(scores.items()))
