"""Options that several verbs share, so that each has one name, one type and one help text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from pdsynth import __version__
from pdsynth.cli.console import DRY_RUN
from pdsynth.options import EvaluateOptions
from pdsynth.resources import default_jobs
from pdsynth.types import Split

if TYPE_CHECKING:
    from pdsynth.workers import Workers

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


def print_version(is_given: bool) -> None:
    """Print the version and end the command, if the option --version is given."""
    if is_given:
        typer.echo(f"pdsynth {__version__}")
        raise typer.Exit


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
MODEL = "A folder that train, adapt or calibrate wrote, or `default`."
ModelFolder = Annotated[str, typer.Argument(help=MODEL, metavar="MODEL")]
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


@dataclass(frozen=True)
class Where:
    """The options of where the tasks of a command are done: the number of processes, or a cluster and its settings."""

    jobs: int = JOBS
    slurm: bool = False
    dask: str | None = None
    cluster: list[str] | None = None

    def workers(self, *inputs: Path, gpu: bool = False) -> Workers:
        """The processes of this machine, or the workers of the cluster. inputs: the paths that the command reads.

        gpu: whether each job of Slurm needs a GPU. Raises InputError or ValueError, before any work, if the cluster
        cannot be used, and ValueError for settings without a cluster.
        """
        from pdsynth.clusters.settings import cluster_settings
        from pdsynth.workers import Workers

        if not (self.slurm or self.dask):
            if self.cluster:
                raise ValueError("--cluster has settings of a cluster. Give --slurm or --dask too.")
            return Workers(self.jobs)
        settings = cluster_settings(self.cluster or (), inputs)
        workers = Workers(self.jobs, self.dask, self.slurm, settings, gpus=int(gpu))
        workers.refuse_absent()
        return workers


WHERE_OPTIONS = {
    "jobs": Annotated[
        int,
        typer.Option(
            "--jobs", min=1, envvar="PDSYNTH_JOBS", help="Number of processes; with --slurm, of jobs at a time."
        ),
    ],
    "slurm": Annotated[bool, typer.Option("--slurm", help="Run in jobs of the cluster manager Slurm.")],
    "dask": Annotated[
        str | None, typer.Option("--dask", help="Run on the workers of this dask scheduler.", metavar="ADDRESS")
    ],
    "cluster": Annotated[
        list[str] | None,
        typer.Option(
            "--cluster",
            metavar="NAME=VALUE",
            help="Setting of the cluster: partition, account, memory, time, setup, wait or folder; may be repeated. "
            "Others come from the entry `cluster` of pdsynth.yaml in the working directory.",
        ),
    ],
}
HERE, ONE = Where(), Where(jobs=1)


def spread(kind: type[Any], declared: Mapping[str, Any], into: str = "options") -> Callable[[Verb], Verb]:
    """Make the command of a verb from a function with a parameter that is one dataclass.

    A verb is a subcommand of `pdsynth`, such as evaluate. On the command line, options of their own replace this
    parameter, one per declared field. kind: the dataclass. The defaults are those of the parameter if it has one, else
    those of the dataclass, also of fields that are not declared. declared: the declaration of each option (of the
    library typer), by the field's name. into: name of the parameter. Returns a decorator, which keeps the other
    parameters, the name and the docstring of the function.
    """

    def decorate(verb: Verb) -> Verb:
        hints = get_type_hints(verb, include_extras=True)
        parameters = []
        for parameter in signature(verb).parameters.values():
            if parameter.name == into:
                given = kind if parameter.default is parameter.empty else parameter.default
                parameters += [
                    parameter.replace(name=name, annotation=annotation, default=getattr(given, name))
                    for name, annotation in declared.items()
                ]
            else:  # the annotation is resolved already if the verb is itself a command of `spread`
                parameters.append(parameter.replace(annotation=hints.get(parameter.name, parameter.annotation)))

        def command(**values: Any) -> None:  # one function of Python may leave out options that another one gives
            default = signature(verb).parameters[into].default
            chosen = {name: values.pop(name) for name in declared if name in values}
            verb(**values, **{into: kind(**chosen) if default is Parameter.empty else replace(default, **chosen)})

        command.__name__, command.__doc__ = verb.__name__, verb.__doc__
        command.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
        return command

    return decorate


scoring_options = spread(EvaluateOptions, EVALUATE_OPTIONS)
where_options = spread(Where, WHERE_OPTIONS, into="where")
