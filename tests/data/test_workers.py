"""The same work here, in processes and on a dask cluster; what fails is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from pdsynth.data.workers import Workers


def square(path: Path) -> None:
    (path.parent / f"{path.name}.done").write_text(str(int(path.name) ** 2))


def fail(path: Path) -> None:
    raise RuntimeError(f"{path.name} is odd")


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
    assert sum(1 for _ in workers.run(square, tasks)) == 5
    assert [(tmp_path / f"{n}.done").read_text() for n in range(5)] == ["0", "1", "4", "9", "16"]
    assert list(workers.run(square, [])) == []
    with pytest.raises(RuntimeError, match="is odd"):
        list(workers.run(fail, tasks))


def test_bad_requests_are_told(monkeypatch):
    monkeypatch.setattr("pdsynth.data.workers.SECONDS", 1)
    with pytest.raises(ValueError, match="jobs=0"):
        Workers(0)
    with pytest.raises(ValueError, match="Choose one"):
        Workers(dask="tcp://here:1", slurm=True)
    pytest.importorskip("distributed")
    with pytest.raises(ValueError, match=r"no dask scheduler answers at tcp://127\.0\.0\.1:9"):
        list(Workers(dask="tcp://127.0.0.1:9").run(square, [Path("1")]))
