"""The verbs on a fake Slurm and on dask: the same bytes as on one machine, exit status 2, and work that is kept."""

from __future__ import annotations

import logging
import os

import numpy as np
import pandas as pd
import pytest

from fake_dask import dask
from fake_slurm import FakeSlurm
from pdsynth import api
from pdsynth.cli import main
from pdsynth.clusters.settings import Cluster
from pdsynth.cohorts.bids import bids
from pdsynth.cohorts.simulated.cohort import simulate
from pdsynth.data.pairs import Pairs
from pdsynth.data.prepare import prepare_cohort
from pdsynth.evidence.group_effects.compute import cross_fitted, one_row_each
from pdsynth.files import read_json
from pdsynth.options import PrepareOptions
from pdsynth.types import Diagnosis, InputError
from pdsynth.workers import Workers

pytest.importorskip("submitit")
pytest.importorskip("distributed")


@pytest.fixture(autouse=True)
def _loud_again():
    """`main` hushes logging for its process, which here is that of other tests too."""
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    fake = FakeSlurm.at(tmp_path / "slurm")
    for name, value in fake.environment.items():
        monkeypatch.setenv(name, value)
    return fake


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return simulate(tmp_path_factory.mktemp("cohort") / "bids", 4, quick=True, grid_mm=8, missing_dmri=0.25)


def run(*words):
    """The exit status of a command."""
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    return ended.value.code or 0


def bytes_of(folder):
    """The bytes of all files, by path, without those of the manifest, which has times, and a page with the date."""
    files = (
        path for path in folder.rglob("*") if path.is_file() and path.name not in ("manifest.json", "quality.html")
    )
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def check_equal(one, other):
    found, expected = bytes_of(one), bytes_of(other)
    assert found.keys() == expected.keys() and len(expected) > 5
    assert [name for name in expected if found[name] != expected[name]] == []


@pytest.mark.slow
def test_simulate_prepare_and_synthesize_give_the_bytes_of_one_machine(slurm, dataset, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pdsynth.yaml").write_text(f"cluster: {{partition: long, folder: {tmp_path / 'shared'}}}")
    cluster = ["--jobs", 2, "--slurm", "--cluster", "wait=2m"]
    assert run("simulate", "made", "--subjects", 4, "--quick", "--grid-mm", 8, "--missing-dmri", 0.25, *cluster) == 0
    check_equal(tmp_path / "made", dataset)
    assert run("prepare", dataset, "prepared", *cluster) == 0
    assert "#SBATCH --partition=long" in slurm.script
    assert run("synthesize", "default", dataset, "synthesised", "--device", "cpu", *cluster) == 0
    assert slurm.submitted() == 3 and slurm.queue() == []
    assert run("prepare", dataset, "here", "--jobs", 1) == 0
    assert run("synthesize", "default", dataset, "synthesised-here", "--device", "cpu", "--jobs", 1) == 0
    check_equal(tmp_path / "prepared", tmp_path / "here")
    check_equal(tmp_path / "synthesised", tmp_path / "synthesised-here")


def test_evaluation_and_effects_give_the_results_of_one_machine(slurm, make_prepared, tmp_path):
    cohort = make_prepared(20)
    table = pd.read_csv(cohort.root / "pairs.tsv", sep="\t", keep_default_na=False)
    table.assign(available=["both", "both", "fmri", "both"] * 5).to_csv(
        cohort.root / "pairs.tsv", sep="\t", index=False
    )
    cohort = Pairs.open(cohort.root)
    workers = Workers(2, slurm=True, cluster=Cluster(wait="2m", folder=str(tmp_path / "shared")))
    methods = api.fit_controls(cohort.train, names=["site-mean", "coarse-ridge"])
    for name, jobs in (("here", 1), ("there", workers)):
        api.evaluate(methods, cohort.test, tmp_path / name, jobs=jobs)
    found = [read_json(tmp_path / name / "metrics.json") for name in ("there", "here")]
    times = [content.pop("times") for content in found]
    assert times[0].keys() == times[1].keys() == methods.keys() | {"oracle"} and found[0] == found[1]
    here, there = bytes_of(tmp_path / "here"), bytes_of(tmp_path / "there")
    assert {name for name in here if here[name] != there[name]} == {"metrics.json"}
    people = one_row_each(cohort, (Diagnosis.AD, Diagnosis.NC))
    said = []
    one = cross_fitted("coarse-ridge", cohort, people, folds=2, device="cpu")
    other = cross_fitted(
        "coarse-ridge", cohort, people, folds=2, device="cpu", jobs=workers, progress=lambda *n: said.append(n)
    )
    assert said == [(0, 2), (1, 2), (2, 2)]
    for direction, means in one.items():
        assert np.array_equal(means, other[direction], equal_nan=True)


def test_a_cluster_that_fails_is_exit_status_2_before_any_work(slurm, dataset, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (slurm.folder / "mode").write_text("refused")
    words = ["prepare", dataset, "out", "--slurm", "--cluster", f"folder={tmp_path / 'shared'}"]
    assert run(*words) == 2
    assert "Error: Slurm: refused the jobs (sbatch: error: " in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    monkeypatch.setenv("PATH", os.defpath)
    began = set(tmp_path.iterdir())
    for verb in (words, ["simulate", "new", "--slurm"], ["evaluate", "p", "--model", "m", "--out", "o", "--slurm"]):
        assert run(*verb) == 2
        assert "Error: Slurm: is not on this machine: there is no sbatch" in capsys.readouterr().err
    assert run("effects", "p", "--out", "o", "--dask", "tcp://127.0.0.1:9", "--cluster", "wait=1s") == 2
    assert "answers within 1s. Remedy: start one" in capsys.readouterr().err
    assert set(tmp_path.iterdir()) == began


def test_prepared_sessions_are_kept_if_the_scheduler_is_killed(dataset, tmp_path):
    out, seen = tmp_path / "out", []
    with dask(tmp_path / "dask") as scheduler:
        scheduler.worker()

        def progress(done, total):
            seen.append(done)
            if done == 2:
                scheduler.scheduler.kill()

        workers = Workers(dask=scheduler.address, cluster=Cluster(wait="2m"))
        with pytest.raises(InputError, match="the connection to it was lost") as caught:
            prepare_cohort(bids(dataset), out, PrepareOptions(), workers, progress=progress)
    assert f"The work of this run is kept in {out}.partial" in " ".join(caught.value.__notes__)
    prepare_cohort(bids(dataset), out, PrepareOptions(), Workers(), progress=lambda done, total: seen.append(done))
    assert seen[:3] == [0, 1, 2] and seen[seen.index(2) + 1] >= 2  # the second run begins with what is made
    prepare_cohort(bids(dataset), tmp_path / "alone", PrepareOptions(), Workers())
    check_equal(out, tmp_path / "alone")
