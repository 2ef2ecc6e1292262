"""The scans of one participant of a BIDS dataset, by session, from the files below its folders."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pdsynth.cohorts.cohort import NotNeeded, Rejection, Scan
from pdsynth.cohorts.kinds import Item, Kind, Verdict, classify
from pdsynth.cohorts.ledger import Ledger, refused_in
from pdsynth.cohorts.names import REMEDY, contradiction, entities
from pdsynth.cohorts.walk import Found, walk
from pdsynth.resources import stops_run
from pdsynth.types import InputError, Modality

LIKE_PARTICIPANT = re.compile(r"sub-|sub(j|ject)?[-_ ]?[a-z]*\d", re.IGNORECASE)  # a name that may mean a participant
OUTSIDE = "lies outside the session folders of its participant"
AMBIGUOUS = "has no session in its path, and the participant has several"


@dataclass(frozen=True)
class Visit:
    """One session of a participant: its usable scan per modality.

    refused: by modality without a usable scan, the reason why a file of it was refused.
    """

    scans: dict[Modality, Scan]
    refused: dict[Modality, str]


def participants(trees: Sequence[Path], ledger: Ledger) -> list[str]:
    """Names of the participants' folders (sub-*) in several folders (trees) that form one dataset, sorted.

    A file or folder in a tree that may be a participant or a scan, but is not named or placed as such, is added to the
    rejected files of the ledger. Raises InputError if a tree cannot be listed.
    """
    names = set()
    for tree in trees:
        for entry in sorted(_listed(tree), key=lambda each: each.name):
            try:
                is_folder = entry.is_dir()
            except OSError:  # a link to itself
                is_folder = False
            if is_folder and entry.name.startswith("sub-"):
                names.add(entry.name)
            elif is_folder and LIKE_PARTICIPANT.match(entry.name):
                _refuse_folder(Path(entry.path), ledger)
            elif not is_folder:
                _refuse_file(entry, ledger)
    return sorted(names)


def _listed(tree: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(tree) as entries:
            return list(entries)
    except OSError as error:
        if stops_run(error):
            raise
        raise InputError(tree, f"cannot be listed ({error.strerror})", "ask for permission to read it") from error


def _refuse_folder(folder: Path, ledger: Ledger) -> None:
    """Refuse a folder such as SUB-01 or sub01 if it holds a scan."""
    verdicts = [classify(Item(found)) for found in walk(folder)]
    if any(verdict.kind in (Kind.CANDIDATE, Kind.REFUSED) for verdict in verdicts):
        label = re.sub(r"^sub(j|ject)?[-_ ]?|[^A-Za-z0-9]", "", folder.name, flags=re.IGNORECASE)
        ledger.rejected.append(
            Rejection(folder, "holds scans, but is not named sub-*", f"rename it sub-{label}, and its files likewise")
        )


def _refuse_file(entry: os.DirEntry[str], ledger: Ledger) -> None:
    path = Path(entry.path)
    if entry.is_symlink() and not path.exists() and entry.name.startswith("sub-") and "." not in entry.name:
        ledger.rejected.append(Rejection(path, "is a link to a folder that does not exist", "repair the link"))
        return
    verdict = classify(Item(Found(path, (), entry.name), level="lies in the root of the dataset"))
    if verdict.kind is Kind.REFUSED:
        ledger.rejected.append(Rejection(path, verdict.reason, verdict.remedy))


def visits(folders: Sequence[Path], ledger: Ledger, recorded: Collection[Path] = ()) -> dict[str, Visit]:
    """The sessions of one participant, by name ("" without a session level), from its folder in each tree.

    folders: the participant's folder in each of the folders (trees) that form the dataset. Each file below them is
    recorded in the ledger as used, not needed or rejected. recorded: files other than scans that are in the ledger
    already. A session is left out if it has no usable scan.
    """
    name = folders[0].name
    trees = [list(walk(folder)) for folder in folders]
    sessions = [{found.dirs[0] for found in tree if found.dirs and found.dirs[0].startswith("ses-")} for tree in trees]
    verdicts = [
        verdict
        for tree, own in zip(trees, sessions, strict=True)
        for verdict in _verdicts(tree, own, set().union(*sessions))
    ]

    def conflict(verdict: Verdict) -> Rejection | None:
        problem = contradiction(verdict.path, name, str(verdict.session))
        return None if problem is None else Rejection(verdict.path, problem, REMEDY)

    if not verdicts:
        ledger.not_needed.append(NotNeeded(folders[0], "participant's folder without a file"))
    scans, reasons = ledger.participant(verdicts, conflict, recorded)
    names = sorted({str(session) for session, _ in scans})
    found = {}
    for visit in names:
        own = {modality: scan for (session, modality), scan in scans.items() if session == visit}
        found[visit] = Visit(dict(sorted(own.items())), refused_in(visit, reasons, own))
    return found


def _verdicts(tree: Iterable[Found], own: set[str], everywhere: set[str]) -> Iterator[Verdict]:
    """Verdicts on the files of one tree. `own` are the session folders of this tree, `everywhere` those of all."""
    for found in tree:
        session, level = _place(found, own, everywhere)
        yield classify(Item(found, session, level))


def _place(found: Found, own: set[str], everywhere: set[str]) -> tuple[str | None, str | None]:
    """The session of a file, and the reason why it is at the wrong level, or None for either.

    One tool may keep the session level and another drop it: a file without it belongs to the participant's only
    session, or to that of its name.
    """
    dirs = found.dirs
    depth = 1
    session: str | None = ""
    if dirs and dirs[0].startswith("ses-"):
        session, depth = dirs[0], 2
    elif found.whole and found.name.startswith("ses-"):
        return found.name, None
    elif own:
        return None, OUTSIDE
    elif everywhere:
        named = f"ses-{entities(found.name).get('ses', '')}"
        session = named if named in everywhere else next(iter(everywhere)) if len(everywhere) == 1 else None
        if session is None:
            return None, AMBIGUOUS
    if len(dirs) == depth or found.whole:
        return session, None
    above = "the participant's folder" if depth == 1 and not dirs else "the session's folder"
    return session, f"lies in {above}" if len(dirs) < depth else f"lies in {'/'.join(dirs)}, a level too deep"
