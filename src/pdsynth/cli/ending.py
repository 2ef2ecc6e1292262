"""The end of a command: an orderly stop by a signal, or one line with the error and its remedy."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path
from types import FrameType

from pdsynth.resources import stops_run
from pdsynth.types import InputError

BAD_INPUT, OWN_FAULT = 2, 1  # exit statuses
DEFAULT_REMEDY = "check that it exists, and that you may read and write it"
OWN_FILE = "this file belongs to pdsynth: install pdsynth again, and not while a command runs"
REMEDIES = {
    errno.ENOSPC: "make room on the disk, and give the same command again",
    errno.EDQUOT: "make room in your quota, and give the same command again",
    errno.EFBIG: "raise the limit of a file's size (ulimit -f), and give the same command again",
    errno.EROFS: "choose a folder that can be written",
    errno.EACCES: "ask for permission, or choose another folder",
    errno.EPERM: "ask for permission, or choose another folder",
    errno.EMFILE: "raise the limit of open files (ulimit -n), and give the same command again",
    errno.EIO: "check the disk, and give the same command again",
    errno.ESTALE: "check that the network disk is mounted, and give the same command again",
    errno.ENOTCONN: "check that the network disk is mounted, and give the same command again",
    errno.ETIMEDOUT: "check that the network disk answers, and give the same command again",
}


class Stopped(SystemExit):
    """A signal such as Ctrl-C ended the command. The exit status is 128 plus the number of the signal.

    number: of the signal. name: "Ctrl-C", or that of the signal, such as "SIGTERM". `except Exception` does not catch
    this exception.
    """

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.number = number
        self.name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name


def stop_in_order() -> None:
    """From now on, Ctrl-C, SIGTERM and SIGHUP raise `Stopped` in this process, so that it can end in order.

    Only the first of these signals does so; later ones are ignored. Work that can be resumed is then kept and the user
    is informed. A signal that is ignored when this function is called, such as SIGHUP under nohup, stays ignored. A
    child process that inherits this ends at once by such a signal.
    """
    process = os.getpid()

    def end(number: int, frame: FrameType | None) -> None:
        if os.getpid() != process:  # a child that inherited this
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        for other in caught:  # a signal to a process group may come twice, and must not interrupt the cleanup
            signal.signal(other, signal.SIG_IGN)
        raise Stopped(number)

    signals = (signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else []))
    caught = [number for number in signals if signal.getsignal(number) is not signal.SIG_IGN]
    for number in caught:
        signal.signal(number, end)


def _is_own(file: object) -> bool:
    """Whether a file is one of the package, which an installation may have removed while the command ran."""
    return isinstance(file, str | os.PathLike) and Path(os.fsdecode(file)).is_relative_to(Path(__file__).parents[1])


def describe_error(error: BaseException) -> tuple[str, int]:
    """The message of an error for the user, and the exit status of the command.

    The status is 2 for bad input (any ValueError) or an error of the machine (an OSError, or too little memory), and 1
    for a defect of pdsynth (all other errors).

    >>> describe_error(OSError(errno.ENOSPC, "No space left on device", "out/a.npy"))
    ('out/a.npy: No space left on device. Remedy: make room on the disk, and give the same command again.', 2)
    >>> describe_error(KeyError("shard"))
    ("KeyError: 'shard'. Add --debug for the traceback.", 1)
    """
    if isinstance(error, InputError):
        return str(error), BAD_INPUT
    if isinstance(error, OSError) and error.strerror:
        file = f"{os.fsdecode(error.filename)}: " if error.filename else ""
        remedy = OWN_FILE if _is_own(error.filename) else REMEDIES.get(error.errno or 0, DEFAULT_REMEDY)
        return f"{file}{error.strerror}. Remedy: {remedy}.", BAD_INPUT
    if isinstance(error, ValueError | OSError):
        return str(error), BAD_INPUT
    if stops_run(error):
        detail = " ".join(str(error).split()[:30])
        remedy = "use fewer processes, a coarser grid (`prepare --grid-mm`), or a machine with more memory"
        return f"There is not enough memory{f' ({detail})' if detail else ''}. Remedy: {remedy}.", BAD_INPUT
    return f"{type(error).__name__}: {error}. Add --debug for the traceback.", OWN_FAULT
