"""The defaults of an option are the same on the command line, in its options object and in the Python interface."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import typer

import pdsynth
from pdsynth import api
from pdsynth.cli import app
from pdsynth.cli.options import EVALUATE_OPTIONS, scoring_options
from pdsynth.cohorts.simulated.cohort import simulate
from pdsynth.options import EvaluateOptions, FitOptions, PrepareOptions, SimulateOptions
from pdsynth.sources import Options
from pdsynth.synthesis import Model
from pdsynth.types import Split

COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]
VERBS = {
    "simulate": SimulateOptions,
    "prepare": PrepareOptions,
    "train": FitOptions,
    "synthesize": Options,
    "evaluate": EvaluateOptions,
    "evidence": EvaluateOptions,
}
# fields that the command line has under other names, or not at all
RENAMED = {"settings": ["changes"], "atlases": ["atlas_fmri", "atlas_dmri"], "truth": []}
ELSEWHERE = {Model.synthesize: {"space"}}  # fields that another function takes: here `Synthesis.save`


def written(value: object) -> object:
    """A value as it is written on the command line."""
    return ",".join(map(str, value)) if isinstance(value, tuple) else value


@pytest.mark.parametrize("verb", VERBS)
def test_the_command_line_has_the_defaults_of_the_object(verb: str) -> None:
    found = {parameter.name: parameter.default for parameter in COMMANDS[verb].params}
    for field in fields(VERBS[verb]):
        for name in RENAMED.get(field.name, [field.name]):
            assert found[name] == written(field.default), name


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (simulate, SimulateOptions),
        (pdsynth.prepare, PrepareOptions),
        (api.fit, FitOptions),
        (pdsynth.synthesise, Options),
        (Model.synthesize, Options),
    ],
)
def test_the_python_interface_has_the_defaults_of_the_object(function: Callable[..., object], kind: type[Any]) -> None:
    parameters = inspect.signature(function).parameters
    for field in fields(kind):
        if field.name not in ELSEWHERE.get(function, ()):
            assert parameters[field.name].default == field.default, field.name


def test_the_options_of_the_command_line_reach_the_object() -> None:
    received = []

    @scoring_options
    def verb(out: Path, options: EvaluateOptions, last: bool = False) -> None:
        """Help."""
        received.append((out, options, last))

    command = typer.Typer()
    command.command()(verb)
    words = ["out", "--split", "val", "--no-controls", "--samples", "3", "--steps", "5", "--atlas", "a.nii.gz"]
    command([*words, "--seed", "7", "--device", "cpu", "--last"], standalone_mode=False)
    options = EvaluateOptions(Split.VAL, False, samples=3, steps=5, atlas=Path("a.nii.gz"), seed=7, device="cpu")
    assert received == [(Path("out"), options, True)]
    assert EVALUATE_OPTIONS.keys() == {field.name for field in fields(EvaluateOptions)}
