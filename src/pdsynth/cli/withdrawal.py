"""Verb on folders with participants who withdraw their consent: withdraw."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pdsynth.cli.console import done, table
from pdsynth.types import InputError


def withdraw(
    participant: Annotated[str, typer.Argument(help="Id of the participant, such as sub-01.", metavar="PARTICIPANT")],
    places: Annotated[
        list[Path], typer.Argument(help="Folders of prepare and synthesize; of results, to check.", metavar="FOLDER...")
    ],
    model: Annotated[
        list[str] | None, typer.Option("--model", help="A model to check; may be repeated.", metavar="MODEL")
    ] = None,
) -> None:
    """Remove a participant from prepared folders and synthesised scans, and name the models trained on their scans.

    Results are means over participants: a folder of results is not changed, and named if it must be made again; then
    the exit status is 2. The dataset itself is not changed.
    """
    from pdsynth.withdrawal import Outcome, Use, withdraw

    found = withdraw(participant, places, model or [])
    table(found.participant_id, ("folder", "outcome"), [(str(p), str(o)) for p, o in found.outcomes.items()])
    if found.uses:
        rows = [(name, ", ".join(uses)) for name, uses in found.uses.items()]
        table(f"Models and the scans of {found.participant_id}", ("model", "scans"), rows)
    used = [name for name, uses in found.uses.items() if {Use.TRAINED, Use.CALIBRATED} & set(uses)]
    if again := [place for place, outcome in found.outcomes.items() if outcome is Outcome.AGAIN]:
        problem = f"holds results that were computed with {found.participant_id}, as {len(again)} of the folders do"
        raise InputError(again[0], problem, "make them again from the folders without the participant, or remove them")
    if used:
        done(f"{', '.join(used)}: train or calibrate again, because weights cannot forget one participant")
    done(
        f"Remove {found.participant_id} from the dataset too; else the next prepare or synthesize adds the scans again",
        *("inspect", "your-dataset"),
    )
