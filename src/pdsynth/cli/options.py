"""The options that several verbs share: the same word, type and help everywhere."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pdsynth.resources import default_jobs

JOBS = default_jobs()
AUTO = "auto"


class Device(StrEnum):
    """Where networks run."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


def _layouts() -> list[str]:
    """`auto` and the layouts that are discovered, for the shell; their libraries would slow `pdsynth --help` down."""
    from pdsynth.cohorts import LAYOUTS

    return [AUTO, *LAYOUTS]


class Precision(StrEnum):
    """Of the arithmetic in training."""

    fp32 = "32-true"
    bf16 = "bf16-mixed"
    fp16 = "16-mixed"


class Size(StrEnum):
    """Of a recipe's networks."""

    full = "full"
    small = "small"


Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of every random draw.")]
Jobs = Annotated[int, typer.Option("--jobs", min=1, help="Processes to use.")]
DeviceOption = Annotated[Device, typer.Option("--device", help="Where networks run.")]
Budget = Annotated[
    str | None,
    typer.Option(
        "--budget",
        help="Wall time of the training steps, such as 90s or 10m; closed-form fits and cached estimates come on top.",
    ),
]
LayoutOption = Annotated[
    str,
    typer.Option(
        "--layout",
        metavar="LAYOUT",
        autocompletion=_layouts,
        help="How the cohort lies on disk; auto decides by names, an unknown name is answered with the known ones.",
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what pdsynth wrote there before.")]
Out = Annotated[Path, typer.Option("--out", help="Folder to write.", metavar="DIR")]
GridMm = Annotated[float, typer.Option("--grid-mm", min=1.0, max=8.0, help="Spacing of the common grid in mm.")]
PreparedFolder = Annotated[Path, typer.Argument(help="A folder written by `pdsynth prepare`.", metavar="PREPARED")]
