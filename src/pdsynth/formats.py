"""The numbers of the formats of models and folders, and the pdsynth that reads those that this version cannot read.

A number rises when an earlier pdsynth would misread the files of this version. Files of a higher number are refused
before anything else of them is read. Files of a lower number are read as they were made, or refused by the name of the
pdsynth that reads them. `tests/formats` has a fixture of each.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pdsynth import __version__
from pdsynth.types import InputError

VERSION = re.compile(r"\d+(\.\d+){0,3}[\w.+-]{0,16}")


@dataclass(frozen=True)
class Format:
    """The format of one kind of output.

    number: that of the files that this version writes. unread: earlier numbers that this version cannot read, each with
    the pdsynth that reads it, such as "0.1.0", or a commit of the repository for one that was never released.
    """

    number: int
    unread: Mapping[int, str] = field(default_factory=dict)

    def check(self, number: Any, path: Path, version: Any = None) -> None:
        """Raise InputError, with the pdsynth that can read it, unless this version reads files of this number.

        number: the entry `format` of the file `path`, unchecked. version: the pdsynth that wrote it, unchecked, if the
        file names it.
        """
        if type(number) is not int or number < 1:
            raise InputError(path, f"has an invalid format {number!r:.20}", "restore it")
        if number > self.number:
            known = isinstance(version, str) and VERSION.fullmatch(version) and version != __version__
            needed = f"pdsynth {version} or later" if known else f"a pdsynth later than {__version__}"
            problem = f"is of format {number}, and pdsynth {__version__} reads formats up to {self.number}"
            raise InputError(path, problem, f"install {needed}")
        if reader := self.unread.get(number):
            raise unread(path, f"is of format {number}", reader)


def unread(path: Path, problem: str, reader: str) -> InputError:
    """The error about a file or folder of an earlier format that this version cannot read.

    problem: in words, such as "is of format 1". reader: the pdsynth that reads it.
    """
    problem = f"{problem}, which pdsynth {__version__} cannot read"
    return InputError(path, problem, f"open it with pdsynth {reader}, or make it again with this version")


MODEL = Format(3, {1: "of commit f1a1ad1", 2: "of commit e258981"})  # of config.json, beside the weights
FOLDER = Format(2)  # of manifest.json, in every folder that a command writes; it was not written before 2, so 1
ARRAYS_READER = "of commit 9ccc6c6"  # of prepared folders of format 1 with one array of all sessions per modality
