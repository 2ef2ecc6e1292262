"""The tasks of a command on a dask scheduler: absent, without workers, workers and scheduler killed, TLS."""

from __future__ import annotations

import random
import shutil
import subprocess
import time

import pytest

from fake_dask import dask
from fake_slurm import always_killed_at_2, fail, square
from pdsynth.clusters.settings import Cluster, LostTaskError
from pdsynth.types import InputError
from pdsynth.workers import Workers

pytest.importorskip("distributed")
PATIENCE = "60s"  # for workers that do come, on a busy machine


@pytest.fixture
def scheduler(tmp_path):
    with dask(tmp_path / "dask") as started:
        yield started


@pytest.fixture
def tasks(tmp_path):
    (tmp_path / "work").mkdir()
    return [tmp_path / "work" / str(number) for number in range(30)]


def check_all_done(found, tasks):
    assert [found[task] for task in tasks] == [n * n for n in range(len(tasks))]
    files = {path.name: path.read_text() for path in tasks[0].parent.iterdir()}
    assert files == {f"{n}.done": str(n * n) for n in range(len(tasks))}


def on(scheduler, wait=PATIENCE):
    return Workers(dask=scheduler.address, cluster=Cluster(wait=wait))


def test_no_scheduler_answers(tasks):
    workers = Workers(dask="tcp://127.0.0.1:9", cluster=Cluster(wait="1s"))
    problem = (
        r"^tcp://127\.0\.0\.1:9: is not the address of a dask scheduler that answers within 1s\. Remedy: start one"
    )
    with pytest.raises(InputError, match=problem):
        workers.refuse_absent()
    with pytest.raises(InputError, match=problem):
        list(workers.run(square, tasks))


def test_no_worker_is_an_error_after_the_stated_wait(scheduler, tasks, caplog):
    began = time.monotonic()
    with pytest.raises(InputError, match=r"did nothing for 2s: it has no worker\. Remedy: "):
        list(on(scheduler, wait="2s").run(square, tasks))
    assert 2 <= time.monotonic() - began < 20
    assert f"Waiting for the dask scheduler at {scheduler.address}, at most 2s" in caplog.text


def test_workers_killed_at_random_moments_do_not_change_the_results(scheduler, tasks):
    moments = random.Random(21)
    killed = sorted(moments.sample(range(1, 25), 3))  # numbers of finished tasks
    running = [scheduler.worker()]
    found = {}
    for number, (task, result) in enumerate(on(scheduler).run(square, tasks), start=1):
        found[task] = result
        if number in killed:
            running[-1].kill()
            running.append(scheduler.worker())
    check_all_done(found, tasks)
    assert len(running) == 4


def test_the_last_worker_is_killed(scheduler, tasks):
    worker = scheduler.worker()
    with pytest.raises(InputError, match="did nothing for 3s: it has no worker"):
        for _ in on(scheduler).run(square, tasks[:1]):
            pass
        for number, _ in enumerate(on(scheduler, wait="3s").run(square, tasks)):
            if number == 3:
                worker.kill()


def test_the_scheduler_is_killed_and_the_rest_can_be_done(scheduler, tasks):
    scheduler.worker()
    began, found = time.monotonic(), {}
    with pytest.raises(InputError, match=r"was a dask scheduler, and the connection to it was lost\. Remedy: start it"):
        for task, result in on(scheduler).run(square, tasks):
            found[task] = result
            if len(found) == 3:
                scheduler.scheduler.kill()
                began = time.monotonic()
    assert time.monotonic() - began < 60
    check_all_done(found | dict(Workers().run(square, [task for task in tasks if task not in found])), tasks)


def test_the_task_that_kills_its_workers_is_named_and_the_others_are_done(tmp_path, tasks):
    options = {"ALLOWED_FAILURES": "0", "WORKER_SATURATION": "1.0"}  # no task waits at a worker that is killed
    environment = {f"DASK_DISTRIBUTED__SCHEDULER__{name}": value for name, value in options.items()}
    with dask(tmp_path / "dask", environment=environment) as scheduler:
        scheduler.worker()
        with pytest.raises(LostTaskError, match=r"/2: was being processed when the workers of the dask .* were lost"):
            for number, _ in enumerate(on(scheduler).run(always_killed_at_2, tasks[:4])):
                if number == 0:
                    scheduler.worker()
    assert {path.name for path in tasks[0].parent.iterdir()} == {"0.done", "1.done", "3.done"}


def test_an_error_of_a_task_is_raised_as_it_is(scheduler, tasks):
    scheduler.worker()
    with pytest.raises(ValueError, match=r"^2 is odd$"):
        list(on(scheduler).run(fail, tasks))


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_the_certificates_in_the_settings_of_dask_are_used(tmp_path, tasks):
    import dask as settings_of_dask

    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    words = f"req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -keyout {key} -out {certificate}"
    subprocess.run(["openssl", *words.split()], check=True, capture_output=True)
    options = ["--tls-ca-file", str(certificate), "--tls-cert", str(certificate), "--tls-key", str(key)]
    with dask(tmp_path / "dask", ["--protocol", "tls", *options]) as scheduler:
        scheduler.worker()
        assert scheduler.address.startswith("tls://")
        with pytest.raises(InputError, match=r"^tls://.* for tls:// the certificates in dask's settings\.$"):
            list(on(scheduler, wait="2s").run(square, tasks[:2]))
        tls = {"ca-file": certificate, "client.cert": certificate, "client.key": key}
        with settings_of_dask.config.set({f"distributed.comm.tls.{name}": str(path) for name, path in tls.items()}):
            assert dict(on(scheduler).run(square, tasks[:2])) == {tasks[0]: 0, tasks[1]: 1}
