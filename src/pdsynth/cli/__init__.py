"""The command line. Each verb imports what it needs when it runs, so that --help answers at once."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import Annotated

import typer

import pdsynth
from pdsynth.cli import cohort, evidence, model, results
from pdsynth.cli.console import error_line, hush_libraries
from pdsynth.types import InputError

app = typer.Typer(
    name="pdsynth",
    help="Synthesise the missing one of two brain scans, functional (fmri) or diffusion MRI (dmri), from the other.",
    epilog="Add --debug to any verb for the traceback of an error. Start with: pdsynth demo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for verb in (
    results.demo,
    cohort.simulate,
    cohort.inspect,
    cohort.prepare,
    model.train,
    model.calibrate,
    model.synthesize,
    results.evaluate,
    evidence.effects,
    evidence.roi,
    evidence.diagnose,
    evidence.evidence,
    results.benchmark,
    results.report,
    model.recipes,
    results.doctor,
):
    app.command()(verb)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"pdsynth {pdsynth.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    pass


def main(arguments: list[str] | None = None) -> None:
    """Run the command line: exit status 0 where done, 2 for bad input (one line), 1 for an error of pdsynth's own."""
    words = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in words
    if not debug:
        hush_libraries()
    if arguments is None:  # the process is this command's own
        _end_in_order_when_terminated()
    try:
        app(args=[word for word in words if word != "--debug"], prog_name="pdsynth")
    except Exception as error:
        if debug:
            raise
        expected = isinstance(error, (InputError, ValueError, OSError))
        error_line(str(error) if expected else f"{type(error).__name__}: {error}. Add --debug for the traceback.")
        sys.exit(2 if expected else 1)


def _end_in_order_when_terminated() -> None:
    """A scheduler's SIGTERM ends the command as Ctrl-C does: what is half made is removed, what can go on is kept."""
    process = os.getpid()

    def end(number: int, frame: FrameType | None) -> None:
        if os.getpid() != process:  # a child that inherited this
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        signal.signal(number, signal.SIG_IGN)  # sent to a group it may come twice, and must not cut the tidying
        error_line("ended by SIGTERM", "Stopped")
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, end)
