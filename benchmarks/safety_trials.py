"""The verbs under attack, and the attacks of `safety.py`: each is one trial on a fresh folder."""

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
import pdsynth.synthesis  # noqa: F401  (all that a verb imports: a forked run begins at once)
from pdsynth import folders, manifest
from pdsynth.files import sha256

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
STOPPED = {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGHUP: 129}


@dataclass(frozen=True)
class Ended:
    """How a run ended: exit status (negative: the signal) and what it wrote on stderr."""

    status: int
    said: str


def start(arguments: Sequence[str], before: Callable[[], None] | None = None) -> tuple[int, int]:
    """Fork a process that runs the command line as its own; returns its number and the end of its stderr."""
    reader, writer = os.pipe()
    if arguments[0] == "benchmark":  # it begins processes of its own from threads, which a forked one cannot
        words = [sys.executable, "-m", "pdsynth", *arguments]
        begun = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=writer, start_new_session=True)
        os.close(writer)
        begun.returncode = 0  # it is waited for by its number
        return begun.pid, reader
    number = os.fork()
    if number:
        os.close(writer)
        return number, reader
    try:
        _hasten()
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # until the command has its own
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
    """Fewer simulated people and fewer fits of classifiers: what is measured here is how runs end."""
    from pdsynth import api, demo
    from pdsynth.evidence.probes import compute as probes
    from pdsynth.statistics import classification

    classification.INNER_FOLDS = 1  # no search for the penalty

    probes.TWICE = 3
    demo.SUBJECTS, demo.SITES = 9, ("oasis",)
    demo._controls = lambda train, seed: api.fit_controls(train, seed=seed)  # by no clock


def end(number: int, reader: int) -> Ended:
    """Wait for a process."""
    said = b""
    while piece := os.read(reader, 65536):
        said += piece
    os.close(reader)
    _, status = os.waitpid(number, 0)
    return Ended(os.waitstatus_to_exitcode(status), said.decode(errors="replace"))


def run_to_end(case: Case, out: Path, again: bool = False, before: Callable[[], None] | None = None) -> Ended:
    """Run a verb without disturbance."""
    return end(*start(case.arguments(out, again), before))


def is_whole(case: Case, out: Path) -> bool:
    """Whether the output is absent, what the verb began from, or complete."""
    if not out.exists() or not any(out.iterdir()):
        return True
    try:
        folders.refuse_foreign(out)
    except ValueError:
        return False
    return manifest.read(out).get("finished") is not None


def mixed(case: Case, out: Path) -> int:
    """Synthesised volumes that do not stem from the scans of the participant whose name they bear."""
    wrong = 0
    for sidecar in out.glob("sub-*/**/*_desc-synthetic*.json"):
        said = json.loads(sidecar.read_text())
        person = sidecar.relative_to(out).parts[0]
        own = {sha256(p) for p in (case.inputs["bids"] / person).rglob("*") if p.is_file()}
        wrong += not set(said["SourceSHA256"]) <= own or not sidecar.name.startswith(f"{person}_")
    return wrong


def restarted(case: Case, out: Path, wanted: dict[str, str]) -> tuple[bool, int, list[int]]:
    """Give the command again until it is done; whether the output equals the reference, what is left, and statuses."""
    statuses = []
    if not (out.exists() and case.base is None and is_whole(case, out) and any(out.iterdir())):
        again = bool(case.again) and folders.stopped(out)
        ended = run_to_end(case, out, again)
        statuses.append(ended.status)
        if ended.status:
            sys.stderr.write(f"{case.verb} again: {ended}\n")
    if (out.with_name("out.partial")).exists():  # the next run ends what a killed one has left
        statuses.append(run_to_end(case, out, bool(case.again)).status)
    found = case.content(out)
    different = sorted(k for k in wanted.keys() | found.keys() if wanted.get(k) != found.get(k))
    if different:
        sys.stderr.write(f"{case.verb} differs: {different[:5]}\n")
    return not different, len([p for p in out.parent.iterdir() if p != out]), statuses


def judged(case: Case, out: Path, wanted: dict[str, str], first: list[int], allowed: set[int]) -> dict[str, Any]:
    """The figures of a trial whose first runs ended with the statuses `first`."""
    half, crossed = not is_whole(case, out), mixed(case, out)
    identical, left, statuses = restarted(case, out, wanted)
    bad = half or crossed or not identical or left or any(s not in allowed for s in first)
    bad = bool(bad or any(s not in (0, 2) for s in statuses) or mixed(case, out))
    return {
        "half": half, "mixed": crossed + mixed(case, out), "identical": identical, "left": left,
        "statuses": first + statuses, "bad": bad,
    }  # fmt: skip


def killed(case: Case, folder: Path, wanted: dict[str, str], seconds: float, drawn: random.Random, number: int) -> dict:
    """A signal at a random moment of the run."""
    out, sent = case.begin(folder), SIGNALS[number % 4]
    process, reader = start(case.arguments(out))
    time.sleep(drawn.uniform(0, seconds))
    os.kill(process, sent)
    ended = end(process, reader)
    said = "Stopped: by " in ended.said
    landed = ended.status == STOPPED[sent]
    trial = judged(case, out, wanted, [ended.status], {STOPPED[sent], 0, -sent})
    silent = landed and sent != signal.SIGKILL and not said
    return trial | {"landed": landed, "silent": silent, "bad": trial["bad"] or silent, "signal": sent.name}


def full(case: Case, folder: Path, wanted: dict[str, str], seconds: float, drawn: random.Random, number: int) -> dict:
    """No room at the n-th sync of a file; in every second trial, where it can be mounted, a disk that is too small."""
    out = case.begin(folder)
    if number % 2 and os.geteuid() == 0:
        disk = folder / "disk"
        disk.mkdir()
        kilobytes = int(sum(p.stat().st_size for p in out.rglob("*") if p.is_file()) / 1024) + drawn.randint(40, 900)
        if not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "none", disk], check=False
        ).returncode:
            try:
                there = disk / "out"
                if out.exists():
                    shutil.copytree(out, there)
                ended = run_to_end(case, there)
                half = not is_whole(case, there)
                subprocess.run(["mount", "-o", "remount,size=1g", disk], check=True)
                trial = judged(case, there, wanted, [ended.status], {0, 2})
                named = ended.status == 0 or "space" in ended.said
                landed = ended.status != 0
                return trial | {
                    "half": half or trial["half"],
                    "landed": landed,
                    "bad": trial["bad"] or half or not named,
                }
            finally:
                subprocess.run(["umount", disk], check=False)
    at = drawn.randint(1, 40)

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
    trial = judged(case, out, wanted, [ended.status], {0, 2})
    named = ended.status == 0 or "No space left" in ended.said
    return trial | {"landed": ended.status != 0, "bad": trial["bad"] or not named}


def workers(
    case: Case, folder: Path, wanted: dict[str, str], seconds: float, drawn: random.Random, number: int
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
    time.sleep(drawn.uniform(0, 4 + seconds / 2))  # a worker takes seconds to begin
    children, landed = _workers_of(process), False
    for child in children[:1]:
        try:
            os.kill(child, signal.SIGKILL)
            landed = True
        except ProcessLookupError:
            pass
    ended = end(process, reader)
    trial = judged(case, out, wanted, [ended.status], {0, 2})
    named = ended.status != 2 or ("was killed" in ended.said and "Remedy" in ended.said)
    return trial | {"landed": landed and ended.status == 2, "bad": trial["bad"] or not named}


def _is_over(process: int) -> bool:
    try:
        return "State:\tZ" in Path(f"/proc/{process}/status").read_text()
    except FileNotFoundError:
        return True


def _workers_of(process: int) -> list[int]:
    """The processes that do its tasks: its own children, or those of its server; not Python's tracker of resources."""
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


def double(case: Case, folder: Path, wanted: dict[str, str], seconds: float, drawn: random.Random, number: int) -> dict:
    """Two runs into one folder, the second at a random moment of the first."""
    out = case.begin(folder)
    first = start(case.arguments(out))
    time.sleep(drawn.uniform(0, seconds))
    second = start(case.arguments(out))
    ended = [end(*first), end(*second)]
    trial = judged(case, out, wanted, [each.status for each in ended], {0, 2})
    nobody = all(each.status for each in ended)
    return trial | {"bad": trial["bad"] or nobody}


def placed(case: Case, folder: Path, wanted: dict[str, str], seconds: float, drawn: random.Random, number: int) -> dict:
    """A user's file, folder or link in a finished output, or one of ours edited; then the verb, in both ways."""
    out = case.begin(folder)
    first = run_to_end(case, out)
    inside = [p for p in out.rglob("*") if p.is_file()]
    parents = [out, *(p for p in out.rglob("*") if p.is_dir())]
    kind = ("file", "folder", "link", "edited", "linked", "old", "partial")[number % 7]
    place = drawn.choice(parents) / drawn.choice(["notes.txt", "my masks.npy", ".hidden", "thesis.docx"])
    if kind == "file":
        place.write_bytes(drawn.randbytes(drawn.randint(0, 4000)))
    elif kind == "folder":
        place.mkdir()
        if drawn.random() < 0.7:
            (place / "raw.dat").write_bytes(drawn.randbytes(3000))
    elif kind == "link":
        place.symlink_to(drawn.choice([folder, folder / "nowhere"]))
    elif kind == "edited":
        place = drawn.choice(inside)
        content = bytearray(place.read_bytes() or b"x")
        content[drawn.randrange(len(content))] ^= 1 << drawn.randrange(8)
        place.write_bytes(content)
    elif kind == "linked":
        place = drawn.choice(inside)
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
        tables.append(ended.said)
        if kind not in ("old",):
            named &= ended.status == 2 and (place.name in ended.said or place.parent.name in ended.said)
    after = _user_bytes(folder)
    if kind == "old":  # a backup is nobody's business; the run may do its work
        lost = sum(len(v) for k, v in before.items() if k.startswith("out.old") and after.get(k) != v)
    else:
        lost = sum(len(v) or 1 for k, v in before.items() if after.get(k) != v)
    bad = bool(lost) or not named or any(s not in (0, 2) for s in statuses)
    return {"lost": lost, "kind": kind, "named": named, "statuses": statuses, "bad": bad}


def _user_bytes(folder: Path) -> dict[str, bytes]:
    """Every file and link in the folder by path, and empty folders too."""
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
