"""The ledger of a cohort's files: which are used, which are not needed by which rule, and which are refused and why."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pdsynth.cohorts.choice import ANY, Select
from pdsynth.cohorts.cohort import Cohort, NotNeeded, Rejection, Scan, Subject
from pdsynth.cohorts.inheritance import sidecars
from pdsynth.cohorts.kinds import Kind, Verdict
from pdsynth.cohorts.scans import best_run
from pdsynth.types import Modality

DICOM = (".dcm", ".ima")  # thousands of files per series, which are one refusal
Key = tuple[Hashable, Modality]  # session and modality
Scans = dict[Key, Scan]


@dataclass
class Ledger:
    """The record how each file of a cohort is used while the cohort is read: as a scan, not needed, or rejected.

    select: restricts the choice among several scans of a session by the key-value pairs of their names (option
    --select). rejected: refused files, with reason and remedy. not_needed: files that are not read, with the rule by
    which they are not needed. used: the chosen scans, and the gradient tables, brain masks, JSON files and matrices of
    FEAT that are read with them.
    """

    select: Select = ANY
    rejected: list[Rejection] = field(default_factory=list)
    not_needed: list[NotNeeded] = field(default_factory=list)
    used: list[Path] = field(default_factory=list)

    def participant(
        self,
        verdicts: Iterable[Verdict],
        conflict: Callable[[Verdict], Rejection | None] = lambda verdict: None,
        recorded: Collection[Path] = (),
    ) -> tuple[Scans, dict[Key, str]]:
        """Choose one scan per session and modality of a participant, and record how each of its files is used.

        verdicts: one per file, the decision by its name and folder whether it may be chosen, is not needed, or is
        refused. conflict(verdict): the refusal of a file that may be chosen but whose name contradicts its folder; None
        for any other file. recorded: files other than scans that are in the record already.

        Returns two dicts by (session, modality); a session is a name or a day. The first holds the chosen scans. The
        second holds the reason of the first refusal, as the name of the file and the words of the reason, where there
        are refused files but no usable scan. If the session of a refused file is unknown, its key has None in place of
        the session, and the reason concerns all sessions of the participant.
        """
        first = len(self.rejected)
        candidates: dict[Key, list[Path]] = {}
        reasons: dict[Key, str] = {}
        others = []
        for verdict in verdicts:
            if verdict.kind is not Kind.CANDIDATE or verdict.modality is None:
                others.append(verdict)
                continue
            key = verdict.session, verdict.modality
            refusal = conflict(verdict)
            if refusal is None:
                candidates.setdefault(key, []).append(verdict.path)
            else:
                self._refuse(refusal, key, reasons)
        scans: Scans = {}
        for key, paths in candidates.items():
            before = len(self.rejected)
            scan = best_run(paths, key[1], self.rejected, self.not_needed, self.select)
            if scan is not None:
                scans[key] = scan
            elif self.rejected[before:]:
                reasons.setdefault(key, _described(self.rejected[before]))
        used = [path for scan in scans.values() for path in self._files_of(scan)]
        refused = {refusal.path for refusal in self.rejected[first:]}
        self.used += sorted(path for path in used if path not in refused)
        settled = refused.union(used)
        unsettled = [v for v in others if v.path not in settled and v.path not in recorded]
        self._settle(unsettled, scans, reasons)
        return scans, {key: reason for key, reason in reasons.items() if key not in scans}

    def _settle(self, verdicts: Iterable[Verdict], scans: Mapping[Key, Scan], reasons: dict[Key, str]) -> None:
        """Record the verdicts on the files that are not candidates and are not used with a scan.

        The DICOM files of a folder are one refusal. The reasons of refusals are added to `reasons`.
        """
        dicom: dict[Path, list[Verdict]] = {}
        for verdict in verdicts:
            key = None if verdict.modality is None else (verdict.session, verdict.modality)
            spare = verdict.kind is Kind.STAND_IN and (key is None or key in scans)
            if verdict.kind is Kind.NOT_NEEDED or spare:
                self.not_needed.append(NotNeeded(verdict.path, verdict.rule))
            elif verdict.path.suffix.lower() in DICOM:
                dicom.setdefault(verdict.path.parent, []).append(verdict)
            else:
                self._refuse(Rejection(verdict.path, verdict.reason, verdict.remedy), key, reasons)
        for folder, files in dicom.items():
            refusal = Rejection(folder, f"holds {len(files)} DICOM files", "convert them with dcm2niix")
            modality = files[0].modality
            self._refuse(refusal, None if modality is None else (files[0].session, modality), reasons)

    def exclude(self, scans: Iterable[Scan], reason: str, remedy: str) -> None:
        """Refuse scans that were chosen already, for a reason that is not in their files, such as the diagnosis.

        The scans become rejected, with this reason and remedy. Their gradient tables, masks, JSON files and matrices of
        FEAT become not needed, unless another chosen scan uses them.
        """
        for scan in scans:
            files = self._files_of(scan)
            self.used.remove(scan.path)
            for path in files[1:]:
                if path in self.used:
                    self.used.remove(path)  # once, because another scan may have the same sidecar
                    self.not_needed.append(NotNeeded(path, "belongs to an excluded scan"))
            self.rejected.append(Rejection(scan.path, reason, remedy))

    def cohort(self, root: Path, subjects: list[Subject], simulated: bool = False) -> Cohort:
        """The cohort of these participants in the folder `root`, with the recorded files; equal items are listed once.

        A file above the participants' folders may be recorded several times, because it applies to many scans.
        simulated: whether the cohort is simulated.
        """
        used, rejected = dict.fromkeys(self.used), list(dict.fromkeys(self.rejected))
        not_needed = [each for each in dict.fromkeys(self.not_needed) if each.path not in used]
        return Cohort(root, subjects, rejected, simulated, not_needed, list(used))

    def _refuse(self, refusal: Rejection, key: Key | None, reasons: dict[Key, str]) -> None:
        self.rejected.append(refusal)
        if key is not None:
            reasons.setdefault(key, _described(refusal))

    def _files_of(self, scan: Scan) -> list[Path]:
        """The files of a chosen scan: the image, gradient tables, brain mask, FEAT's matrix, and sidecars."""
        files = [scan.path, scan.bval, scan.bvec, scan.mask, scan.flirt]
        return [*(path for path in files if path is not None), *sidecars(scan, self.rejected)]


def _described(refusal: Rejection) -> str:
    return f"{refusal.path.name} {refusal.reason}"


def refused_in(session: Hashable, reasons: Mapping[Key, str], scans: Iterable[Modality]) -> dict[Modality, str]:
    """The modalities of a session that have refused files but no usable scan, each with the reason of the refusal.

    session: its name or day. reasons: why files were refused, by (session, modality); a reason under the session None
    concerns every session without a reason of its own for this modality. scans: the modalities of which this session
    has a usable scan.
    """
    found = {}
    for modality in set(Modality) - set(scans):
        reason = reasons.get((session, modality)) or reasons.get((None, modality))
        if reason is not None:
            found[modality] = reason
    return found
