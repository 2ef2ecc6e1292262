"""The file .bidsignore of the datasets that pdsynth writes: the names that BIDS does not define, each with its reason.

The BIDS validator accepts a dataset if all other names are valid.
"""

from __future__ import annotations

from pathlib import Path

from pdsynth.files import write_text

NAME = ".bidsignore"
REASONS = {
    "manifest.json": "the record of pdsynth: command, version, seed, and digests of all files",
    "*_boldref.*": "a 3D mean of fMRI, with the suffix of fMRIPrep: BIDS 1.11 defines 4D series of fMRI only",
    "*_dwiref.*": "a 3D mean of dMRI, with the suffix of QSIPrep: BIDS 1.11 defines 4D series of dMRI only",
    "*_xfm.json": "a transform in the naming of a BIDS proposal (BEP 14): BIDS 1.11 defines none",
    "*_xfm.txt": "a transform of ITK in the naming of a BIDS proposal (BEP 14): BIDS 1.11 defines none",
    "group/": "the pages of `pdsynth bids-app IN OUT group`",
    "synthesised.tsv": "one row per scan of the source dataset: made, skipped or refused, and the reason",
    "report.html": "the page of `pdsynth report` on the volumes",
    "methods.md": "a text for the methods section of a paper",
    "references.bib": "the references of this text",
    "truth.tsv": "quantities that only a simulation can know, one row per session",
}


def write_bidsignore(folder: Path, *patterns: str) -> None:
    """Write the file .bidsignore, which lists the names that the BIDS validator shall ignore, into a dataset's folder.

    patterns: file names or patterns of them, each a key of `REASONS`, such as "truth.tsv" or "*_boldref.*". The reason
    for each stands above it as a comment. An existing file is replaced. Raises KeyError for another pattern.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     write_bidsignore(Path(folder), "truth.tsv")
    ...     print(Path(folder, NAME).read_text(), end="")
    # quantities that only a simulation can know, one row per session
    truth.tsv
    """
    write_text(folder / NAME, "".join(f"# {REASONS[pattern]}\n{pattern}\n" for pattern in patterns))
