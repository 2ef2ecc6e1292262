"""Resources of a run: device, precision, processes, memory and wall time, and errors about missing resources."""

from __future__ import annotations

import ctypes
import errno
import os
import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

GIB = 1 << 30
JOB_BYTES = 2 * GIB  # per process: `prepare` peaks near 0.4 GB; long runs, corrections and networks need more
DEFAULT_MEMORY = 8 * GIB  # assumed if the system reports none; that of a small workstation
MEMINFO, OWN_CGROUP, CGROUPS = Path("/proc/meminfo"), Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}
# System errors that would also occur for the next file.
STOPS_RUN = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}  # of the disk
STOPS_RUN |= {errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT}  # of the mount
STOPS_RUN |= {errno.ENOMEM, errno.EMFILE, errno.ENFILE}  # of memory and file handles


def seconds(budget: str) -> float:
    """A wall-time budget as text, such as 90s, 10m or 1.5h, in seconds; a number without a unit is in seconds.

    The unit is a small letter that follows the number directly. Raises ValueError if the text is not a time, or not
    above zero.

    >>> seconds("10m"), seconds("90s"), seconds("45")
    (600.0, 90.0, 45.0)
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", budget.strip())
    value = float(match[1]) * SECONDS[match[2]] if match else 0.0
    if value <= 0:
        raise ValueError(f"{budget!r} is not a wall time. Write a time such as 90s, 10m or 2h.")
    return value


def resolve_device(device: str) -> str:
    """The name of the torch device, "cpu" or "cuda", for `auto`, `cpu` or `cuda`; `auto` prefers CUDA if there is one.

    Raises ValueError for another word, and for `cuda` if torch finds no CUDA device.

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
        raise ValueError("torch finds no CUDA device. Use --device cpu, or install a CUDA build of torch.")
    return "cpu"


def refuse_more_devices(device: str, devices: int) -> None:
    """Raise ValueError if this machine has fewer devices than a training would use, or if `devices` is below 1.

    device: "cuda" or "cpu". devices: number of devices that the training would use. On "cpu" each is a process, and any
    number is permitted. A single "cuda" device is not checked.

    >>> refuse_more_devices("cpu", 0)
    Traceback (most recent call last):
    ValueError: a run needs a device, not 0. Give --devices 1 or more.
    """
    if devices < 1:
        raise ValueError(f"a run needs a device, not {devices}. Give --devices 1 or more.")
    if device == "cpu" or devices == 1:
        return
    import torch

    if devices > (available := torch.cuda.device_count()):
        raise ValueError(f"torch sees {available} CUDA devices here, not {devices}. Give --devices {available}.")


PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")


def resolve_precision(precision: str, device: str) -> str:
    """The precision in which to train on a device: the given one, or another one if the device is slow in it.

    precision: "32-true" (32-bit numbers), "bf16-mixed" or "16-mixed" (mostly bfloat16 or 16-bit numbers), names of the
    library Lightning. device: "cpu" or "cuda". On a CPU, both mixed precisions become "bf16-mixed" if the CPU has
    instructions for bfloat16, and "32-true" if not, because a CPU is about ten times slower without such instructions.
    On a GPU without bfloat16, "bf16-mixed" becomes "16-mixed". The choice follows the reported capabilities and not a
    measurement, so that a seed gives the same bytes in every run on a machine. Raises ValueError for another name.

    >>> resolve_precision("32-true", "cpu")
    '32-true'
    """
    if precision not in PRECISIONS:
        raise ValueError(f"there is no precision {precision!r}. Choose {', '.join(PRECISIONS)}.")
    if precision == "32-true":
        return precision
    if device == "cpu":
        return "bf16-mixed" if native_bf16() else "32-true"
    import torch

    if precision == "bf16-mixed" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return "16-mixed"
    return precision


def native_bf16() -> bool:
    """Whether this CPU reports instructions for bfloat16 arithmetic (avx512_bf16, amx_bf16, or those of Arm)."""
    import torch

    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(value is True for name, value in capabilities.items() if name.endswith("bf16"))


def stops_run(error: BaseException) -> bool:
    """Whether an error must end the whole run, because it would also occur for the next file.

    True for a lack of memory (also in torch), for system errors of a full, read-only, damaged or disconnected disk, for
    too many open files, and for errors that were raised from one of these (`__cause__`).

    >>> stops_run(MemoryError()), stops_run(OSError(errno.ENOSPC, "disk full")), stops_run(PermissionError(13, "no"))
    (True, True, False)
    """
    chain = [error]
    while (cause := chain[-1].__cause__) is not None and cause not in chain:
        chain.append(cause)
    return any(
        isinstance(e, MemoryError)
        or (isinstance(e, OSError) and e.errno in STOPS_RUN)
        or any(kind.__name__ == "OutOfMemoryError" for kind in type(e).__mro__)  # by name: torch is slow to import
        for e in chain
    )


def refuse_lost(root: Path) -> None:
    """Raise OSError if the folder `root` of a dataset is missing or empty, because its disk is then no longer mounted.

    >>> refuse_lost(Path("no/such/folder"))
    Traceback (most recent call last):
    OSError: [Errno 107] the dataset is no longer there: 'no/such/folder'
    """
    if not root.is_dir() or not any(root.iterdir()):
        raise OSError(errno.ENOTCONN, "the dataset is no longer there", str(root))


def default_jobs() -> int:
    """Default number of processes: one per usable core, but not more than the memory allows; at least 1.

    Each process is assumed to need 2 GiB of the memory that this process may use.

    >>> default_jobs() >= 1
    True
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, memory_bytes() // JOB_BYTES))


def memory_bytes() -> int:
    """Bytes of memory that this process may use: the available memory, or the limit of its control group if less.

    Linux reports the available memory, other systems the total. If the system reports nothing, 8 GiB are assumed.

    >>> memory_bytes() > 0
    True
    """
    return min([_available_bytes(), *_cgroup_limits()])


def give_back_memory() -> None:
    """Return the memory of freed arrays to the system, if the C library can do it; otherwise nothing is done.

    Between arrays that remain, glibc keeps the memory of freed ones. How much it keeps depends on the order of all
    allocations, so that the memory of a process grows with the number of scans although its arrays do not.

    >>> give_back_memory()
    """
    trim = _malloc_trim()
    if trim is not None:
        trim(0)


@lru_cache
def _malloc_trim() -> Callable[[int], int] | None:
    """The function malloc_trim of glibc; None with another C library."""
    try:
        trim: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # no such function; Windows has no library without a name
        return None
    return trim


def _available_bytes() -> int:
    match = re.search(r"^MemAvailable:\s*(\d+) kB", _text(MEMINFO), re.MULTILINE)
    if match:
        return int(match[1]) * 1024
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # Windows has no sysconf, and some systems do not know these names
        return DEFAULT_MEMORY
    return total if total > 0 else DEFAULT_MEMORY


def _cgroup_limits() -> list[int]:
    """Memory limits, in bytes, of the control group of this process and of its parent groups. The smallest one applies.

    A line of OWN_CGROUP is "number:controllers:/path"; in version 2 controllers is empty. In a container the own group
    may appear as the root, so that the root is always read.
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
                limits += [int(text)] if text.isdecimal() else []  # "max" in version 2: no limit
    return limits


def _text(path: Path) -> str:
    """The text of a file of the system; empty if it cannot be read."""
    try:
        return path.read_text()
    except OSError:
        return ""
