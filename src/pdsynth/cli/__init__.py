"""The command line. Each verb imports its libraries when it runs, so that --help is fast."""

from __future__ import annotations

import os
import sys
from typing import Annotated, NoReturn

import typer

from pdsynth.cli import bids_app, cohort, evidence, model, report, results, serve, synthesis, withdrawal
from pdsynth.cli.console import WORDS, error_line, hush_libraries
from pdsynth.cli.ending import Stopped, describe_error, stop_in_order
from pdsynth.cli.log import VARIABLE, Trace, log_file, logged
from pdsynth.cli.options import print_version

app = typer.Typer(
    name="pdsynth",
    help="Synthesise the missing one of two brain scans, functional (fmri) or diffusion MRI (dmri), from the other.",
    epilog="Every verb takes --debug (the traceback of an error) and --log FILE. Start with: pdsynth demo",
    no_args_is_help=True,
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
    model.adapt,
    synthesis.synthesize,
    serve.serve,
    results.evaluate,
    evidence.effects,
    evidence.roi,
    evidence.diagnose,
    evidence.evidence,
    results.benchmark,
    report.report,
    withdrawal.withdraw,
    model.recipes,
    results.doctor,
):
    app.command()(verb)
app.command(cls=bids_app.BidsCommand)(bids_app.bids_app)


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=print_version, is_eager=True)
    ] = False,
) -> None:
    pass


def main(arguments: list[str] | None = None) -> None:
    """Run the command `pdsynth`, and end the process with its exit status.

    arguments: the words after `pdsynth`; None for those of this process. The exit status is 0 after success, 2 for bad
    input or an error of the machine such as a full disk, 128 plus the signal's number after a stop by a signal, and 1
    for a defect of pdsynth or a failed check of `pdsynth doctor`. Each error is printed in one line, except a wrong
    argument, which is printed with the usage. With the word --debug, other errors show their traceback instead, and the
    status is 1. With --log FILE, or a file in the environment variable PDSYNTH_LOG, all that is printed is appended to
    this file too.
    """
    words = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in words
    if not debug:
        hush_libraries()
    if arguments is None:  # the command has this process to itself
        stop_in_order()
    try:
        words, path = log_file([word for word in words if word != "--debug"], os.environ.get(VARIABLE))
        with logged(path, words) as trace:
            _run(words, debug, trace)
    except (OSError, ValueError) as error:  # of the log, because those of the command have ended it
        if debug:
            raise
        message, status = describe_error(error)
        error_line(message)
        sys.exit(status)


def _run(words: list[str], debug: bool, trace: Trace) -> NoReturn:
    """Run the command of these words, print its error, and end the process with its exit status."""
    WORDS[:] = words
    try:
        status = app(args=words, prog_name="pdsynth", standalone_mode=False)
    except Stopped as stop:
        error_line(" ".join([f"by {stop.name}.", *_notes(stop)]), "Stopped")
        raise
    except Exception as error:
        if hasattr(error, "exit_code") and hasattr(error, "format_message"):  # an error of typer about the arguments
            from typer.rich_utils import rich_format_error

            rich_format_error(error)  # type: ignore[arg-type]
            sys.exit(error.exit_code)
        if debug:
            raise
        trace(error)
        cause = error.__cause__ if type(error).__name__ == "Abort" and error.__cause__ else error
        message, status = describe_error(cause)
        error_line(" ".join([message, *_notes(cause)]))
    sys.exit(status or 0)


def _notes(error: BaseException) -> list[str]:
    """The notes of an error: the files that are kept, and the way to resume."""
    return getattr(error, "__notes__", [])
