"""The verdicts on a cohort's files, for the tests of inputs."""

from __future__ import annotations

from pathlib import Path

from pdsynth.cohorts.cohort import Cohort
from pdsynth.types import Modality


def put(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def chosen(cohort: Cohort, modality: Modality, number: int = 0) -> str:
    """Name of the chosen scan of a session."""
    return list(cohort)[number][1].scans[modality].path.name


def refusals(cohort: Cohort) -> dict[str, str]:
    return {refusal.path.name: refusal.reason for refusal in cohort.rejected}


def rules(cohort: Cohort) -> dict[str, str]:
    return {file.path.name: file.rule for file in cohort.not_needed}


def assert_refused(cohort: Cohort, modality: Modality, reason: str) -> None:
    """The first session has no scan of the modality, and a refusal for this reason: it is not missing."""
    session = cohort.subjects[0].sessions[0]
    assert modality not in session.scans and modality not in session.missing
    assert reason in session.refused[modality]
    assert any(reason in refusal.reason and refusal.remedy for refusal in cohort.rejected)
