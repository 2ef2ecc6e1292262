"""Fuzzed files that pdsynth reads back: does one ever execute code, hang, take 2 GB, or end in status 1?

Usage: python benchmarks/fuzz_files.py [--trials 100000] [--seed 0] [--out FILE.json] [--only N]
A trial changes one file that pdsynth wrote (tables, records and volumes of a prepared folder, a model, a checkpoint, a
results folder with its evidence, a synthesis, a workspace) or pdsynth.yaml, and puts right the digests that would show
the change. Then the functions that read the file run in this process, as a command would run them. A trial fails if

- code of the file runs (a marker file appears);
- the error is not bad input with one line that names a remedy (exit status 2);
- it takes more than 5 s of processor time, or the process more than 2 GB of memory.

Trial N of a seed is the same on every machine; --only N repeats it. The same command resumes from FILE.json. Failures
of the file are tried again first. All data are SIMULATED.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import platform
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from datetime import date
from io import StringIO
from pathlib import Path
from types import FrameType
from typing import Any

from fuzz_files_folders import Family, payload, write_families
from fuzz_inputs import ODD_CELLS, changed_text, failure

from pdsynth.cli.console import hush_libraries
from pdsynth.cli.ending import describe_error
from pdsynth.files import read_json, write_json

SAVE_EACH = 500  # trials
WHOLE_EACH = 97  # one trial in so many writes the pages too
SECONDS, MEMORY = 5, 2_000_000  # processor time of a trial; kB of the process
ODD_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 3, 99, 2**63, 10**400, 1e308, -0.5, 1e-320, float("nan"), float("inf")),
    *("", "a", "n/a", "-1", "1e400", "=1+1", "../../../etc/passwd", "/", "*", "**", "\0", "\ud800", "a" * 5000, "fmri"),
    *([], {}, [[]], [None], [0] * 1000, {"a": {}}, [1, 2, 3], "[" * 3000, {"": 0}, ["a", "b"]),
)
HEADER = 300  # bytes at the beginning of a binary file, where most changes are


class TooLongError(BaseException):
    """A trial took more than SECONDS of processor time."""


def changed_json(content: bytes, draw: random.Random) -> bytes:
    """JSON with one to three entries replaced, removed, renamed or nested."""
    holder = {"": json.loads(content)}
    for _ in range(draw.randint(1, 3)):
        place: Any = holder
        key: Any = ""
        while isinstance(place[key], dict | list) and place[key] and draw.random() < 0.8:
            place = place[key]
            key = draw.choice(sorted(place)) if isinstance(place, dict) else draw.randrange(len(place))
        change = draw.randrange(6)
        if change == 0 and place is not holder:
            del place[key]
        elif change == 1 and isinstance(place, dict) and place is not holder:
            place[draw.choice(("a", "", "fmri", "files", f"{key}x"))] = place.pop(key)
        elif change == 2:
            place[key] = draw.choice(([place[key]], {"a": place[key]}, str(place[key]), [place[key]] * 2))
        else:
            place[key] = copy.deepcopy(draw.choice(ODD_VALUES))  # a later change may be inside it
    return json.dumps(holder[""], indent=2).encode(errors="surrogatepass")


def changed_table(content: bytes, draw: random.Random, separator: bytes) -> bytes:
    """A table with one to three changes: a cell, a column or rows."""
    rows = [line.split(separator) for line in content.rstrip(b"\n").split(b"\n")]
    for _ in range(draw.randint(1, 3)):
        row, column = draw.randrange(len(rows)), draw.randrange(max(1, len(rows[0])))
        change = draw.randrange(8)
        if change == 0:
            rows = [cells[:column] + cells[column + 1 :] for cells in rows]
        elif change == 1:
            rows.insert(row, list(rows[draw.randrange(len(rows))]))
        elif change == 2 and len(rows) > 1:
            del rows[row]
        elif change == 3:
            rows = [[*cells[:column], draw.choice(ODD_CELLS), *cells[column:]] for cells in rows]
        elif column < len(rows[row]):
            rows[row][column] = draw.choice((*ODD_CELLS, b"99", b"-1", b"0.5", b"../a.npy", b"both", b"mean", b"train"))
    return b"\n".join(separator.join(cells) for cells in rows) + b"\n"


def changed_bytes(content: bytes, draw: random.Random) -> bytes:
    """A binary file with one to four bytes changed, most of them in its header, or cut, or longer."""
    changed = bytearray(content)
    for _ in range(draw.randint(1, 4)):
        at = draw.randrange(min(HEADER, len(changed)) if draw.random() < 0.7 else len(changed)) if changed else 0
        change = draw.randrange(6)
        if change == 0:
            del changed[at:]
        elif change == 1:
            changed[at:at] = bytes(draw.randrange(256) for _ in range(draw.randint(1, 40)))
        elif change == 2:
            changed[at : at + 8] = draw.choice((b"\xff" * 8, b"\0" * 8, b"\x80" + b"\0" * 7))
        elif changed:
            changed[min(at, len(changed) - 1)] = draw.randrange(256)
    return bytes(changed)


def changed(file: Path, content: bytes, marker: Path, draw: random.Random) -> bytes:
    """The changed content of a file, by its kind; one change in twenty would run code, if anything ran it."""
    if draw.random() < 0.05:
        return draw.choice(sorted(payload(marker).values()))
    text = draw.random() < 0.3
    if file.suffix == ".json":
        return changed_text(content, draw) if text else changed_json(content, draw)
    if file.suffix in (".tsv", ".csv"):
        separator = b"\t" if file.suffix == ".tsv" else b","
        return changed_text(content, draw) if text else changed_table(content, draw, separator)
    return changed_text(content, draw) if file.suffix == ".yaml" else changed_bytes(content, draw)


@contextmanager
def limited() -> Iterator[None]:
    """Raise TooLongError in the block after SECONDS of processor time."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise TooLongError(f"more than {SECONDS} s of processor time")

    signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def read_back(family: Family, folder: Path, whole: bool) -> tuple[Any, str]:
    """Exit status and message of the functions that read a folder."""
    output = StringIO()
    try:
        with redirect_stdout(output), redirect_stderr(output), limited():
            family.read(folder, whole)
    except TooLongError as error:
        return "hang", str(error)
    except Exception as error:
        message, status = describe_error(error)
        return status, message
    return 0, ""


def trial(number: int, seed: int, families: dict[str, Family], work: Path) -> tuple[str, Any, str]:
    """Family and file, status and message of one trial, on a copy of the folder."""
    draw = random.Random(f"{seed}/{number}")
    name = sorted(families)[number % len(families)]
    family, marker = families[name], work / "it-ran"
    folder = Path(shutil.copytree(family.folder, work / "copy" / family.folder.name))
    try:
        file = folder / draw.choice(family.files()).relative_to(family.folder)
        file.write_bytes(changed(file, file.read_bytes(), marker, draw))
        family.repair(file)
        status, message = read_back(family, folder, number % WHOLE_EACH == 0)
    finally:
        shutil.rmtree(work / "copy")
    if marker.exists():
        marker.unlink()
        status, message = "executed", f"code of {file.name} ran"
    if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > MEMORY:
        status, message = "memory", f"more than {MEMORY // 1000} MB after {file.name}"
    return f"{name}: {file.suffix}", status, message


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, metavar="N")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "fuzz_files.json")
    given = parser.parse_args()
    hush_libraries()
    os.environ["COLUMNS"] = "10000"  # one error is one line
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as place:
        root, work = Path(place, "folders"), Path(place, "work")
        work.mkdir()
        families = write_families(root)
        for name, family in families.items():
            family.read(Path(shutil.copytree(family.folder, work / name)), True)  # unchanged, it is read
        if given.only is not None:
            kind, status, message = trial(given.only, given.seed, families, work)
            sys.exit(f"{kind}, status {status}: {message}" if failure(status, message) else f"good, {kind}: {message}")
        entries = read_json(given.out)
        if entries.get("seed") != given.seed:
            entries = {"seed": given.seed, "trials": 0, "statuses": {}, "failures": []}
        counts, begun, first = Counter(entries["statuses"]), time.process_time(), entries["trials"]
        again = [each["trial"] for each in entries["failures"]]  # they may have been mended since
        counts.subtract(each["status"] for each in entries["failures"])
        entries["failures"] = []
        numbers = [*again, *range(first, given.trials)]
        for tried, number in enumerate(numbers, start=1):
            kind, status, message = trial(number, given.seed, families, work)
            counts[f"{kind}: status {status}"] += 1
            if reason := failure(status, message):
                ended = f"{kind}: status {status}"
                entries["failures"].append({"trial": number, "status": ended, "reason": reason.replace(place, "")})
                print(number, kind, reason.replace(place, ""), flush=True)
            if tried % SAVE_EACH == 0 or tried == len(numbers):
                machine = f"{os.cpu_count()} cores, {platform.machine().replace('_', '-')}"
                peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1000
                entries |= {"date": date.today().isoformat(), "machine": machine, "data": "SIMULATED"}
                entries |= {"trials": max(first, number + 1), "peak_memory_mb": peak}
                write_json(given.out, entries | {"statuses": dict(sorted((+counts).items()))})
    print(f"{given.trials - first} trials in {time.process_time() - begun:.0f} s of processor time")
    print(f"{len(entries['failures'])} failures; {dict(sorted((+counts).items()))}")
    sys.exit(bool(entries["failures"]))


if __name__ == "__main__":
    main()
