"""The verb serve: a page in the browser."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Annotated

import typer

from pdsynth.cli.console import done, error_line
from pdsynth.cli.options import Device, DeviceOption, ModelFolder
from pdsynth.progress import working
from pdsynth.resources import resolve_device


def serve(
    model: ModelFolder = "default",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the page; 0 takes a free one.")] = 0,
    host: Annotated[
        str, typer.Option(help="Address to listen on; by default this machine alone can open the page.")
    ] = "127.0.0.1",
    most_gb: Annotated[
        float, typer.Option("--most-gb", min=0.001, help="Most GB of all uploaded files that are kept at a time.")
    ] = 4.0,
    device: DeviceOption = Device.auto,
) -> None:
    """Open a page on this machine on which a scan is dropped, synthesised, viewed and downloaded; Ctrl-C ends it.

    One scan at a time is synthesised, by the same steps as in `pdsynth synthesize`; others wait. Uploaded files lie in
    a private temporary folder, which is removed at the end.
    """
    if device is Device.cuda:
        resolve_device(device.value)  # a missing GPU is an error at once; auto is resolved when torch is loaded
    try:
        from pdsynth.serve.server import is_loopback, run
    except ImportError as error:
        raise ValueError(
            f"{error.name} is not installed, which the page needs. Use pip install 'pdsynth[serve]'."
        ) from error
    from pdsynth.weights import model_folder

    folder = model_folder(model)
    if not is_loopback(host):
        error_line(
            f"everybody with the page's address can open it, and the connection to {host} is not encrypted. "
            "An SSH tunnel to 127.0.0.1 is safer.",
            kind="Warning",
        )

    loading, ended = ExitStack(), ExitStack()

    def ready(address: str) -> None:
        loading.close()
        done(f"Open {address} in a browser of this machine. Ctrl-C ends the page and removes its files")
        ended.callback(typer.echo, "The page has ended, and its files are removed.", err=True)

    typer.echo("Loading the model: up to two minutes on a busy machine ...", err=True)
    with ended, loading:
        loading.enter_context(working("Loading the model"))
        run(folder, device.value, host, port, most_gb, ready)
