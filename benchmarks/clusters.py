"""Jobs of a fake Slurm, workers of dask and its scheduler are killed at random moments; are results changed?

Usage: python benchmarks/clusters.py WORK [--kills 20] [--out benchmarks/results/clusters.json]
Each run divides 24 tasks, of half a second each, between two workers; a task writes a file
and returns its digest. In a run of Slurm or dask, five jobs or workers are killed (SIGKILL) at random moments; a killed
worker of dask is replaced by a new one, a killed job by pdsynth. In a run of the scheduler, it is killed, and the tasks
that are left are done without a cluster. Moments are seconds: for Slurm, after the start of the job, up to the time of
an undisturbed job; for dask, after the kill before, up to a fifth of an undisturbed run; for the scheduler, after the
first result, up to such a run.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import threading
import time
from collections.abc import Callable
from datetime import date
from hashlib import sha256
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from fake_dask import Dask, dask
from fake_slurm import FakeSlurm
from pdsynth.clusters.settings import Cluster
from pdsynth.files import write_json
from pdsynth.types import InputError
from pdsynth.workers import Workers

TASKS, EACH, SEED = 24, 5, 2026
WAIT = "10m"  # on a busy machine, a new worker needs minutes
SCHEDULERS = 5  # runs in which the scheduler is killed
Found = dict[Path, str]


def digest(path: Path) -> str:
    time.sleep(0.5)
    content = path.name.encode()
    for _ in range(1000):
        content = sha256(content).digest()
    path.write_bytes(content)
    return content.hex()


def content(tasks: list[Path]) -> dict[str, str]:
    """The bytes of all files in the folder of the tasks, as text."""
    return {path.name: path.read_bytes().hex() for path in tasks[0].parent.iterdir()}


def slurm(folder: Path, tasks: list[Path], moments: list[float]) -> tuple[Found, int, float]:
    """One run in jobs of Slurm; returns the results, the number of jobs that were killed, and the longest of a job."""
    fake = FakeSlurm.at(folder / "slurm", kills=moments)
    os.environ |= {"PATH": f"{fake.folder / 'bin'}:{PATH}", "PYTHONPATH": fake.environment["PYTHONPATH"]}
    workers = Workers(2, slurm=True, cluster=Cluster(wait=WAIT, folder=str(folder / "shared")))
    began = time.monotonic()
    found = dict(workers.run(digest, tasks))
    hits = (fake.folder / "hits").read_text().split() if (fake.folder / "hits").exists() else []
    return found, len(hits), (time.monotonic() - began) / 4  # two of eight jobs at a time


def with_dask(folder: Path, tasks: list[Path], moments: list[float], choose: random.Random) -> tuple[Found, int, float]:
    """One run on two workers; after each moment, one of them is killed and replaced."""
    with dask(folder / "dask") as scheduler:
        running, killed, ended = [scheduler.worker(), scheduler.worker()], [], threading.Event()

        def kill() -> None:
            for seconds in moments:
                if ended.wait(seconds):
                    return
                victim = running.pop(choose.randrange(2))
                victim.kill()
                killed.append(seconds)
                running.append(scheduler.worker())

        workers = Workers(dask=scheduler.address, cluster=Cluster(wait=WAIT))
        killer = threading.Thread(target=kill)
        stream = workers.run(digest, tasks)
        found = dict([next(stream)])  # the workers have started
        began = time.monotonic()
        killer.start()
        found |= dict(stream)
        ended.set()
        killer.join()
        return found, len(killed), time.monotonic() - began


def without_scheduler(folder: Path, tasks: list[Path], moment: float) -> tuple[Found, dict[str, object]]:
    """One run whose scheduler is killed; returns all results, and the error with the seconds from the kill to it."""
    with dask(folder / "dask") as scheduler:
        for _ in range(2):
            scheduler.worker()
        found: Found = {}
        killed: list[float] = []
        try:
            for task, result in Workers(dask=scheduler.address, cluster=Cluster(wait=WAIT)).run(digest, tasks):
                if not found:
                    threading.Timer(moment, kill_scheduler, (scheduler, killed)).start()
                found[task] = result
            error = "none: all tasks were done before"
        except InputError as caught:
            error = caught.problem
        ended = {"error": error, "killed": len(killed)}
        ended |= {"seconds": round(time.monotonic() - killed[0], 1)} if killed else {}
    left = [task for task in tasks if task not in found]
    return found | dict(Workers().run(digest, left)), ended


def kill_scheduler(scheduler: Dask, killed: list[float]) -> None:
    scheduler.scheduler.kill()
    killed.append(time.monotonic())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/clusters.json"))
    given = parser.parse_args()

    def tasks(name: str) -> list[Path]:
        folder = given.work.absolute() / name
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "files").mkdir(parents=True)
        return [folder / "files" / f"{number:02d}" for number in range(TASKS)]

    alone = tasks("alone")
    expected = [result for _, result in Workers().run(digest, alone)], content(alone)
    runs: list[dict[str, object]] = []
    result = {
        "date": date.today().isoformat(),
        "machine": f"{os.cpu_count()}-core x86-64",
        "tasks": TASKS,
        "runs": runs,
    }

    def add(name: str, own: list[Path], found: Found, **more: object) -> None:
        identical = ([found[task] for task in own], content(own)) == expected
        runs.append({"cluster": name, **more, "identical": identical})
        killed = {
            each: sum(int(run["killed"]) for run in runs if run["cluster"] == each) for each in (*engines, "scheduler")
        }
        equal = all(run["identical"] for run in runs)
        write_json(given.out, result | {"killed": killed, "all_identical": equal})
        print(runs[-1], flush=True)

    engines: dict[str, Callable[[Path, list[Path], list[float]], tuple[Found, int, float]]] = {
        "slurm": slurm,
        "dask": lambda folder, own, moments: with_dask(folder, own, moments, random.Random(SEED)),
    }
    for name, engine in engines.items():
        own = tasks(f"{name}-undisturbed")
        found, _, lasts = engine(own[0].parents[1], own, [])
        add(name, own, found, killed=0, seconds=round(lasts, 1))
        killed = 0
        for number in range(3 * given.kills // EACH):
            if killed >= given.kills:
                break
            generator, count = random.Random(f"{name} {number}"), min(EACH, given.kills - killed)
            moments = [round(generator.uniform(0, lasts / (1 if name == "slurm" else EACH)), 2) for _ in range(count)]
            own = tasks(f"{name}-{number}")
            began = time.monotonic()
            found, hits, _ = engine(own[0].parents[1], own, moments)
            killed += hits
            add(name, own, found, moments=moments, killed=hits, seconds=round(time.monotonic() - began, 1))
    for number in range(SCHEDULERS):
        moment = round(random.Random(f"scheduler {number}").uniform(0, lasts), 2)
        own = tasks(f"scheduler-{number}")
        found, ended = without_scheduler(own[0].parents[1], own, moment)
        add("scheduler", own, found, moments=[moment], **ended)


PATH = os.environ["PATH"]
if __name__ == "__main__":
    main()
