"""The command that may follow a verb, for the scans that a study holds: a message, and the words after `pdsynth`.

A study in which nobody has both scans cannot measure a model, and is never led in a circle: its missing scans are
synthesised, by a model that was adapted to its single scans if there are enough.
"""

from __future__ import annotations

import os
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING

from pdsynth.cli.console import WORDS, given
from pdsynth.folders import stopped
from pdsynth.types import Available, Modality, Split, counted

if TYPE_CHECKING:
    from pdsynth.cohorts.cohort import Cohort
    from pdsynth.data.pairs import Pairs

HALVES = "0.5,0,0.5"  # --split of `prepare`: one half trains, the other is scored
PREPARED = "prepared"  # the usual name of a prepared folder
DATASET = "your-dataset"  # in a command that follows a verb which does not know the dataset
READING = "--layout", "--select"  # options of a verb that reads a dataset, which the next verb needs too
DIAGNOSES = "--diagnosis-column", "--diagnosis-map"


def free(name: str) -> str:
    """The first of NAME, NAME-2, NAME-3, ... that does not exist in the current folder.

    A command is printed with it so that it runs as pasted: a folder of an earlier run is not in its way.
    """
    names = chain([name], (f"{name}-{number}" for number in count(2)))
    return next(each for each in names if not (os.path.lexists(each) or stopped(Path(each))))


def to_prepare(dataset: Path) -> tuple[str, ...]:
    """The command that prepares the pairs of a dataset, to measure a model on them."""
    return "prepare", str(dataset), free(PREPARED), "--split", HALVES, *given(*READING, *DIAGNOSES)


def to_measure(dataset: Path, out: Path, model: str) -> tuple[str, ...]:
    """The command that measures the model after a synthesis into `out`; a BIDS App has a level for this.

    The pairs of the dataset are prepared first, unless the current folder has them in `prepared`.
    """
    from pdsynth.data.pairs import Pairs
    from pdsynth.data.prepare import is_prepared
    from pdsynth.data.splits import FEWEST

    if WORDS[:1] == ["bids-app"]:
        return "bids-app", str(dataset), str(out), "group"
    if is_prepared(Path(PREPARED), dataset) and _people(Pairs.open(PREPARED).test) >= FEWEST:
        return "evaluate", PREPARED, *_scoring(model)
    return to_prepare(dataset)


def to_train(prepared: str = PREPARED) -> tuple[str, ...]:
    """The command that trains the default recipe on a prepared folder."""
    return "train", prepared, free("run"), "--recipe", "pds"


def to_synthesise(model: str, dataset: str | Path, out: str = "synthesised") -> tuple[str, ...]:
    """The command that synthesises the missing scans of a dataset. out: the usual name of the output folder."""
    return "synthesize", model, str(dataset), free(out)


def after_cohort(cohort: Cohort) -> tuple[str, ...]:
    """A message on the scans that a dataset lacks, and the command for this."""
    from pdsynth.data.splits import FEWEST

    visits = [session for _, session in cohort]
    paired = {s.participant_id: v for s, v in cohort if len(v.scans) == len(Modality)}
    root = str(cohort.root)
    fill = *to_synthesise("default", root), *given(*READING)
    if missing := sum(len(session.missing) for session in visits):
        return f"Missing: {counted(missing, 'scan')}, which synthesis fills in", *fill
    if len(paired) >= FEWEST:
        return "No scan is missing; pairs measure a model", *to_prepare(cohort.root)
    if paired:
        return _by_eye(next(iter(paired.values())).scans[Modality.FMRI].path)
    if visits:
        message = "All other scans were refused. Repair them, or synthesise them nevertheless"
        return message, *fill, "--replace-refused"
    return "No scan can be used. Repair the refused files, and inspect again", "inspect", root, *given(*READING)


def _by_eye(fmri: Path) -> tuple[str, ...]:
    """A message and the command for the only pair of a study. fmri: its fMRI scan."""
    message = "One pair is too few to measure a model. Synthesise its dMRI, and compare by eye with the real one"
    return message, *to_synthesise("default", fmri), "--to", Modality.DMRI.value


def after_prepared(pairs: Pairs, dataset: str | Path = DATASET) -> tuple[str, ...]:
    """A message on the use of a prepared folder, and the command for this. dataset: the one that was prepared."""
    from pdsynth.data.splits import FEWEST

    root = str(pairs.root)
    if _people(pairs.test) >= FEWEST:
        return "Score the shipped model on the test participants", "evaluate", root, *_scoring("default")
    if _people(pairs, Available.BOTH) >= FEWEST:
        return "Train a model on the pairs", *to_train(root)
    from pdsynth.adaptation.adapt import FEWEST_SINGLE

    others = pairs.where(pairs.table["split"] != Split.TEST)
    if min(_people(others, Available.BOTH, Available(modality)) for modality in Modality) >= FEWEST_SINGLE:
        return "Adapt the shipped model to your scanner by single scans", "adapt", "default", root, free("adapted")
    if (pairs.table["available"] != Available.BOTH).any():
        return "Synthesise the missing scans", *to_synthesise("default", dataset), *given(*READING)
    return _by_eye(Path(dataset) / str(pairs.table["fmri_path"].iloc[0]))


def after_model(model: Path, pairs: Pairs) -> tuple[str, ...]:
    """The command after a model was made from a prepared folder: to score it, or to use it if too few can score it."""
    from pdsynth.data.splits import FEWEST

    if _people(pairs, Available.BOTH) >= FEWEST:
        return "evaluate", str(pairs.root), *_scoring(str(model))
    return to_synthesise(str(model), DATASET, f"synthesised-{model.name}")


def _scoring(model: str) -> tuple[str, ...]:
    return "--model", model, "--out", free("results")


def _people(pairs: Pairs, *available: Available) -> int:
    """The number of participants in some rows, of those whose sessions hold one of these; without any, of all."""
    rows = pairs.table["available"].isin(available or tuple(Available))
    return int(pairs.table["participant_id"][rows].nunique())
