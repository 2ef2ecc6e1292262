"""Withdraws a participant: removes rows, volumes and records from folders, and finds the models trained on the scans.

A prepared folder and a folder of synthesised scans are written anew without the participant, in a workspace, and
searched before they take the place of the old ones. Results are means over participants and can only be made again.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import pandas as pd

from pdsynth import folders, manifest
from pdsynth.cohorts.names import entities
from pdsynth.data.rows import read_pairs, read_quality, read_rejected, read_splits
from pdsynth.data.sessions import Inputs
from pdsynth.data.shards import AGAIN, FOLDER
from pdsynth.data.standardise import FLIRT_TEMPLATE
from pdsynth.files import read_json, sha256, write_json, write_table
from pdsynth.imaging.nifti import SUFFIXES
from pdsynth.outcomes import TABLE, read_outcomes
from pdsynth.report.boilerplate import TEXT, of_synthesis
from pdsynth.report.quality import PAGE, write_quality
from pdsynth.schemas import read_object
from pdsynth.types import InputError
from pdsynth.weights import LONG, model_folder

SEARCHED = {".json", ".tsv", ".csv", ".html", ".md", ".bib", ".txt", ""}  # endings of files of text
DIGEST = 16  # hexadecimal digits of a scan's SHA-256 in the card of a model


class Outcome(StrEnum):
    """The outcome for a folder: the participant was withdrawn, was not in it, or it must be made again without them."""

    WITHDRAWN = "withdrawn"
    ABSENT = "not in it"
    AGAIN = "must be made again"


class Use(StrEnum):
    """The use of a participant's scans by a model, as the model records it."""

    TRAINED = "trained or adapted"
    CALIBRATED = "calibrated"
    NONE = "not used"
    UNKNOWN = "unknown: no digest of the scans is recorded"


@dataclass(frozen=True)
class Withdrawal:
    """The outcome for each folder, and the use of the participant's scans by each model, by their paths."""

    participant_id: str
    outcomes: dict[Path, Outcome]
    uses: dict[str, list[Use]]


@dataclass
class _Person:
    """A participant, with all that identifies them in the folders: paths and digests of their images.

    Gradient tables and templates are not among them, because those of several participants may be equal.
    """

    participant_id: str
    paths: set[str]
    digests: set[str]

    def has_session(self, stem: str) -> bool:
        """Whether the name of a session, such as "sub-1_ses-a", is one of this participant."""
        return stem == self.participant_id or stem.startswith(f"{self.participant_id}_ses-")

    def owns(self, path: str) -> bool:
        """Whether a file of the dataset is this participant's: a known scan, or by the name of a folder or the file.

        Names with a part sub- are compared by this part. Of other names, a part of the path has to begin with the
        letters and digits of the id, such as 002_S_0413 for sub-002S0413.
        """
        if path in self.paths:
            return True
        named = [found for part in path.split("/") if (found := entities(part).get("sub"))]
        label = self.participant_id.removeprefix("sub-")
        if named:
            return label in named
        letters = "[^A-Za-z0-9/]*".join(map(re.escape, label))
        return re.search(rf"(?:^|/){letters}(?![A-Za-z0-9])", path) is not None

    def traces(self, folder: Path) -> Iterator[tuple[Path, str]]:
        """Yield file and passage of every trace of this participant in texts and names of a folder's files."""
        texts = [re.escape(text) for text in {*self.paths, *self.digests, *(d[:DIGEST] for d in self.digests)}]
        words = [rf"(?<![A-Za-z0-9]){re.escape(self.participant_id)}(?![A-Za-z0-9])", *texts]
        pattern = re.compile("|".join(words))
        for path in sorted(folder.rglob("*"), key=lambda path: (path.suffix == ".html", path)):  # made from the others
            name = path.relative_to(folder).as_posix()
            readable = path.is_file() and path.suffix in SEARCHED
            for text in (name, path.read_text("utf-8", errors="replace") if readable else ""):
                if match := pattern.search(text):
                    yield path, match[0]


def withdraw(participant: str, places: Sequence[str | Path], models: Sequence[str | Path] = ()) -> Withdrawal:
    """Remove a participant from prepared folders and folders of synthesised scans; returns the outcome for each.

    participant: the id in the tables, such as "sub-1"; "sub-" may be left out. places: folders of `prepare` and
    `synthesize`, from which rows, volumes and records are removed; and folders of results, which are not changed: those
    that hold or were computed with the participant must be made again. models: folders of models, of which those are
    found that were trained, adapted or calibrated on the participant's scans, by the digests of the scans.

    Each folder is exchanged as a whole, so that a stopped run leaves the old or the new one. Raises InputError before
    any change if the participant is in none of the folders or alone in one, if a folder or a model cannot be used, and
    if a file was edited since pdsynth wrote it; and without a change of the folder if a trace of the participant would
    remain in it, such as the same image under the name of another participant.
    """
    person = _Person(participant if participant.startswith("sub-") else f"sub-{participant}", set(), set())
    folders_given = [Path(place) for place in places]
    kinds = {place: _kind(place) for place in folders_given}
    cards = {str(model): read_json(model_folder(model) / "config.json").get("card", {}) for model in models}
    sources = {sha256(place) for place, kind in kinds.items() if kind == "prepare"}
    present = {place: kind in KINDS and KINDS[kind].find(place, person) for place, kind in kinds.items()}
    for place, kind in kinds.items():
        if kind not in KINDS:
            inputs = manifest.read(place).get("inputs", {}).values()
            present[place] = any(True for _ in person.traces(place)) or not sources.isdisjoint(inputs)
    if not any(present.values()):
        names = ", ".join(map(str, folders_given))
        raise InputError(person.participant_id, f"is in none of {names}", "give the id as pairs.tsv has it")
    changed = [place for place, holds in present.items() if holds and kinds[place] in KINDS]
    for place in changed:
        folders.refuse_occupied(place, True)
    for place in changed:
        with folders.making(place, update=True) as work, manifest.addition(work.folder, "withdraw"):
            KINDS[kinds[place]].remove(work.folder, person)
            for path, passage in person.traces(work.folder):
                problem = f"has {passage}, which is also another participant's here"
                remedy = "find out whose scan it is, correct the dataset, and prepare or synthesise again"
                raise InputError(place / path.relative_to(work.folder), problem, remedy)
    outcomes = {
        place: Outcome.WITHDRAWN if place in changed else Outcome.AGAIN if present[place] else Outcome.ABSENT
        for place in folders_given
    }
    return Withdrawal(person.participant_id, outcomes, {name: _uses(card, person) for name, card in cards.items()})


def _kind(place: Path) -> str:
    """The command that wrote a folder. Raises InputError if pdsynth did not write it, and for the folder of a model."""
    entries = manifest.read(place)
    if not manifest.made_by_pdsynth(entries):
        raise InputError(place, "was not written by pdsynth", "name folders of prepare, synthesize or evaluate")
    command = str(entries.get("command"))
    if command in ("train", "calibrate", "adapt"):
        raise InputError(place, f"was written by pdsynth {command}", "name the model with --model")
    return command


def _uses(card: dict[str, Any], person: _Person) -> list[Use]:
    """The uses of the participant's scans that the card of a model records."""
    short = {digest[:DIGEST] for digest in person.digests}
    records = {Use.TRAINED: card.get(LONG), Use.CALIBRATED: card.get("calibration", {}).get(LONG)}
    found = [use for use, digests in records.items() if not short.isdisjoint(digests or ())]
    return found or [Use.NONE if card.get(LONG) and short else Use.UNKNOWN]


def _unsealed(folder: Path) -> dict[str, Any]:
    """The manifest of a folder without its inventory, which names all files and is made again when it is complete."""
    return {name: value for name, value in manifest.read(folder).items() if name not in (manifest.FILES, manifest.SEAL)}


def _keep_rows(path: Path, is_theirs: Callable[[dict[str, str]], bool]) -> None:
    """Write a table again without the rows for which the function is true; the cells of the others stay as they are."""
    table = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
    write_table(path, table[~_chosen(table, is_theirs)])


def _chosen(table: pd.DataFrame, is_theirs: Callable[[dict[str, str]], bool]) -> pd.Series:
    """Whether the function is true for each row of a table of texts, (rows,) bool."""
    rows = ({str(name): cell for name, cell in row.items()} for row in table.to_dict("records"))
    return pd.Series([is_theirs(row) for row in rows], index=table.index, dtype=bool)


def _refuse_last(place: Path, person: _Person, others: Iterable[str]) -> None:
    if set(others) <= {person.participant_id}:
        raise InputError(place, f"holds no participant besides {person.participant_id}", "remove the folder yourself")


def _find_prepared(place: Path, person: _Person) -> bool:
    """Whether a prepared folder holds the participant, whose paths and digests are added to `person`."""
    pairs, splits, rejected = read_pairs(place), read_splits(place), read_rejected(place)
    read_quality(place)
    records = [path for path in sorted((place / FOLDER).glob("*.json")) if person.has_session(path.stem)]
    theirs = pairs[pairs["participant_id"] == person.participant_id]
    person.paths |= {path for path in theirs[["fmri_path", "dmri_path"]].to_numpy(str).ravel() if path}
    for path in records:
        inputs = read_object(path, Inputs, AGAIN).get("inputs", {})
        person.paths |= {name for name in inputs if name.endswith(SUFFIXES) and Path(name).name != FLIRT_TEMPLATE}
        person.digests |= {entry["sha256"] for name, entry in inputs.items() if entry and name in person.paths}
    people = {*pairs["participant_id"], *splits["participant_id"]}
    if not (records or person.participant_id in people or any(map(person.owns, rejected["path"]))):
        return False
    _refuse_last(place, person, pairs["participant_id"])
    return True


def _remove_prepared(folder: Path, person: _Person) -> None:
    entries, masks, names = _unsealed(folder), 0, set()
    for path in sorted((folder / FOLDER).iterdir()):
        if person.has_session(path.stem):
            masks += sum(mask is not None for mask in read_json(path).get("masks", {}).values())
            names.add(path.stem)
            path.unlink()
    for name in ("pairs.tsv", "splits.tsv", "quality.tsv"):
        _keep_rows(folder / name, lambda row: row["participant_id"] == person.participant_id)
    _keep_rows(folder / "rejected.tsv", lambda row: person.owns(row["path"]))
    entries["shards"] = {name: size for name, size in entries["shards"].items() if Path(name).stem not in names}
    entries["outputs"] = {name: sha256(folder / name) for name in entries["outputs"]}
    entries["masks_given"] -= masks
    entries["kept"] = [name for name in entries["kept"] if name not in names]
    write_json(folder / manifest.NAME, entries)
    if (folder / PAGE).exists():
        write_quality(folder)


def _find_synthesised(place: Path, person: _Person) -> bool:
    """Whether a folder holds scans synthesised from the participant, whose paths and digests are added to `person`."""
    table = read_outcomes(place / TABLE)
    theirs = _chosen(table, lambda row: _of(person, row))
    if not theirs.any():
        return False
    for sidecar in sorted((place / person.participant_id).rglob("*.json")):
        person.digests |= set(read_json(sidecar).get("SourceSHA256", [])[:1])  # of the image, before its tables
    person.paths |= set(table["source"][theirs])
    _refuse_last(place, person, table["participant_id"][~theirs])
    return True


def _of(person: _Person, row: dict[str, str]) -> bool:
    """Whether a row of synthesised.tsv is of the participant; a refused scan has no participant in it."""
    return row["participant_id"] == person.participant_id or (not row["participant_id"] and person.owns(row["source"]))


def _remove_synthesised(folder: Path, person: _Person) -> None:
    shutil.rmtree(folder / person.participant_id, ignore_errors=True)
    _keep_rows(folder / TABLE, lambda row: _of(person, row))
    entries, own = _unsealed(folder), f"{person.participant_id}/"
    entries["stamps"] = {name: each for name, each in entries.get("stamps", {}).items() if not name.startswith(own)}
    entries["inputs"] = {name: digest for name, digest in entries["inputs"].items() if digest not in person.digests}
    write_json(folder / manifest.NAME, entries)
    if (folder / TEXT).exists():
        of_synthesis(folder, entries).write(folder, bool(entries.get("simulated")))


@dataclass(frozen=True)
class _Kind:
    """The functions for the folders of a command: find a participant in one, and remove the participant from it."""

    find: Callable[[Path, _Person], bool]
    remove: Callable[[Path, _Person], None]


KINDS = {
    "prepare": _Kind(_find_prepared, _remove_prepared),
    "synthesize": _Kind(_find_synthesised, _remove_synthesised),
}
