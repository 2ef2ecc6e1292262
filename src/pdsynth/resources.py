"""What a run may use: a device and an amount of wall time."""

from __future__ import annotations

import re

SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


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
