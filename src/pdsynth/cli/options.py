"""Options that several verbs share, so that each has one name, one type and one help text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from inspect import Signature, signature
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from pdsynth.cli.console import DRY_RUN
from pdsynth.options import EvaluateOptions
from pdsynth.resources import default_jobs
from pdsynth.types import Split

JOBS = default_jobs()
AUTO = "auto"


class Device(StrEnum):
    """The device that runs the networks: "cpu", "cuda", or "auto" for CUDA if there is one, else the CPU."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


def _layouts() -> list[str]:
    """`auto` and the discovered layouts, for completion in the shell.

    The import is here because the libraries of the layouts would slow `pdsynth --help`.
    """
    from pdsynth.cohorts import LAYOUTS

    return [AUTO, *LAYOUTS]


class Precision(StrEnum):
    """Arithmetic of training, by its names in the library Lightning.

    fp32: 32-bit numbers. bf16, fp16: mostly bfloat16, or mostly 16-bit floating-point numbers.
    """

    fp32 = "32-true"
    bf16 = "bf16-mixed"
    fp16 = "16-mixed"


Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of all random numbers.")]
Jobs = Annotated[int, typer.Option("--jobs", min=1, envvar="PDSYNTH_JOBS", help="Number of processes.")]
DeviceOption = Annotated[
    Device, typer.Option("--device", envvar="PDSYNTH_DEVICE", help="Device that runs the networks.")
]
Budget = Annotated[
    str | None,
    typer.Option(
        "--budget",
        help="Wall time of the training steps, such as 90s or 10m, without closed-form fits and cached estimates.",
    ),
]
LayoutOption = Annotated[
    str,
    typer.Option(
        "--layout",
        metavar="LAYOUT",
        autocompletion=_layouts,
        help="Layout of the cohort's files; auto detects it from their names, a wrong one lists the choices.",
    ),
]
SelectOption = Annotated[
    str | None,
    typer.Option(
        "--select",
        metavar="NAME=VALUE",
        help="Use only scans whose names have these entities, such as task=rest,run=1.",
    ),
]
DryRun = Annotated[bool, typer.Option(DRY_RUN, help="Print the work that is to do, and write nothing.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a folder that pdsynth wrote.")]
Out = Annotated[Path, typer.Option("--out", help="Folder to write.", metavar="DIR")]
GridMm = Annotated[float, typer.Option("--grid-mm", min=1.0, max=8.0, help="Voxel spacing of the common grid, mm.")]
PreparedFolder = Annotated[Path, typer.Argument(help="A folder written by `pdsynth prepare`.", metavar="PREPARED")]
SplitOption = Annotated[Split, typer.Option("--split", help="The split to score.")]
Models = Annotated[list[str], typer.Option("--model", help="A model to score; may be repeated.", metavar="MODEL")]
Controls = Annotated[
    bool, typer.Option("--controls/--no-controls", help="Fit the fast controls on the training split and score them.")
]
Samples = Annotated[
    int, typer.Option("--samples", min=0, help="Draws per scan; with 3 or more their SD is audited, else the model's.")
]
Steps = Annotated[
    int, typer.Option("--steps", min=1, help="Sampling steps of each draw; a method with a fixed number ignores it.")
]
AtlasFile = Annotated[
    Path | None, typer.Option("--atlas", help="Label image in MNI space that replaces the regions of the paper.")
]
EVALUATE_OPTIONS = {
    "split": SplitOption,
    "controls": Controls,
    "samples": Samples,
    "steps": Steps,
    "atlas": AtlasFile,
    "seed": Seed,
    "device": DeviceOption,
}
Verb = Callable[..., None]


def spread(kind: type[Any], declared: Mapping[str, Any]) -> Callable[[Verb], Verb]:
    """Make the command of a verb from a function whose parameter `options` is one dataclass.

    A verb is a subcommand of `pdsynth`, such as evaluate. On the command line, options of their own replace this
    parameter, one per declared field. kind: the dataclass, which gives the defaults, also of fields that are not
    declared. declared: the declaration of each option (of the library typer), by the field's name. Returns a decorator,
    which keeps the other parameters, the name and the docstring of the function.
    """

    def decorate(verb: Verb) -> Verb:
        hints = get_type_hints(verb, include_extras=True)
        parameters = []
        for parameter in signature(verb).parameters.values():
            if parameter.name == "options":
                parameters += [
                    parameter.replace(name=name, annotation=annotation, default=getattr(kind, name))
                    for name, annotation in declared.items()
                ]
            else:
                parameters.append(parameter.replace(annotation=hints[parameter.name]))

        def command(**values: Any) -> None:
            options = kind(**{name: values.pop(name) for name in declared})
            verb(**values, options=options)

        command.__name__, command.__doc__ = verb.__name__, verb.__doc__
        command.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
        return command

    return decorate


scoring_options = spread(EvaluateOptions, EVALUATE_OPTIONS)
