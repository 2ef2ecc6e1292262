"""Running the commands, and the attacks of `safety.py`: each function of SCENARIOS is one trial on a new folder.

An attack has the arguments case, folder, expected (the content of an undisturbed output), seconds (of an undisturbed
run), generator and number, and returns the entries of its trial.
"""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safety_cases import Case

import pdsynth.benchmark
import pdsynth.cohorts.simulated.cohort
import pdsynth.demo
import pdsynth.evidence.claims
import pdsynth.evidence.probes.compute
import pdsynth.evidence.verbs
import pdsynth.missing
import pdsynth.synthesis  # noqa: F401  (all imports of the commands, so that a forked run starts fast)
from pdsynth import folders, manifest
from pdsynth.files import sha256

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
STOPPED = {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGHUP: 129}


@dataclass(frozen=True)
class Ended:
    """The end of a run: its exit status (negative for a signal) and its output on stderr."""

    status: int
    stderr: str


def _heed_signals() -> None:
    """Let a signal end this process, until the command sets its own handlers; nohup and `&` make it ignore some."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def start(arguments: Sequence[str], before: Callable[[], None] | None = None) -> tuple[int, int]:
    """Fork a process that runs the command line; returns its process id and the reading end of its stderr."""
    reader, writer = os.pipe()
    if arguments[0] == "benchmark":  # it starts processes from threads, which a forked process cannot
        words = [sys.executable, "-m", "pdsynth", *arguments]
        process = subprocess.Popen(
            words, stdout=subprocess.DEVNULL, stderr=writer, start_new_session=True, preexec_fn=_heed_signals
        )
        os.close(writer)
        process.returncode = 0  # `end` waits for it by its id
        return process.pid, reader
    number = os.fork()
    if number:
        os.close(writer)
        return number, reader
    try:
        _hasten()
        _heed_signals()
        os.setsid()
        os.dup2(writer, 2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.stderr = os.fdopen(2, "w")
        sys.argv = ["pdsynth", *arguments]
        if before is not None:
            before()
        from pdsynth.cli import main

        main()
        os._exit(0)
    except SystemExit as end:
        sys.stderr.flush()
        os._exit(end.code if isinstance(end.code, int) else 1)
    except BaseException as error:
        sys.stderr.write(f"escaped: {error!r}\n")
        sys.stderr.flush()
        os._exit(99)


def _hasten() -> None:
    """Lower the number of simulated people and of classifier fits, because only the end of a run is tested here."""
    from pdsynth import demo
    from pdsynth.evidence.probes import compute as probes
    from pdsynth.statistics import classification

    classification.INNER_FOLDS = 1  # no search for the penalty

    probes.TWICE = 3
    demo.SUBJECTS, demo.SITES = 9, ("oasis",)


def end(number: int, reader: int) -> Ended:
    """Wait for the end of a process."""
    stderr = b""
    while piece := os.read(reader, 65536):
        stderr += piece
    os.close(reader)
    _, status = os.waitpid(number, 0)
    return Ended(os.waitstatus_to_exitcode(status), stderr.decode(errors="replace"))


def run_to_end(case: Case, out: Path, again: bool = False, before: Callable[[], None] | None = None) -> Ended:
    """Run a command without an attack."""
    return end(*start(case.arguments(out, again), before))


def is_whole(case: Case, out: Path) -> bool:
    """Whether the output is absent, unchanged, or complete."""
    if not out.exists() or not any(out.iterdir()):
        return True
    try:
        folders.refuse_foreign(out)
    except ValueError:
        return False
    return manifest.read(out).get("finished") is not None


def mixed(case: Case, out: Path) -> int:
    """Number of synthesised volumes that were not computed from scans of the participant in their name."""
    wrong = 0
    for sidecar in out.glob("sub-*/**/*_desc-synthetic*.json"):
        entries = json.loads(sidecar.read_text())
        person = sidecar.relative_to(out).parts[0]
        own = {sha256(p) for p in (case.inputs["bids"] / person).rglob("*") if p.is_file()}
        wrong += not set(entries["SourceSHA256"]) <= own or not sidecar.name.startswith(f"{person}_")
    return wrong


def restarted(case: Case, out: Path, expected: dict[str, str]) -> tuple[bool, int, list[int]]:
    """Repeat the command until it is complete: whether the output is as expected, further files, exit statuses."""
    statuses = []
    if not (out.exists() and case.base is None and is_whole(case, out) and any(out.iterdir())):
        again = bool(case.again) and folders.stopped(out)
        ended = run_to_end(case, out, again)
        statuses.append(ended.status)
        if ended.status:
            sys.stderr.write(f"{case.verb} again: {ended}\n")
    if (out.with_name("out.partial")).exists():  # the next run completes the work of a killed run
        statuses.append(run_to_end(case, out, bool(case.again)).status)
    found = case.content(out)
    different = sorted(k for k in expected.keys() | found.keys() if expected.get(k) != found.get(k))
    if different:
        sys.stderr.write(f"{case.verb} differs: {different[:5]}\n")
    return not different, len([p for p in out.parent.iterdir() if p != out]), statuses


def judged(case: Case, out: Path, expected: dict[str, str], first: list[int], allowed: set[int]) -> dict[str, Any]:
    """The entries of a trial whose first runs ended with the statuses `first`; others than `allowed` are failures."""
    half, crossed = not is_whole(case, out), mixed(case, out)
    identical, left, statuses = restarted(case, out, expected)
    bad = half or crossed or not identical or left or any(s not in allowed for s in first)
    bad = bool(bad or any(s not in (0, 2) for s in statuses) or mixed(case, out))
    return {
        "half": half, "mixed": crossed + mixed(case, out), "identical": identical, "left": left,
        "statuses": first + statuses, "bad": bad,
    }  # fmt: skip


def killed(
    case: Case, folder: Path, expected: dict[str, str], seconds: float, generator: random.Random, number: int
) -> dict:
    """A signal at a random moment of the run."""
    out, sent = case.begin(folder), SIGNALS[number % 4]
    process, reader = start(case.arguments(out))
    time.sleep(generator.uniform(0, seconds))
    os.kill(process, sent)
    ended = end(process, reader)
    reported = "Stopped: by " in ended.stderr
    landed = ended.status == STOPPED[sent]
    trial = judged(case, out, expected, [ended.status], {STOPPED[sent], 0, -sent})
    silent = landed and sent != signal.SIGKILL and not reported
    return trial | {"landed": landed, "silent": silent, "bad": trial["bad"] or silent, "signal": sent.name}


def full(
    case: Case, folder: Path, expected: dict[str, str], seconds: float, generator: random.Random, number: int
) -> dict:
    """No space at the n-th sync of a file; in every second trial, if mounting is possible, a disk that is too small."""
    out = case.begin(folder)
    if number % 2 and os.geteuid() == 0:
        kilobytes = int(sum(p.stat().st_size for p in out.rglob("*") if p.is_file()) / 1024) + generator.randint(
            40, 900
        )
        before = folder.with_name("before")
        if out.exists():
            shutil.copytree(out, before)
        # The disk is mounted on the folder itself, because outputs contain a digest of their location.
        mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "none", folder]
        if not subprocess.run(mount, check=False).returncode:
            try:
                if before.exists():
                    shutil.copytree(before, out)
                ended = run_to_end(case, out)
                half = not is_whole(case, out)
                subprocess.run(["mount", "-o", "remount,size=1g", folder], check=True)
                trial = judged(case, out, expected, [ended.status], {0, 2})
                named = ended.status == 0 or "space" in ended.stderr
                landed = ended.status != 0
                return trial | {
                    "half": half or trial["half"],
                    "landed": landed,
                    "bad": trial["bad"] or half or not named,
                }
            finally:
                subprocess.run(["umount", folder], check=False)
                shutil.rmtree(before, ignore_errors=True)
    at = generator.randint(1, 40)

    def no_room() -> None:
        real, count = os.fsync, 0

        def sync(handle: int) -> None:
            nonlocal count
            count += 1
            if count >= at:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.readlink(f"/proc/self/fd/{handle}"))
            real(handle)

        os.fsync = sync

    ended = run_to_end(case, out, before=no_room)
    trial = judged(case, out, expected, [ended.status], {0, 2})
    named = ended.status == 0 or "No space left" in ended.stderr
    return trial | {"landed": ended.status != 0, "bad": trial["bad"] or not named}


def workers(
    case: Case, folder: Path, expected: dict[str, str], seconds: float, generator: random.Random, number: int
) -> dict:
    """One of two worker processes is killed at a random moment."""
    out = case.begin(folder)
    words = [("2" if words == "1" and before == "--jobs" else words)
             for before, words in zip(["", *case.arguments(out)], case.arguments(out), strict=False)]  # fmt: skip
    process, reader = start(words)
    children: list[int] = []
    while not children and not _is_over(process):
        time.sleep(0.02)
        children = _workers_of(process)
    time.sleep(generator.uniform(0, 4 + seconds / 2))  # a worker takes seconds to start
    children, landed = _workers_of(process), False
    for child in children[:1]:
        try:
            os.kill(child, signal.SIGKILL)
            landed = True
        except ProcessLookupError:
            pass
    ended = end(process, reader)
    trial = judged(case, out, expected, [ended.status], {0, 2})
    named = ended.status != 2 or ("was killed" in ended.stderr and "Remedy" in ended.stderr)
    return trial | {"landed": landed and ended.status == 2, "bad": trial["bad"] or not named}


def _is_over(process: int) -> bool:
    try:
        return "State:\tZ" in Path(f"/proc/{process}/status").read_text()
    except FileNotFoundError:
        return True


def _workers_of(process: int) -> list[int]:
    """Worker processes: children of the process or of its fork server, without Python's resource tracker."""
    parents, commands = {}, {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(path.name)] = int((path / "stat").read_text().rsplit(")", 1)[1].split()[1])
            commands[int(path.name)] = (path / "cmdline").read_bytes()
        except (OSError, ValueError, IndexError):
            continue
    servers = {n for n, parent in parents.items() if parent == process and b"forkserver" in commands.get(n, b"")}
    found = [n for n, parent in parents.items() if parent in servers]
    found += [n for n, parent in parents.items() if parent == process and b"spawn_main" in commands.get(n, b"")]
    return sorted(found)


def double(
    case: Case, folder: Path, expected: dict[str, str], seconds: float, generator: random.Random, number: int
) -> dict:
    """Two runs into one folder, the second at a random moment of the first."""
    out = case.begin(folder)
    first = start(case.arguments(out))
    time.sleep(generator.uniform(0, seconds))
    second = start(case.arguments(out))
    ended = [end(*first), end(*second)]
    trial = judged(case, out, expected, [each.status for each in ended], {0, 2})
    nobody = all(each.status for each in ended)
    return trial | {"bad": trial["bad"] or nobody}


def placed(
    case: Case, folder: Path, expected: dict[str, str], seconds: float, generator: random.Random, number: int
) -> dict:
    """A file, folder or link of a user in a finished output, or an edited file; then the command, with and without
    --overwrite."""
    out = case.begin(folder)
    first = run_to_end(case, out)
    inside = [p for p in out.rglob("*") if p.is_file()]
    parents = [out, *(p for p in out.rglob("*") if p.is_dir())]
    kind = ("file", "folder", "link", "edited", "linked", "old", "partial")[number % 7]
    place = generator.choice(parents) / generator.choice(["notes.txt", "my masks.npy", ".hidden", "thesis.docx"])
    if kind == "file":
        place.write_bytes(generator.randbytes(generator.randint(0, 4000)))
    elif kind == "folder":
        place.mkdir()
        if generator.random() < 0.7:
            (place / "raw.dat").write_bytes(generator.randbytes(3000))
    elif kind == "link":
        place.symlink_to(generator.choice([folder, folder / "nowhere"]))
    elif kind == "edited":
        place = generator.choice(inside)
        content = bytearray(place.read_bytes() or b"x")
        content[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
        place.write_bytes(content)
    elif kind == "linked":
        place = generator.choice(inside)
        place.rename(folder / "moved")
        place.symlink_to(folder / "moved")
    else:
        place = folder / f"out.{kind}"
        shutil.copytree(out, place)
    before = _user_bytes(folder)
    statuses, named, tables = [first.status], True, []
    for extra in ([], ["--overwrite"]) if case.base is None and case.verb != "benchmark" else ([],):
        ended = end(*start([*case.arguments(out), *extra]))
        statuses.append(ended.status)
        tables.append(ended.stderr)
        if kind not in ("old",):
            named &= ended.status == 2 and (place.name in ended.stderr or place.parent.name in ended.stderr)
    after = _user_bytes(folder)
    if kind == "old":  # a backup beside the output is not an obstacle; the run may succeed
        lost = sum(len(v) for k, v in before.items() if k.startswith("out.old") and after.get(k) != v)
    else:
        lost = sum(len(v) or 1 for k, v in before.items() if after.get(k) != v)
    bad = bool(lost) or not named or any(s not in (0, 2) for s in statuses)
    return {"lost": lost, "kind": kind, "named": named, "statuses": statuses, "bad": bad}


def _user_bytes(folder: Path) -> dict[str, bytes]:
    """Contents of every file, link and empty folder in the folder, by path."""
    found = {}
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            found[name] = os.readlink(path).encode()
        elif path.is_file():
            found[name] = path.read_bytes()
        elif not any(path.iterdir()):
            found[name] = b""
    return found


SCENARIOS = {"kills": killed, "full": full, "workers": workers, "double": double, "placements": placed}
