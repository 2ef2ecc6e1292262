"""The verb bids-app: pdsynth with the arguments of a BIDS App, for containers and for programs that run such apps."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from enum import StrEnum
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from pdsynth import folders, manifest
from pdsynth.cli.console import done, error_line
from pdsynth.cli.options import JOBS, MODEL, Device, DeviceOption, print_version
from pdsynth.cli.synthesis import synthesize
from pdsynth.progress import WRITING, progress
from pdsynth.types import InputError, Split
from pdsynth.workspace import BusyError

LABEL = "--participant-label"
GROUP = "group"  # folder of the pages of this level, in the output folder
VALIDATOR = "bids-validator-deno"
WAIT = 2.0  # seconds between two attempts to write a folder that another run is writing


class Level(StrEnum):
    """The two steps of a BIDS App: one that is run for each participant, and one for all of them."""

    participant = "participant"
    group = "group"


class BidsCommand(TyperCommand):
    """A command that reads its words as a BIDS App does (see `bids_words`)."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, bids_words(args))


def bids_words(words: Sequence[str]) -> list[str]:
    """The words of a BIDS App's command line, written as those of our other commands.

    Names of options may have underscores in place of hyphens, and several labels may follow --participant-label. Raises
    ValueError if none does.

    >>> bids_words(["in", "out", "participant", "--participant_label", "01", "02", "--n_cpus=2"])
    ['in', 'out', 'participant', '--participant-label', '01', '--participant-label', '02', '--n-cpus=2']
    """
    written: list[str] = []
    is_label = False  # whether a word that is not an option is a label
    for word in words:
        if word.startswith("-"):
            name, *value = word.split("=", 1)
            word = "=".join([name.replace("_", "-"), *value])
            is_label = word == LABEL
        elif is_label and written[-1] != LABEL:
            written.append(LABEL)
        written.append(word)
    if any(word == LABEL and after.startswith("-") for word, after in pairwise([*written, "-"])):
        raise ValueError(f"{LABEL} needs a label, such as 01.")
    return written


def bids_app(
    bids_dir: Annotated[Path, typer.Argument(help="A BIDS dataset.", metavar="IN")],
    output_dir: Annotated[Path, typer.Argument(help="Folder to write, or to extend.", metavar="OUT")],
    analysis_level: Annotated[Level, typer.Argument(help="The step to run.", metavar="participant|group")],
    participant_label: Annotated[
        list[str] | None,
        typer.Option(LABEL, help="Only these participants, with or without sub-; not for group.", metavar="LABEL..."),
    ] = None,
    model: Annotated[str, typer.Option(help=MODEL, metavar="MODEL")] = "default",
    n_cpus: Annotated[int, typer.Option("--n-cpus", "--nprocs", min=1, help="Number of processes.")] = JOBS,
    skip_bids_validator: Annotated[
        bool, typer.Option("--skip-bids-validator", help="Do not call the BIDS validator, if it is installed.")
    ] = False,
    device: DeviceOption = Device.auto,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=print_version, is_eager=True)
    ] = False,
) -> None:
    """Run as a BIDS App: participant synthesises the missing scans, group measures the model and reports.

    Several runs of participant may write into one OUT at the same time; they take turns. A participant without a
    missing scan is not an error. group writes the quality page of all scans into OUT/group/prepared, and the report on
    the model, from the participants with both scans, into OUT/group/results.
    """
    names = [label if label.startswith("sub-") else f"sub-{label}" for label in participant_label or []]
    if names and analysis_level is Level.group:
        raise ValueError(f"{LABEL} is not an option of the level group, which reports on all participants.")
    if not skip_bids_validator:
        _validate(bids_dir)
    if analysis_level is Level.group:
        _in_turn(output_dir, lambda: _report(model, bids_dir, output_dir, n_cpus, device))
        return
    if _is_complete(bids_dir, names):
        done("Nothing to synthesise: no scan is missing", "bids-app", bids_dir, output_dir, "group")
        return
    _in_turn(
        output_dir,
        lambda: synthesize(
            model=model,
            path=bids_dir,
            out=output_dir,
            participant=names,
            jobs=n_cpus,
            layout="bids",
            device=device,
        ),
    )


def _is_complete(dataset: Path, participants: Sequence[str]) -> bool:
    """Whether each session has both scans and no file was refused, so that nothing is left to synthesise."""
    from pdsynth.cohorts.bids import bids
    from pdsynth.sources import sources

    cohort = bids(dataset, tables=False).only(participants)
    return not cohort.rejected and all(reason for _, reason in sources(cohort))


def _validate(dataset: Path) -> None:
    """Raise InputError if the BIDS validator finds an error; print one line if it is not installed."""
    here = Path(sys.executable).parent  # an environment that is not activated is not in PATH
    program = shutil.which(VALIDATOR, path=os.pathsep.join([str(here), os.environ.get("PATH", "")]))
    if program is None:
        done(f"{VALIDATOR} is not installed, so the dataset was not validated; pdsynth checks each scan itself")
        return
    result = subprocess.run([program, "--format", "json", dataset], capture_output=True, text=True, check=False)
    try:
        issues = json.loads(result.stdout)["issues"]["issues"]
    except (ValueError, KeyError):
        problem = f"cannot be validated ({' '.join(result.stderr.split()[:20])})"
        raise InputError(dataset, problem, "give --skip-bids-validator") from None
    found = [f"{issue['code']} ({issue.get('location', '')})" for issue in issues if issue["severity"] == "error"]
    if found:
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        problem = f"is not a valid BIDS dataset: {', '.join(found[:3])}{more}"
        raise InputError(dataset, problem, "correct it, or give --skip-bids-validator")


def _in_turn(out: Path, write: Callable[[], None]) -> None:
    """Call `write`, which writes the folder `out`, as soon as no other run is writing it."""
    waits = False
    while True:
        try:
            return write()
        except BusyError:
            if not waits:
                error_line(f"{out} is being written by another run; this one waits for its turn.", kind="Note")
            waits = True
            time.sleep(WAIT)


def _report(name: str, dataset: Path, out: Path, jobs: int, device: Device) -> None:
    """Measure a model on the participants of a dataset who have both scans; writes pages into the folder out/group."""
    if not manifest.read(out):
        raise InputError(out, "holds no output of the level participant", "run this level first")
    from pdsynth import api
    from pdsynth.cohorts.bids import bids
    from pdsynth.data.prepare import prepare_cohort
    from pdsynth.data.splits import FEWEST
    from pdsynth.evaluation.provenance import provenance
    from pdsynth.evidence.claims import write_report
    from pdsynth.options import PrepareOptions
    from pdsynth.report.quality import write_quality
    from pdsynth.resources import resolve_device
    from pdsynth.workers import Workers

    loaded = api.load(name, resolve_device(device.value))
    with folders.adding(out) as folder:
        group = folder / GROUP
        shutil.rmtree(group, ignore_errors=True)  # that of an earlier run
        with progress("Preparing", WRITING) as update:
            pairs = prepare_cohort(
                bids(dataset),
                group / "prepared",
                PrepareOptions(split=(0.0, 0.0, 1.0)),
                Workers(jobs),
                preprocessing=loaded.preprocessing,
                progress=update,
                page=write_quality,
            )
        scored = pairs.split(Split.TEST)
        people = scored.participants
        if people >= FEWEST:
            results = group / "results"
            results.mkdir()
            with manifest.recorded(results, "evaluate", inputs=[dataset], seed=0) as entries:
                entries |= provenance({loaded.method.name: loaded}, pairs)
                api.evaluate(loaded, scored, results, jobs=jobs)
            write_report(results)
    done(f"Open {out / GROUP / 'prepared' / 'quality.html'} to check the registration of the scans")
    if people < FEWEST:
        error_line("fewer than two participants have both scans, so the model was not measured", kind="Warning")
        return
    done(f"Open {out / GROUP / 'results' / 'report.html'} in a browser")
