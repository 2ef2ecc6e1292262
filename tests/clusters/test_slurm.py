"""The tasks of a command in jobs of a fake Slurm: absent, refused, waiting, failing, killed; with equal results."""

from __future__ import annotations

import random
import time

import pytest

from fake_slurm import FakeSlurm, always_killed_at_2, fail, locked, square
from pdsynth.clusters.settings import Cluster, LostTaskError
from pdsynth.types import InputError
from pdsynth.workers import Workers

pytest.importorskip("submitit")
PATIENCE = "60s"  # for jobs that do run, on a busy machine


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Starts a fake Slurm; returns it with workers that wait for it so long."""

    def start(mode="runs", kills=(), wait=PATIENCE, **settings):
        fake = FakeSlurm.at(tmp_path / "slurm", mode, kills)
        for name, value in fake.environment.items():
            monkeypatch.setenv(name, value)
        return fake, Workers(2, slurm=True, cluster=Cluster(wait=wait, folder=str(tmp_path / "shared"), **settings))

    return start


@pytest.fixture
def tasks(tmp_path):
    (tmp_path / "work").mkdir()
    return [tmp_path / "work" / str(number) for number in range(11)]


def written(tasks):
    """The bytes of all files of the tasks, by name."""
    return {path.name: path.read_bytes() for path in tasks[0].parent.iterdir()}


@pytest.fixture
def alone(tmp_path):
    """Results and files of the tasks in this process."""
    (tmp_path / "alone").mkdir()
    own = [tmp_path / "alone" / str(number) for number in range(11)]
    return [result for _, result in Workers().run(square, own)], written(own)


def check_over(fake, tmp_path):
    assert fake.queue() == [] and list((tmp_path / "shared").iterdir()) == []


def test_all_tasks_are_done_with_the_resources_asked_for(slurm, tasks, alone, tmp_path):
    settings = {"partition": "long", "account": "lab", "memory": "6GB", "time": "90m", "setup": ["echo ready", "true"]}
    fake, workers = slurm(**settings)
    found = dict(workers.run(square, tasks))
    assert [found[task] for task in tasks] == alone[0] and written(tasks) == alone[1]
    lines = fake.script.splitlines()
    for line in ("--array=0-5%2", "--partition=long", "--account=lab", "--mem=6GB", "--time=90", "--cpus-per-task=1"):
        assert f"#SBATCH {line}" in lines
    assert "--gpus" not in fake.script and "--wckey" not in fake.script
    assert lines.index("echo ready") + 1 == lines.index("true") < lines.index("export SUBMITIT_EXECUTOR=slurm")
    check_over(fake, tmp_path)


def test_no_slurm_on_this_machine(tasks, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    workers = Workers(slurm=True, cluster=Cluster(folder=str(tmp_path / "shared")))
    problem = r"^Slurm: is not on this machine: there is no sbatch, srun, squeue, scancel on the PATH\. Remedy: "
    with pytest.raises(InputError, match=problem):
        workers.refuse_absent()
    with pytest.raises(InputError, match=problem):
        list(workers.run(square, tasks))
    assert not (tmp_path / "shared").exists()


def test_a_refused_job_is_an_error_with_the_message_of_slurm(slurm, tasks, tmp_path):
    fake, workers = slurm("refused")
    with pytest.raises(InputError, match=r"^Slurm: refused the jobs \(sbatch: .* Invalid account or account/partition"):
        list(workers.run(square, tasks))
    check_over(fake, tmp_path)


def test_jobs_that_do_not_start_are_an_error_after_the_stated_wait(slurm, tasks, caplog, tmp_path):
    fake, workers = slurm("waits", wait="2s")
    began = time.monotonic()
    with pytest.raises(InputError, match=r"^Slurm: did nothing for 2s: its jobs are 6 pending \(Priority\)\. Remedy: "):
        list(workers.run(square, tasks))
    assert 2 <= time.monotonic() - began < 20
    assert "Waiting for Slurm, at most 2s (--cluster wait=): its jobs are 6 pending (Priority)." in caplog.text
    assert (fake.folder / "cancelled").exists()
    check_over(fake, tmp_path)


def test_jobs_that_fail_are_submitted_twice_more_and_their_tasks_named(slurm, tasks, caplog, tmp_path):
    fake, workers = slurm("fails", wait="2s")
    problem = (
        r"/\d+: was being processed when its job of Slurm ended without a result, 3 times.* 10 others, such as .*/\d"
    )
    with pytest.raises(LostTaskError, match=problem):
        list(workers.run(square, tasks))
    assert fake.submitted() == 3 and caplog.text.count("The jobs of 11 tasks were lost") == 3
    check_over(fake, tmp_path)


def test_the_task_that_kills_its_job_is_named_and_the_others_are_done(slurm, tasks, alone, tmp_path):
    fake, workers = slurm(wait="3s")
    with pytest.raises(LostTaskError, match=r"2: was being processed .* 3 times.*possibly for lack of memory"):
        list(workers.run(always_killed_at_2, tasks[:4]))
    assert written(tasks) == {name: alone[1][name] for name in ("0.done", "1.done", "3.done")}
    check_over(fake, tmp_path)


def test_an_error_of_a_task_is_raised_as_it_is_and_the_rest_is_cancelled(slurm, tasks, tmp_path):
    fake, workers = slurm()
    with pytest.raises(ValueError, match=r"^2 is odd$"):
        list(workers.run(fail, tasks))
    check_over(fake, tmp_path)


def test_a_result_that_cannot_be_sent_is_named_with_the_reason(slurm, tasks, tmp_path):
    fake, workers = slurm(wait="3s")
    with pytest.raises(LostTaskError, match=r"ended without a result, 3 times \(.*[Cc]annot pickle.*lock"):
        list(workers.run(locked, tasks[:1]))
    check_over(fake, tmp_path)


def test_jobs_killed_at_random_moments_do_not_change_the_results(slurm, tasks, alone, caplog, tmp_path):
    moments = random.Random(21)
    fake, workers = slurm(kills=[round(moments.uniform(0, 3), 2) for _ in range(3)], wait="5s")
    found = dict(workers.run(square, tasks))
    assert [found[task] for task in tasks] == alone[0] and written(tasks) == alone[1]
    assert (fake.folder / "kills").read_text() == ""  # all three were used
    check_over(fake, tmp_path)


def test_a_queue_that_does_not_answer_is_an_error_after_the_stated_wait(slurm, tasks, tmp_path):
    fake, workers = slurm("waits", wait="2s")
    (fake.folder / "down").touch()
    problem = (
        r"did nothing for 2s: squeue does not answer \(slurm_load_jobs error: Unable to contact slurm controller\)"
    )
    with pytest.raises(InputError, match=problem):
        list(workers.run(square, tasks))
    check_over(fake, tmp_path)
