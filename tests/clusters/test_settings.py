"""The settings of a cluster, in pdsynth.yaml and on the command line: what does not fit is refused and named."""

from __future__ import annotations

import logging
import re

import pytest

from pdsynth.cli.options import Where
from pdsynth.clusters.settings import Cluster, LostTaskError, Patience, cluster_settings, refuse_lost
from pdsynth.types import InputError

FILE = """
cluster:
  partition: long
  account: lab
  memory: 16GB
  setup: ["module load python"]
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def test_the_file_is_read_and_the_options_come_before_it(here):
    assert cluster_settings() == Cluster(memory="8GB", time="12h", wait="1m")
    (here / "pdsynth.yaml").write_text(FILE)
    found = cluster_settings(["memory=32GB", "wait=2h", "setup=a", "setup=b=c"])
    assert found == Cluster(partition="long", account="lab", memory="32GB", wait="2h", setup=["a", "b=c"])
    assert found.patience == 7200
    assert cluster_settings().setup == ["module load python"]
    (here / "pdsynth.yaml").write_text('fmri: "{participant}/rest.nii.gz"')
    assert cluster_settings() == Cluster()


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ("memory=lots", r"--cluster: has an invalid entry memory \(write it such as 8GB\)\. Remedy: "),
        ("memory=0GB", "invalid entry memory"),
        ("time=2 days", r"invalid entry time \('2 days' is not a wall time"),
        ("wait=0", "invalid entry wait"),
        ("partition=long\n#SBATCH --account=x", "invalid entry partition"),
        ("account=a b", "invalid entry account"),
        ("setup=a\nb", r"invalid entry setup.0 \(write one shell command per line\)"),
        ("partitoin=long", r"invalid entry partitoin \(Extra inputs are not permitted\)"),
        ("slurm", r"--cluster slurm has no value\. Write NAME=VALUE"),
    ],
)
def test_what_does_not_fit_is_named(given, problem, here):
    with pytest.raises(ValueError, match=problem):
        cluster_settings([given])


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("cluster: {memory: 16}", r"pdsynth\.yaml: has an invalid entry cluster\.memory \(Input should be a valid str"),
        ("cluster: long", r"pdsynth\.yaml: has an invalid entry cluster"),
        ("cluster:", r"pdsynth\.yaml: has an invalid entry cluster"),
        ("cluster: {setup: module load python}", r"pdsynth\.yaml: has an invalid entry cluster\.setup"),
        ("cluster: {gpus: 2}", r"pdsynth\.yaml: has an invalid entry cluster\.gpus"),
        ("cluster: [", r"pdsynth\.yaml: cannot be read"),
        ("cluster: !!python/object/apply:os.system [true]", r"pdsynth\.yaml: cannot be read"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(content, problem, here):
    (here / "pdsynth.yaml").write_text(content)
    with pytest.raises(InputError, match=problem):
        cluster_settings()


def test_the_settings_of_an_input_are_refused(here, tmp_path):
    """The author of a dataset must not run commands on the cluster of the person who reads it."""
    (here / "pdsynth.yaml").write_text(FILE)
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    for inside in (here, tmp_path, link):
        with pytest.raises(InputError, match=r"pdsynth\.yaml: has settings of a cluster and is in the input"):
            cluster_settings([], [inside])
    assert cluster_settings([], [tmp_path / "elsewhere"]).account == "lab"


def test_a_folder_for_jobs_is_private_and_removed(tmp_path, monkeypatch):
    with Cluster(folder=str(tmp_path / "new" / "shared")).scratch() as folder:
        assert folder.parent == tmp_path / "new" / "shared"
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "a").touch()
    assert list((tmp_path / "new" / "shared").iterdir()) == []
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    with Cluster().scratch() as folder:
        assert folder.parent == tmp_path / "home" / ".cache" / "pdsynth"


def test_a_wait_is_said_once_for_each_reason_and_ends(monkeypatch, caplog):
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    patience = Patience("Slurm", Cluster(wait="30s"))
    for reason in ("2 pending", "2 pending", "1 pending"):
        now[0] += 10
        patience.idles(reason)
    patience.works()
    patience.idles("1 pending")
    now[0] += 30
    patience.idles("1 pending")
    now[0] += 1
    with pytest.raises(InputError, match=r"^Slurm: did nothing for 30s: 1 pending\. Remedy: .*--cluster wait=12h\.$"):
        patience.idles("1 pending")
    said = [record.getMessage() for record in caplog.records]
    assert [re.sub(r".*: ", "", text) for text in said] == ["2 pending.", "1 pending.", "1 pending."]
    assert said[0].startswith("Waiting for Slurm, at most 30s")
    assert all(record.levelno == logging.WARNING for record in caplog.records)


def test_the_pause_between_two_looks_grows_to_a_fifth_of_the_wait():
    patience = Patience("Slurm", Cluster(wait="3s"))
    pauses = [patience.next_pause(ended=False) for _ in range(8)]
    assert pauses == sorted(pauses) and pauses[-1] == 0.6 and pauses[0] < 0.2
    assert patience.next_pause(ended=True) == 0.1
    assert Patience("Slurm", Cluster(wait="12h")).longest_pause == 10


def test_lost_tasks_are_named():
    refuse_lost([], "its job ended")
    with pytest.raises(LostTaskError, match=r"^a: was being processed when its job ended, possibly for lack of memory"):
        refuse_lost(["a"], "its job ended")
    with pytest.raises(LostTaskError, match=r"\(so were 2 others, such as b\)"):
        refuse_lost(["a", "b", "c"], "its job ended")


def test_settings_without_a_cluster_and_two_clusters_are_refused(here):
    assert Where(jobs=3).workers().jobs == 3 and not Where(jobs=3).workers().remote
    with pytest.raises(ValueError, match="Give --slurm or --dask too"):
        Where(cluster=["wait=1m"]).workers()
    with pytest.raises(ValueError, match="Choose one"):
        Where(slurm=True, dask="tcp://127.0.0.1:9").workers()
