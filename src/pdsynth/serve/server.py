"""Runs the page's server on an address of this machine until it is stopped."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from tempfile import TemporaryDirectory

import uvicorn

from pdsynth.serve.app import GB, application
from pdsynth.serve.jobs import Queue
from pdsynth.types import InputError

LOOPBACK = ("127.0.0.1", "localhost", "::1", "[::1]")
SECONDS = 2  # that open connections have to end


def run(
    model: str | Path, device: str, host: str, port: int, most_gb: float, ready: Callable[[str], None] = print
) -> None:
    """Serve the page until the process is stopped by a signal; then its files are removed.

    model: folder of the model. device: "auto", "cpu" or "cuda". host: address to listen on. port: 0 for a free one.
    most_gb: limit of all uploads that are kept at a time, in units of 10^9 bytes. ready(address) is called with the
    address of the page, with its token, as soon as it can be opened. Raises InputError if the address cannot be used,
    and the errors of `Model.load`.
    """
    with (
        _listening(host, port) as listener,
        TemporaryDirectory(prefix="pdsynth-serve-") as folder,  # only its owner may read it
        Queue.running(Path(folder), str(model), device) as queue,
    ):
        token = secrets.token_urlsafe()
        app = application(queue, token, (*LOOPBACK, host), int(most_gb * GB))
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,  # it would print the token
            server_header=False,
            ws="none",
            timeout_graceful_shutdown=SECONDS,
        )
        address = f"[{host}]" if ":" in host else host
        ready(f"http://{address}:{listener.getsockname()[1]}/{token}/")
        uvicorn.Server(config).run(sockets=[listener])


def _listening(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        problem = f"cannot be the address of the page ({error.strerror})"
        raise InputError(f"{host}:{port}", problem, "give another --port, or leave --host and --port out") from error


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine only.

    >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("192.168.0.7")
    (True, True, False)
    """
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
