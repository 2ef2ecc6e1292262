"""The same work in this process, in several, and on a dask cluster; killed processes are named, none is left over."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from pdsynth import resources
from pdsynth.cohorts.simulated.cohort import each
from pdsynth.types import InputError
from pdsynth.workers import Workers, terminate

PATIENCE = 60  # seconds, on a busy machine
LONG = 600  # seconds that nobody is to wait for: more than the tests' own limit

PARENT = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_workers import linger
from pdsynth.workers import Workers
if __name__ == "__main__":
    list(Workers(2).run(linger, [Path(sys.argv[2], name) for name in ("a", "b")]))
"""

HOLES = """
import re
from pathlib import Path
import numpy as np
from pdsynth.resources import give_back_memory
def anonymous():
    return int(re.search("RssAnon:[^0-9]*([0-9]+)", Path("/proc/self/status").read_text())[1]) / 1000
before = anonymous()
large, small = [], []
for _ in range(1000):
    large.append(np.ones(12_000))
    small.append(np.ones(100))
large.clear()
print(anonymous() - before)
give_back_memory()
print(anonymous() - before)
"""


def square(path: Path) -> int:
    (path.parent / f"{path.name}.done").write_text(str(int(path.name) ** 2))
    return int(path.name) ** 2


def fail(path: Path) -> None:
    raise RuntimeError(f"{path.name} is odd")


def killed_at_2(path: Path) -> int:
    if path.name == "2":
        os.kill(os.getpid(), signal.SIGKILL)
    return square(path)


def always_killed(path: Path) -> None:
    path.touch()
    os.kill(os.getpid(), signal.SIGKILL)


def linger(path: Path) -> None:
    path.touch()
    time.sleep(LONG)


def fail_beside_another(path: Path) -> None:
    if path.name == "slow":
        linger(path)
    wait_for(path.parent / "slow")
    fail(path)


def interrupted(_: int) -> tuple[bool, bool]:
    os.kill(os.getpid(), signal.SIGINT)
    return signal.getsignal(signal.SIGINT) is signal.SIG_IGN, signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def note_start(folder: Path) -> None:
    descriptor = os.open(folder / f"started-{os.getpid()}", os.O_CREAT | os.O_EXCL)  # fails where it is called twice
    os.close(descriptor)


def whose(_: int) -> int:
    time.sleep(0.05)
    return os.getpid()


def wrong_start() -> None:
    raise RuntimeError("the model is not there")


def twice(number: int) -> int:
    return 2 * number


def wait_for(*paths: Path) -> None:
    end = time.monotonic() + PATIENCE
    while not all(path.exists() for path in paths):
        assert time.monotonic() < end, paths
        time.sleep(0.05)


@pytest.fixture(scope="module")
def scheduler():
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None) as local:
        yield local.scheduler_address


@pytest.mark.parametrize("where", ["one", "two", "dask"])
def test_every_task_is_done_once(where, request, tmp_path):
    options = {"one": {}, "two": {"jobs": 2}}.get(where)
    workers = Workers(**options) if options is not None else Workers(dask=request.getfixturevalue("scheduler"))
    tasks = [tmp_path / str(number) for number in range(5)]
    assert sorted(workers.run(square, tasks)) == [(tmp_path / str(n), n * n) for n in range(5)]
    assert [(tmp_path / f"{n}.done").read_text() for n in range(5)] == ["0", "1", "4", "9", "16"]
    assert list(workers.run(square, [])) == []
    with pytest.raises(RuntimeError, match="is odd"):
        list(workers.run(fail, tasks))


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_ordered_list_of_results(jobs):
    said = []
    assert each(twice, [3, 1, 2, 1], jobs, lambda *done: said.append(done)) == [6, 2, 4, 2]
    assert said == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_a_killed_process_is_named_by_its_task_and_the_others_are_finished(tmp_path):
    tasks = [tmp_path / str(number) for number in range(6)]
    problem = r"2: was being processed when its process was killed, possibly for lack of memory\. "
    with pytest.raises(InputError, match=problem + "Remedy: use fewer --jobs, or leave this scan out") as caught:
        list(Workers(2).run(killed_at_2, tasks))
    assert caught.value.path == tmp_path / "2"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["0.done", "1.done", "3.done", "4.done", "5.done"]
    made = []
    with pytest.raises(InputError, match=r"^sub-2\.nii\.gz: was being processed"):
        for pair in Workers(2).run(killed_at_2, tasks, name=lambda task: f"sub-{task.name}.nii.gz"):
            made.append(pair)
    assert sorted(made) == [(tmp_path / str(n), n * n) for n in (0, 1, 3, 4, 5)]


def test_if_every_process_is_killed_the_other_tasks_are_not_started(tmp_path):
    tasks = [tmp_path / str(number) for number in range(5)]
    with pytest.raises(InputError, match=r"was being processed .* \(so were .*\)"):
        list(Workers(2).run(always_killed, tasks))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["0", "1"]


def test_an_error_stops_the_others_at_once(tmp_path):
    with pytest.raises(RuntimeError, match="quick is odd"):
        list(Workers(2).run(fail_beside_another, [tmp_path / "slow", tmp_path / "quick"]))


@pytest.mark.parametrize("who", ["parent", "group"])
def test_no_worker_outlives_its_parent(who, tmp_path):
    tests = str(Path(__file__).parent)
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    command = [sys.executable, str(script), tests, str(tmp_path)]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0)
    wait_for(tmp_path / "a", tmp_path / "b")
    if who == "parent":
        parent.kill()
    else:
        os.killpg(parent.pid, signal.SIGINT)  # as the terminal does on Ctrl-C
    said, errors = parent.communicate(timeout=PATIENCE)  # the end of these is seen when the last process has ended
    assert said == ""
    if who == "parent":
        assert parent.returncode == -signal.SIGKILL
    else:
        assert errors.count("Traceback") == 1 and errors.rstrip().endswith("KeyboardInterrupt")


def test_workers_leave_an_interrupt_to_their_parent():
    assert sorted(Workers(2).run(interrupted, [1, 2, 3])) == [(n, (True, True)) for n in (1, 2, 3)]


@pytest.mark.parametrize("jobs", [1, 2])
def test_every_process_starts_once(jobs, tmp_path):
    found = {pid for _, pid in Workers(jobs).run(whose, range(8), start=partial(note_start, tmp_path))}
    assert {int(p.name.removeprefix("started-")) for p in tmp_path.iterdir()} == found
    assert (found == {os.getpid()}) == (jobs == 1)
    with pytest.raises(RuntimeError, match="the model is not there"):
        list(Workers(jobs).run(whose, [1, 2], start=wrong_start))


def threads_of_torch(_: int) -> int:
    import torch

    return torch.get_num_threads()


def test_tasks_have_one_thread_and_the_caller_keeps_its_own():
    import torch

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert list(Workers().run(threads_of_torch, [1])) == [(1, 1)]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_bad_arguments_are_named(monkeypatch):
    with pytest.raises(ValueError, match="jobs=0"):
        Workers(0)
    with pytest.raises(ValueError, match="Choose one"):
        Workers(dask="tcp://here:1", slurm=True)
    monkeypatch.setitem(sys.modules, "submitit", None)
    monkeypatch.setitem(sys.modules, "dask.distributed", None)
    with pytest.raises(ValueError, match=r"submitit is not installed\. Use pip install 'pdsynth\[scale\]', or leave"):
        list(Workers(slurm=True).run(square, [Path("1")]))
    with pytest.raises(ValueError, match=r"dask is not installed\. Use pip install 'pdsynth\[scale\]', or leave out"):
        list(Workers(dask="tcp://127.0.0.1:9").run(square, [Path("1")]))


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine of 16 cores with 64 GiB, whose control groups a test may write."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    for name, path in (("MEMINFO", "meminfo"), ("OWN_CGROUP", "cgroup"), ("CGROUPS", "groups")):
        monkeypatch.setattr(resources, name, tmp_path / path)
    (tmp_path / "meminfo").write_text("MemTotal: 99999999 kB\nMemAvailable:   67108864 kB\n")
    return tmp_path


def limit(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n")


def test_jobs_are_as_many_as_memory_allows(machine):
    assert resources.memory_bytes() == 64 << 30 and resources.default_jobs() == 16
    (machine / "meminfo").write_text("MemAvailable: 7340032 kB\n")  # 7 GiB
    assert resources.default_jobs() == 3
    (machine / "meminfo").write_text("MemAvailable: 1000 kB\n")
    assert resources.default_jobs() == 1


def test_jobs_are_as_many_as_the_control_group_allows(machine):
    (machine / "cgroup").write_text("4:memory:/slurm/job_1/step_0\n1:cpu:/\n0::/system/scope/inner\n")
    groups = machine / "groups"
    limit(groups / "system/scope/inner/memory.max", "max")
    assert resources.default_jobs() == 16
    limit(groups / "system/scope/memory.max", str(8 << 30))  # of the group above: it holds too
    assert resources.memory_bytes() == 8 << 30 and resources.default_jobs() == 4
    limit(groups / "memory/slurm/job_1/memory.limit_in_bytes", str(5 << 30))
    assert resources.memory_bytes() == 5 << 30 and resources.default_jobs() == 2
    limit(groups / "memory/memory.limit_in_bytes", "9223372036854771712")  # version 1 without a limit
    assert resources.default_jobs() == 2


def test_a_container_sees_its_own_group_as_the_root(machine):
    (machine / "cgroup").write_text("0::/\n")
    limit(machine / "groups/memory.max", str(4 << 30))
    assert resources.default_jobs() == 2


def test_memory_if_the_system_reports_little(machine, monkeypatch):
    (machine / "meminfo").unlink()
    pages = {"SC_PHYS_PAGES": 3 << 20, "SC_PAGE_SIZE": 4096}
    monkeypatch.setattr(os, "sysconf", pages.__getitem__)
    assert resources.memory_bytes() == 12 << 30
    monkeypatch.delattr(os, "sysconf")
    assert resources.memory_bytes() == resources.DEFAULT_MEMORY


def test_pools_that_are_shut_down_already_can_be_terminated() -> None:
    """A signal may arrive after one pool was shut down and before the next one is."""
    with ProcessPoolExecutor(1) as pool:
        assert pool.submit(abs, -1).result() == 1
    terminate([pool])
    assert pool._processes is None


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="the C library is not glibc")
def test_memory_of_freed_arrays_between_others_is_given_back():
    command = [sys.executable, "-c", HOLES]
    kept, given_back = map(float, subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())
    assert kept > 80 and given_back < 20  # MB, of 96 that were freed
