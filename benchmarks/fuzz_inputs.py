"""Fuzzed tables, sidecars, gradient tables and headers: does `pdsynth inspect` ever end in a traceback or status 1?

Usage: python benchmarks/fuzz_inputs.py [--trials 100000] [--seed 0] [--out FILE.json] [--only N]
A trial changes the bytes of one file of a small dataset (BIDS, ADNI, OASIS-3 or a hospital's), then runs
`pdsynth inspect --table1` in this process. A trial fails if the exit status is neither 0 nor 2, or if status 2 comes
without one line that has a remedy. Trial N of a seed is the same on every machine; --only N repeats it and prints its
output. The same command resumes from FILE.json.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import platform
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from pdsynth.cli import main as pdsynth
from pdsynth.cli.console import hush_libraries
from pdsynth.cli.ending import describe_error
from pdsynth.cohorts.demographics import table1
from pdsynth.cohorts.detect import read
from pdsynth.files import read_json, write_json

SHAPE, EDGE = (22, 26, 22), 8.0  # voxels and mm: a head fits in
SAVE_EACH = 2000  # trials
BY_COMMAND = 51  # one trial in so many runs the command line itself
ODD_CELLS = (
    *(b"nan", b"inf", b"-1", b"0", b"1e400", b"1,5", b"70+", b"n/a", b"NA", b"-4", b"999", b"2011-13-45", b"1/2/11"),
    *(
        b'"',
        b"'",
        b'""',
        b'"a\tb"',
        b"=1+1",
        b"\t",
        b",",
        b";",
        b"\n",
        b"\r\n",
        b"\r",
        b"\0",
        b"\xff\xfe",
        b"\xef\xbb\xbf",
    ),
    *("é".encode("latin-1"), "é".encode(), "٣".encode(), b"{", b"}", b"[", b"]", b"null", b"true", b"[[" * 500),
    *(b"1e9", b"1000", b"-", b" ", b"sub-01", b"01", b"ses-1", b"9" * 400, b"a" * 5000),
)
HEADER_FIELDS = ("<h", "<f", "<i", "<q", ">h", ">f")
HEADER_VALUES = (0, 1, -1, 2, 348, 540, 32767, -32768, float("nan"), float("inf"), 1e-30, 1e30, 7, 352)


def scan(path: Path, volumes: int) -> None:
    """Write a small scan, uncompressed, so that a trial changes its header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = np.diag([-EDGE, EDGE, EDGE, 1])
    image = nib.Nifti1Image(np.ones((*SHAPE, volumes), np.int16), affine)
    image.header.set_zooms((EDGE, EDGE, EDGE, 2.0))
    nib.save(image, path)


def series(folder: Path, stem: str, fmri: bool) -> None:
    """Write an fMRI or a dMRI with its gradient tables and sidecar."""
    scan(folder / f"{stem}.nii", 4)
    (folder / f"{stem}.json").write_text('{"RepetitionTime": 2.0, "EchoTime": 0.03, "FlipAngle": 80}\n')
    if not fmri:
        (folder / f"{stem}.bval").write_text("0 1000 1000 1000\n")
        (folder / f"{stem}.bvec").write_text("0 1 0 0\n0 0 1 0\n0 0 0 1\n")


def text(path: Path, *lines: str) -> None:
    path.write_text("\n".join(lines) + "\n")


def bids(root: Path) -> None:
    for person in ("01", "02"):
        series(root / f"sub-{person}" / "ses-1" / "func", f"sub-{person}_ses-1_task-rest_bold", fmri=True)
        series(root / f"sub-{person}" / "ses-1" / "dwi", f"sub-{person}_ses-1_dwi", fmri=False)
    text(root / "dataset_description.json", '{"Name": "fuzz", "BIDSVersion": "1.9.0", "Simulated": true}')
    text(root / "task-rest_bold.json", '{"RepetitionTime": 2.0, "TaskName": "rest"}')
    rows = ("sub-01\t70\tF\tNC\ta\t29", "sub-02\t71.5\tM\tAD\tb\tn/a")
    text(root / "participants.tsv", "participant_id\tage\tsex\tdiagnosis\tsite\tmmse", *rows)
    text(root / "sub-01" / "sub-01_sessions.tsv", "session_id\tage\tdiagnosis", "ses-1\t70\tMCI")


def adni(root: Path) -> None:
    for person in ("027_S_0074", "027_S_0075"):
        series(root / person / "Resting_State_fMRI" / "2011-03-02_10_00_00.0" / "I1", f"ADNI_{person}_rs", fmri=True)
        series(root / person / "Axial_DTI" / "2011-03-02_10_00_00.0" / "I2", f"ADNI_{person}_dti", fmri=False)
    columns = "RID,PTID,VISCODE,EXAMDATE,EXAMDATE_bl,DX,AGE,PTGENDER,PTEDUCAT,MMSE,MOCA"
    rows = (f"{i},027_S_007{i},bl,2011-03-0{i},2011-03-0{i},CN,7{i}.5,Female,16,29,26" for i in (4, 5))
    text(root / "ADNIMERGE_01Feb2024.csv", columns, *rows)


def oasis3(root: Path) -> None:
    for person in ("OAS30001", "OAS30002"):
        series(root / f"{person}_MR_d0100" / "func1", f"sub-{person}_ses-d0100_task-rest_bold", fmri=True)
        series(root / f"{person}_MR_d0100" / "dwi1", f"sub-{person}_ses-d0100_dwi", fmri=False)
    columns = "OASISID,days_to_visit,age at visit,NORMCOG,DEMENTED,PROBAD,MCIAMEM"
    text(root / "OASIS3_UDSd1_diagnoses.csv", columns, "OAS30001,100,70,1,0,0,0", "OAS30002,110,71,0,1,1,0")
    text(root / "OASIS3_UDSb4_cdr.csv", "OASISID,days_to_visit,MMSE", "OAS30001,100,29", "OAS30002,110,20")
    text(root / "OASIS3_demographics.csv", "OASISID,AgeatEntry,GENDER,EDUC", "OAS30001,70,1,12", "OAS30002,71,2,16")


def hospital(root: Path) -> None:
    for person in ("P-01", "P-02"):
        series(root / person / "v1", "rest", fmri=True)
        series(root / person / "v1", "dti", fmri=False)
    text(root / "people.csv", "id,visit,dx,age,sex", "P-01,v1,NC,70,F", 'P-02,v1,"AD",71,M')
    lines = ("fmri: '{participant}/{session}/rest.nii'", "dmri: '{participant}/{session}/dti.nii'", "table: people.csv")
    columns = "columns: {participant: id, session: visit, diagnosis: dx, age: age, sex: sex}"
    text(root / "pdsynth.yaml", *lines, columns)


DATASETS: dict[str, Callable[[Path], None]] = {"bids": bids, "adni": adni, "oasis3": oasis3, "hospital": hospital}


@dataclass(frozen=True)
class Target:
    """One file of a dataset, and its content before the change."""

    dataset: Path
    file: Path
    content: bytes

    @property
    def kind(self) -> str:
        """Header, gradients, sidecar or table."""
        kinds = {".nii": "header", ".bval": "gradients", ".bvec": "gradients", ".json": "sidecar"}
        return kinds.get(self.file.suffix, "table")


def targets(folder: Path) -> dict[str, list[Target]]:
    """All files of the datasets, which are written into a folder, by kind."""
    found: dict[str, list[Target]] = {}
    for name, write in DATASETS.items():
        (folder / name).mkdir()
        write(folder / name)
        for file in sorted(path for path in (folder / name).rglob("*") if path.is_file()):
            target = Target(folder / name, file, file.read_bytes())
            found.setdefault(target.kind, []).append(target)
    return found


def changed_text(content: bytes, draw: random.Random) -> bytes:
    """A text with one to four changes: cells, lines, separators, encoding, or bytes."""
    for _ in range(draw.randint(1, 4)):
        at, end = sorted(draw.randint(0, len(content)) for _ in range(2))
        change = draw.randrange(10)
        if change == 0:
            content = content[:at] + draw.choice(ODD_CELLS) + content[at:]
        elif change == 1:
            content = content[:at] + draw.choice(ODD_CELLS) + content[min(end, at + 8) :]
        elif change == 2:
            content = content[:at] + content[min(end, at + 20) :]
        elif change == 3:
            content = content[:at]
        elif change == 4:
            lines = content.split(b"\n")
            draw.shuffle(lines)
            content = b"\n".join(lines)
        elif change == 5:
            old, new = draw.sample((b"\t", b",", b";", b" ", b"\n", b"\r\n", b":"), 2)
            content = content.replace(old, new)
        elif change == 6:
            encoding = draw.choice(("utf-16", "utf-16-le", "utf-8-sig", "utf-32"))
            content = content.decode("latin-1").encode(encoding)
        elif change == 7:
            content = content[:at] + bytes(draw.randrange(256) for _ in range(draw.randint(1, 8))) + content[at:]
        elif change == 8:
            cell = draw.choice(ODD_CELLS)
            parts = content.replace(b",", b"\t").split(b"\t")
            parts[draw.randrange(len(parts))] = cell
            content = b"\t".join(parts)
        else:
            content = content[:at] + content[at:end] * draw.randint(2, 3) + content[end:]
    return content


def changed_header(content: bytes, draw: random.Random) -> bytes:
    """An image with one to four fields of its header replaced, or cut, or with bytes at its end."""
    import struct

    header = bytearray(content)
    for _ in range(draw.randint(1, 4)):
        change = draw.randrange(8)
        if change == 0:
            del header[draw.randint(0, len(header)) :]
        elif change == 1:
            header += bytes(draw.randint(1, 3000))
        elif change == 2 and header:
            at = draw.randrange(min(400, len(header)))
            header[at] = draw.randrange(256)
        else:
            form, value = draw.choice(HEADER_FIELDS), draw.choice(HEADER_VALUES)
            size, at = struct.calcsize(form), draw.randrange(0, 352, 2)
            whole = form[1] in "hiq"
            with contextlib.suppress(struct.error, ValueError, OverflowError):
                header[at : at + size] = struct.pack(form, int(value) if whole else value)
    return bytes(header)


def inspected(dataset: Path) -> tuple[int, str]:
    """Exit status and message of `pdsynth inspect --table1` on a dataset, which prints the table of the groups."""
    try:
        return 0, table1(read(dataset)).to_json()
    except Exception as error:
        message, status = describe_error(error)
        return status, message


def inspected_by_command(dataset: Path) -> tuple[Any, str]:
    """The same by the command itself, which takes twice the time."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        try:
            pdsynth(["inspect", str(dataset), "--table1", "--json"])
        except SystemExit as stop:
            return stop.code, output.getvalue()
        except BaseException as error:  # the command itself must have caught it
            return f"{type(error).__name__}: {error}", output.getvalue()
    return "no exit", output.getvalue()


def failure(status: Any, output: str) -> str | None:
    """The reason why the end of a command is a failure, or None."""
    if status not in (0, 2):
        return f"status {status}: {output.strip()[-300:]}"
    if "Traceback" in output:
        return f"a traceback: {output.strip()[-300:]}"
    if status == 2 and ("Remedy: " not in output or "\n" in output.strip()):
        return f"not one line with a remedy: {output.strip()[-300:]}"
    return None


def trial(number: int, seed: int, by_kind: dict[str, list[Target]]) -> tuple[str, Any, str]:
    """Kind of the changed file, exit status and output of one trial."""
    draw = random.Random(f"{seed}/{number}")
    kind = sorted(by_kind)[number % len(by_kind)]
    target = draw.choice(by_kind[kind])
    change = changed_header if kind == "header" else changed_text
    target.file.write_bytes(change(target.content, draw))
    try:
        inspect = inspected_by_command if number % BY_COMMAND == 0 else inspected
        status, output = inspect(target.dataset)
    finally:
        target.file.write_bytes(target.content)
    return kind, status, output


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, metavar="N")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "fuzz_inputs.json")
    given = parser.parse_args()
    hush_libraries()
    os.environ["COLUMNS"] = "10000"  # one error is one line
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        by_kind = targets(Path(folder))
        for name in DATASETS:
            status, output = inspected_by_command(Path(folder, name))
            if status != 0:
                sys.exit(f"the unchanged dataset {name} ends in {status}: {output}")
        if given.only is not None:
            kind, status, output = trial(given.only, given.seed, by_kind)
            sys.exit(f"{kind}, status {status}: {output}" if failure(status, output) else f"good, {kind}: {output}")
        entries = read_json(given.out)
        if entries.get("seed") != given.seed:
            entries = {"seed": given.seed, "trials": 0, "statuses": {}, "failures": []}
        counts = Counter(entries["statuses"])
        begun = time.monotonic()
        first = entries["trials"]
        for number in range(first, given.trials):
            kind, status, output = trial(number, given.seed, by_kind)
            counts[f"{kind}: status {status}"] += 1
            if reason := failure(status, output):
                entries["failures"].append({"trial": number, "kind": kind, "reason": reason.replace(folder, "")})
            if (number + 1) % SAVE_EACH == 0 or number + 1 == given.trials:
                machine = f"{os.cpu_count()} cores, {platform.machine().replace('_', '-')}"
                entries |= {"date": date.today().isoformat(), "machine": machine, "trials": number + 1}
                write_json(given.out, entries | {"statuses": dict(sorted(counts.items()))})
    done = given.trials - first
    print(f"{done} trials in {time.monotonic() - begun:.0f} s; {len(entries['failures'])} failures")
    print(dict(sorted(counts.items())))
    sys.exit(bool(entries["failures"]))


if __name__ == "__main__":
    main()
