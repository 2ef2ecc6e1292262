"""pdsynth as a BIDS App: its words, both levels, the validator, and runs that share an output folder."""

from __future__ import annotations

import json
import shutil
import stat
import sys
from contextlib import ExitStack
from pathlib import Path

import pandas as pd
import pytest

from fixture_trees import copy_source_model
from pdsynth import __version__
from pdsynth.cli import bids_app, main
from pdsynth.cohorts.simulated.cohort import simulate
from pdsynth.outcomes import TABLE
from pdsynth.workspace import workspace

QUIET = "--skip-bids-validator"


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return copy_source_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    """Four simulated participants: the first lacks fMRI, the second dMRI."""
    root = simulate(tmp_path_factory.mktemp("bids") / "study", subjects=4, quick=True)
    shutil.rmtree(root / "sub-sim0000" / "func")
    shutil.rmtree(root / "sub-sim0001" / "dwi")
    return root


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main(["bids-app", *map(str, words)])
    return int(stop.value.code or 0), *capsys.readouterr()


def made(out: Path) -> list[str]:
    table = pd.read_csv(out / TABLE, sep="\t", dtype=str, keep_default_na=False)
    return sorted(table.loc[table["status"] == "made", "participant_id"])


def test_participants_are_filled_in_one_by_one_and_the_group_is_reported(dataset, model, tmp_path, capsys) -> None:
    out = tmp_path / "out"
    options = ("--model", model, "--n_cpus", 1, QUIET, "--device", "cpu")
    assert run(capsys, dataset, out, "group", *options)[0] == 2  # nothing is there to add the pages to
    status, _, err = run(capsys, dataset, out, "participant", "--participant_label", "sim0000", "sim0002", *options)
    assert status == 0, err
    assert made(out) == ["sub-sim0000"]
    assert [path.name for path in out.glob("sub-*")] == ["sub-sim0000"]
    status, said, err = run(capsys, dataset, out, "participant", "--participant-label", "sub-sim0002", *options)
    assert (status, made(out)) == (0, ["sub-sim0000"]), err
    assert "no scan is missing" in said
    status, said, err = run(capsys, dataset, out, "participant", *options)
    assert status == 0 and f"Next: pdsynth bids-app {dataset} {out} group" in said.replace("\n", ""), err
    assert made(out) == ["sub-sim0000", "sub-sim0001"]

    status, said, err = run(capsys, dataset, out, "group", *options)
    assert status == 0, err
    scores = json.loads((out / "group" / "results" / "metrics.json").read_text())
    assert (scores["n_participants"], scores["simulated"]) == (2, True)
    assert "copy-source" in scores["methods"]
    assert str(out / "group" / "results" / "report.html") in said.replace("\n", "")
    for page in ("results/report.html", "prepared/quality.html"):
        assert "SIMULATED" in (out / "group" / page).read_text()
    first = (out / "group" / "results" / "metrics.tsv").read_bytes()
    assert run(capsys, dataset, out, "group", *options)[0] == 0  # the pages are made anew
    assert (out / "group" / "results" / "metrics.tsv").read_bytes() == first
    assert run(capsys, dataset, out, "participant", *options)[0] == 0  # and the folder can still be extended
    assert made(out) == ["sub-sim0000", "sub-sim0001"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("participant", "--participant-label", "nobody"), "has no scan of sub-nobody"),
        (("group", "--participant-label", "sim0000"), "not an option of the level group"),
        (("participant", "--participant-label"), "--participant-label needs a label, such as 01"),
        (("subject",), "Invalid value"),
    ],
)
def test_a_wrong_word_is_named_and_nothing_is_written(words, message, dataset, model, tmp_path, capsys) -> None:
    status, _, err = run(capsys, dataset, tmp_path / "out", *words, QUIET)
    assert status == 2
    assert message in " ".join(err.split())
    assert not any(tmp_path.iterdir())


def test_the_version_is_printed_without_a_dataset(capsys) -> None:
    assert run(capsys, "--version") == (0, f"pdsynth {__version__}\n", "")


def test_a_run_waits_for_its_turn(tmp_path, monkeypatch, capsys) -> None:
    out, written = tmp_path / "out", []

    def write() -> None:
        with workspace(out):
            written.append(out)

    with ExitStack() as other_run:
        other_run.enter_context(workspace(out))
        monkeypatch.setattr(bids_app.time, "sleep", lambda _: other_run.close())
        bids_app._in_turn(out, write)
    assert written == [out]
    assert capsys.readouterr().err.count("waits for its turn") == 1


def validator(folder: Path, *issues: dict[str, str]) -> str:
    """A program that finds these issues in every dataset."""
    program = folder / "validator"
    content = json.dumps({"issues": {"issues": list(issues)}})
    program.write_text(f"#!{sys.executable}\nprint({content!r})\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return str(program)


def test_an_error_of_the_validator_stops_the_run_unless_it_is_skipped(dataset, tmp_path, monkeypatch, capsys) -> None:
    error = {"severity": "error", "code": "BAD_NAME", "location": "/sub-1/x.nii"}
    warning = {"severity": "warning", "code": "NO_AUTHORS"}
    complete = ("participant", "--participant-label", "sim0002")
    monkeypatch.setattr(bids_app, "VALIDATOR", validator(tmp_path, warning, *[error] * 5))
    status, _, err = run(capsys, dataset, tmp_path / "out", *complete)
    assert status == 2
    assert "BAD_NAME (/sub-1/x.nii)" in err and "and 2 more" in err and "NO_AUTHORS" not in err
    assert run(capsys, dataset, tmp_path / "out", *complete, QUIET)[0] == 0
    monkeypatch.setattr(bids_app, "VALIDATOR", validator(tmp_path, warning))
    assert run(capsys, dataset, tmp_path / "out", *complete)[0] == 0
    monkeypatch.setattr(bids_app, "VALIDATOR", str(tmp_path / "absent"))
    status, said, _ = run(capsys, dataset, tmp_path / "out", *complete)
    assert status == 0 and "is not installed, so the dataset was not validated" in said
