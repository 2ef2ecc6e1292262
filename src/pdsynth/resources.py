"""What a run may use: device, precision, processes, memory, wall time; and the errors that say what it lacks."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

GIB = 1 << 30
JOB_BYTES = 2 * GIB  # for one process: `prepare` peaks near 0.4 GB; long runs, corrections and networks take more
MEMORY_UNKNOWN = 8 * GIB  # where a system reports none: a small workstation's
MEMINFO, OWN_CGROUP, CGROUPS = Path("/proc/meminfo"), Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}
# Of the system's errors those that the next file would meet too.
STOPS_RUN = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}  # of the disk
STOPS_RUN |= {errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT}  # of the mount
STOPS_RUN |= {errno.ENOMEM, errno.EMFILE, errno.ENFILE}  # of memory and file handles


def seconds(budget: str) -> float:
    """Seconds of a wall-time budget such as 90s, 10m, 1.5h or a plain number of seconds.

    Raises ValueError where the text is none, or is not above zero.

    >>> seconds("10m"), seconds("90s"), seconds("45")
    (600.0, 90.0, 45.0)
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", budget.strip())
    value = float(match[1]) * SECONDS[match[2]] if match else 0.0
    if value <= 0:
        raise ValueError(f"{budget!r} is no budget. Write wall time such as 90s, 10m or 2h.")
    return value


def resolve_device(device: str) -> str:
    """The torch device that `auto`, `cpu` or `cuda` stands for here.

    Raises ValueError for another word, and for `cuda` where torch sees none.

    >>> resolve_device("cpu")
    'cpu'
    """
    if device not in ("auto", "cpu", "cuda"):
        raise ValueError(f"there is no device {device!r}. Choose auto, cpu or cuda.")
    if device == "cpu":
        return device
    import torch  # takes seconds to import, and "cpu" needs none of it

    if torch.cuda.is_available():
        return "cuda"
    if device == "cuda":
        raise ValueError("torch sees no CUDA device here. Use --device cpu, or install a CUDA build of torch.")
    return "cpu"


def refuse_more_devices(device: str, devices: int) -> None:
    """Raise ValueError where a run cannot have that many devices: on "cpu" they are processes, of which it has any.

    >>> refuse_more_devices("cpu", 0)
    Traceback (most recent call last):
    ValueError: a run on 0 devices is none. Give --devices 1 or more.
    """
    if devices < 1:
        raise ValueError(f"a run on {devices} devices is none. Give --devices 1 or more.")
    if device == "cpu" or devices == 1:
        return
    import torch

    if devices > (there := torch.cuda.device_count()):
        raise ValueError(f"torch sees {there} CUDA devices here, not {devices}. Give --devices {there}.")


PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")


def resolve_precision(precision: str, device: str) -> str:
    """The precision that a training runs in, of the one asked for, on a device: never the slower one.

    precision is Lightning's word: "32-true", "bf16-mixed" or "16-mixed" (with a loss scale). A CPU without native bf16
    takes ten times as long in bf16, and every CPU in fp16: there fp32 stands in, and where bf16 is native it stands in
    for fp16. It is chosen by what the device reports, not by a measurement, so that a seed keeps its bytes on a
    machine. Raises ValueError for another word.

    >>> resolve_precision("32-true", "cpu")
    '32-true'
    """
    if precision not in PRECISIONS:
        raise ValueError(f"there is no precision {precision!r} here. Choose {', '.join(PRECISIONS)}.")
    if precision == "32-true":
        return precision
    if device == "cpu":
        return "bf16-mixed" if native_bf16() else "32-true"
    import torch

    if precision == "bf16-mixed" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return "16-mixed"
    return precision


def native_bf16() -> bool:
    """Whether this CPU reports instructions for bf16 (avx512_bf16, amx_bf16, or Arm's)."""
    import torch

    report: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(there for name, there in report.items() if name.endswith("bf16") and there is True)


def stops_run(error: BaseException) -> bool:
    """Whether an error ends the whole run, because the next file would meet it too; else it concerns one file.

    Lack of memory, torch's too, and the system's errors in STOPS_RUN do, also as the cause of another error.

    >>> stops_run(MemoryError()), stops_run(OSError(errno.ENOSPC, "disk full")), stops_run(PermissionError(13, "no"))
    (True, True, False)
    """
    chain = [error]
    while (cause := chain[-1].__cause__) is not None and cause not in chain:
        chain.append(cause)
    return any(
        isinstance(e, MemoryError)
        or (isinstance(e, OSError) and e.errno in STOPS_RUN)
        or any(kind.__name__ == "OutOfMemoryError" for kind in type(e).__mro__)  # torch is slow to import
        for e in chain
    )


def refuse_lost(root: Path) -> None:
    """Raise OSError where a dataset's folder is gone or empty: its disk is no longer mounted, and no scan is at fault.

    >>> refuse_lost(Path("no/such/folder"))
    Traceback (most recent call last):
    OSError: [Errno 107] the dataset is no longer there: 'no/such/folder'
    """
    if not root.is_dir() or not any(root.iterdir()):
        raise OSError(errno.ENOTCONN, "the dataset is no longer there", str(root))


def default_jobs() -> int:
    """Processes to use where nobody says: as many as there are usable cores, of which each has memory; at least 1.

    >>> default_jobs() >= 1
    True
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, memory_bytes() // JOB_BYTES))


def memory_bytes() -> int:
    """Bytes of memory that this process may use: what is available, or less where its control group has a limit.

    Linux says what is available, other systems what there is in all; where nothing is said, 8 GiB are assumed.

    >>> memory_bytes() > 0
    True
    """
    return min([_available_bytes(), *_cgroup_limits()])


def _available_bytes() -> int:
    found = re.search(r"^MemAvailable:\s*(\d+) kB", _text(MEMINFO), re.MULTILINE)
    if found:
        return int(found[1]) * 1024
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # Windows has no sysconf, and a system may not know the word
        return MEMORY_UNKNOWN
    return total if total > 0 else MEMORY_UNKNOWN


def _cgroup_limits() -> list[int]:
    """Limits of the group of this process and of those above it: the least of them holds.

    A line of OWN_CGROUP is "number:controllers:/path"; version 2 has no controllers. A container may see its group as
    the root, so the root is always looked at.
    """
    limits = []
    for line in _text(OWN_CGROUP).splitlines() or ["0::/", "1:memory:/"]:
        controllers, _, path = line.partition(":")[2].partition(":")
        if controllers not in ("", "memory"):
            continue
        root, name = (CGROUPS / "memory", "memory.limit_in_bytes") if controllers else (CGROUPS, "memory.max")
        group = root / path.strip("/")
        for folder in (group, *group.parents):
            if folder.is_relative_to(root):
                text = _text(folder / name).strip()
                limits += [int(text)] if text.isdecimal() else []  # version 2 says "max" for none
    return limits


def _text(path: Path) -> str:
    """The text of a system's file; empty where there is none to read."""
    try:
        return path.read_text()
    except OSError:
        return ""
