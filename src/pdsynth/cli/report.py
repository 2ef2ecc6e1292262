"""The verb `report`: a page on results, on the scans of a prepared folder, or on synthesised volumes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pdsynth import folders
from pdsynth.cli.console import done, search_before_sharing
from pdsynth.cli.following import after_prepared
from pdsynth.progress import working
from pdsynth.types import InputError

PREPARED = "pairs.tsv"  # a file of every prepared folder


def report(
    results: Annotated[
        Path, typer.Argument(help="A folder of evaluate, benchmark, demo, prepare or synthesize.", metavar="DIR")
    ],
    participants: Annotated[
        str, typer.Option(help="Up to 6 participants to show, with commas, instead of the best, the worst and between.")
    ] = "",
    sources: Annotated[
        Path | None,
        typer.Option(help="Of synthesised volumes: the dataset or scan from which they were made, to show both."),
    ] = None,
    for_sharing: Annotated[
        bool, typer.Option("--for-sharing", help="Leave out images, identifiers and results of fewer than 5 people.")
    ] = False,
) -> None:
    """Write an HTML page: on results, with checklists and cards, on prepared scans, or on synthesised volumes.

    Results are a folder of evaluate, evidence, benchmark or demo; their page is report.html. The page of a prepared
    folder is quality.html, on the quality of its scans. That of a folder of synthesize is report.html, with a viewer of
    the volumes.
    """
    from pdsynth.outcomes import TABLE
    from pdsynth.results.archive import METRICS_JSON

    kinds = {name: (results / name).is_file() for name in (PREPARED, METRICS_JSON, TABLE)}
    kind = next((name for name, present in kinds.items() if present), None)
    if kind is None:
        raise InputError(results, "holds no results (it has no metrics.json)", "run `pdsynth evaluate` first")
    chosen = [name.strip() for name in participants.split(",") if name.strip()]
    if kind == PREPARED and (for_sharing or chosen):
        remedy = "report on it without --for-sharing and --participants"
        raise InputError(results, "is a prepared folder, whose page shows all scans", remedy)
    if for_sharing and chosen:
        raise InputError("--participants", "names whom a page for sharing must not show", "leave one of the two out")
    if kind == TABLE and for_sharing:
        raise InputError(results, "holds volumes alone, which a page for sharing must not show", "share no page of it")
    if sources is not None and kind != TABLE:
        raise InputError("--sources", "is for a folder of `pdsynth synthesize` only", "leave it out")
    if sources is not None and not sources.exists():
        raise InputError(sources, "does not exist", "name the dataset or the scan that was given to `synthesize`")
    with folders.adding(results) as folder, working("Writing the report"):
        page = _written(kind, folder, chosen, sources, for_sharing)
    if for_sharing:
        done(f"Send {results / page.name} alone: other files of the folder show images and name participants")
        return
    opened = f"Open {results / page.name} in a browser"
    if kind == PREPARED:
        from pdsynth.data.pairs import Pairs

        done(opened)
        done(*after_prepared(Pairs.open(results)))
    elif kind == TABLE:
        done(opened)
        search_before_sharing(results)
    else:
        done(f"{opened}; checklists and cards are in the same folder")
        message = "To send results, write a page without images and names of participants; sites keep their names"
        done(message, "report", results, "--for-sharing")


def _written(kind: str, folder: Path, participants: list[str], sources: Path | None, for_sharing: bool) -> Path:
    """Write the page of a folder into it; returns the path. kind: the file by which the content of the folder is known.

    The other arguments are those of `report`.
    """
    if kind == PREPARED:
        from pdsynth.report.quality import write_quality

        return write_quality(folder)
    from pdsynth.outcomes import TABLE

    if kind == TABLE:
        from pdsynth.report.volumes import write_volumes

        return write_volumes(folder, sources, participants)
    from pdsynth.evidence.claims import write_cards, write_report

    if not for_sharing:
        write_cards(folder)
    return write_report(folder, participants, for_sharing)
