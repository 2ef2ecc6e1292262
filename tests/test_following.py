"""The next command: right for what a study holds, and never one that was just given."""

from __future__ import annotations

import re
import shlex
import shutil
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from fixture_trees import copy_source_model, write_dwi, write_scan
from odd_scans import NATIVE, head, image, put
from pdsynth.cli import console, main
from pdsynth.cli.following import (
    HALVES,
    after_cohort,
    after_model,
    after_prepared,
    free,
    to_measure,
    to_prepare,
    to_train,
)
from pdsynth.cohorts import read
from pdsynth.data.pairs import Pairs
from pdsynth.files import read_json, write_json
from pdsynth.folders import making
from pdsynth.outcomes import REPAIR, read_outcomes, round_trips, write_outcomes

ROOT = Path(__file__).parents[1]
BOLD, DWI = "sub-{0}/func/sub-{0}_task-rest_bold.nii.gz", "sub-{0}/dwi/sub-{0}_dwi.nii.gz"


def study(root: Path, fmri: str = "", dmri: str = "") -> Path:
    """A study in which the participants of two texts, such as "ab", have fMRI and dMRI."""
    for name in fmri:
        write_scan(root / BOLD.format(name))
    for name in dmri:
        write_dwi(root / DWI.format(name))
    return root


def test_a_dataset_leads_to_synthesis_or_to_the_measurement_of_pairs(tmp_path: Path) -> None:
    single = study(tmp_path / "single", fmri="ab", dmri="c")
    words = "synthesize", "default", str(single), "synthesised"
    assert after_cohort(read(single)) == ("Missing: 3 scans, which synthesis fills in", *words)
    pairs = study(tmp_path / "pairs", fmri="ab", dmri="ab")
    assert after_cohort(read(pairs))[1:] == ("prepare", str(pairs), "prepared", "--split", HALVES)
    one = study(tmp_path / "one", fmri="a", dmri="a")
    assert after_cohort(read(one)) == after_cohort_of_one(one / BOLD.format("a"))


def after_cohort_of_one(scan: Path) -> tuple[str, ...]:
    message = "One pair is too few to measure a model. Synthesise its dMRI, and compare by eye with the real one"
    return message, "synthesize", "default", str(scan), "synthesised", "--to", "dmri"


def test_the_next_command_reads_the_dataset_as_this_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = study(tmp_path / "study", fmri="a")
    words = ["inspect", str(dataset), "--select", "task-rest", "--diagnosis-map=1=NC", "--layout", "bids", "--files"]
    monkeypatch.setattr(console, "WORDS", words)
    assert after_cohort(read(dataset))[-4:] == ("--select", "task-rest", "--layout", "bids")
    assert to_prepare(dataset)[-5:] == ("--select", "task-rest", "--diagnosis-map=1=NC", "--layout", "bids")


def test_refused_scans_are_repaired_or_replaced(tmp_path: Path) -> None:
    half = study(tmp_path / "half", fmri="a", dmri="a")
    (half / DWI.format("a")).write_bytes(b"")
    message, *words = after_cohort(read(half))
    assert "All other scans were refused" in message and words[-1] == "--replace-refused"
    (half / BOLD.format("a")).write_bytes(b"")
    assert after_cohort(read(half))[1:] == ("inspect", str(half))


def with_table(pairs: Pairs, **columns: object) -> Pairs:
    return Pairs(pairs.root, pairs.table.assign(**columns), pairs.manifest, pairs.volumes)


def test_a_prepared_folder_leads_to_what_its_scans_permit(prepared: Pairs) -> None:
    root = str(prepared.root)
    assert after_prepared(prepared)[1:] == ("evaluate", root, "--model", "default", "--out", "results")
    untested = with_table(prepared, split="train")
    assert after_prepared(untested)[1:] == ("train", root, "run", "--recipe", "pds")
    halves = np.where(np.arange(10) < 5, "fmri", "dmri")
    singles = with_table(untested, available=halves)  # five of each modality, none in the test split
    assert after_prepared(singles)[1:] == ("adapt", "default", root, "adapted")
    few = with_table(prepared, available=halves)  # one of five with dMRI is outside the test split
    assert after_prepared(few, "study")[1:] == ("synthesize", "default", "study", "synthesised")
    one = prepared.where(np.arange(10) == 0)
    assert after_prepared(one, "study") == after_cohort_of_one(Path("study", one.table["fmri_path"].iloc[0]))


def test_a_model_is_scored_or_used_where_too_few_can_score_it(prepared: Pairs) -> None:
    model = Path("run/adapted")
    scored = "evaluate", str(prepared.root), "--model", str(model), "--out", "results"
    assert after_model(model, prepared) == scored
    singles = with_table(prepared, available="fmri")
    assert after_model(model, singles) == ("synthesize", str(model), "your-dataset", "synthesised-adapted")


def test_pairs_that_were_prepared_here_are_not_prepared_again(
    tmp_path: Path, prepared: Pairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(console, "WORDS", ["synthesize"])
    shutil.copytree(prepared.root, "prepared")
    dataset, manifest = Path("study"), Path("prepared/manifest.json")
    again = "prepare", "study", "prepared-2", "--split", HALVES
    assert to_measure(dataset, Path("out"), "run/model") == again  # pairs of another dataset
    root = {"root": sha256(str(dataset.resolve()).encode()).hexdigest()[:16]}
    entries = read_json(manifest) | {"made_by": "pdsynth"}
    entries["parameters"] = entries.get("parameters", {}) | root
    write_json(manifest, entries)
    scored = "evaluate", "prepared", "--model", "run/model", "--out", "results"
    assert to_measure(dataset, Path("out"), "run/model") == scored
    write_json(manifest, entries | {"format": 99})  # of a later pdsynth
    assert to_measure(dataset, Path("out"), "run/model") == again


def test_a_command_names_an_output_folder_that_is_free(
    tmp_path: Path, prepared: Pairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert after_model(Path("run"), prepared)[-1] == free("results") == "results"
    (tmp_path / "results").mkdir()
    assert after_model(Path("run"), prepared)[-1] == after_prepared(prepared)[-1] == "results-2"
    (tmp_path / "results-2").write_text("a file")
    (tmp_path / "results-3").symlink_to("nowhere")
    assert free("results") == "results-4"
    with pytest.raises(KeyboardInterrupt), making(tmp_path / "run", resume="by words") as work:
        (work.folder / "manifest.json").write_text("{}")  # the work of a stopped run
        raise KeyboardInterrupt
    assert not (tmp_path / "run").exists() and to_train() == ("train", "prepared", "run-2", "--recipe", "pds")
    (tmp_path / "prepared").mkdir()
    assert to_prepare(Path("study"))[:3] == ("prepare", "study", "prepared-2")
    for number in ("", "-2"):
        (tmp_path / f"synthesised{number}").mkdir()
    assert after_cohort(read(study(tmp_path / "study", fmri="ab")))[-1] == "synthesised-3"


def test_only_volumes_with_a_round_trip_are_counted(tmp_path: Path) -> None:
    table = tmp_path / "synthesised.tsv"
    row = {"participant_id": "sub-a", "source": "a.nii.gz", "target": "dmri", "status": "made", "reason": ""}
    others = [{"participant_id": "sub-b", "round_trip_db": ""}, {"participant_id": "sub-c", "round_trip_db": "23.98"}]
    write_outcomes(table, [row | {"session_id": "", "round_trip_db": "24.11"}])
    assert len(round_trips(read_outcomes(table))) == 1
    write_outcomes(table, [row | {"session_id": ""} | other for other in others])
    assert len(round_trips(read_outcomes(table))) == 2


def test_volumes_are_listed_from_the_lowest_round_trip(tmp_path: Path) -> None:
    table = tmp_path / "synthesised.tsv"
    row = {"session_id": "", "target": "dmri", "status": "made", "reason": ""}
    values = {"a": "22.99", "b": "23", "c": "", "d": "19.5"}
    write_outcomes(
        table, [row | {"participant_id": n, "source": f"{n}.nii", "round_trip_db": v} for n, v in values.items()]
    )
    assert round_trips(read_outcomes(table)) == [("d.nii", 19.5), ("a.nii", 22.99), ("b.nii", 23.0)]


def test_pages_and_commands_agree_on_the_split() -> None:
    pages = [ROOT / "README.md", ROOT / "docs/tutorial.md", ROOT / "docs/how-to/measure.md"]
    assert all(f"prepared --split {HALVES}" in page.read_text() for page in pages)


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    captured = capsys.readouterr()
    return int(stop.value.code or 0), captured.out, captured.err


def following(out: str) -> list[str]:
    (command,) = re.findall(r"^Next: pdsynth (.+)$", out, re.M)
    return shlex.split(command)


def test_a_study_of_single_scans_is_not_led_in_a_circle(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only fMRI was scanned: inspect, synthesize and prepare; then their outputs are taken for a study."""
    root, made, prepared = (tmp_path / name for name in ("study", "synthesised", "prepared"))
    put(root / BOLD.format("a"), image(np.stack([head(1).data] * 3, -1).astype(np.int16), NATIVE.affine))
    assert following(run(capsys, "inspect", root)[1]) == ["synthesize", "default", str(root), "synthesised"]
    model = copy_source_model(tmp_path / "model")
    status, out, err = run(capsys, "synthesize", model, root, made, "--jobs", 1, "--device", "cpu")
    assert status == 0, err
    assert "round_trip_db" in out and "look first" not in out  # one volume has no order
    assert "Check the source scan" not in err  # no limit is known for this model
    monkeypatch.setattr("pdsynth.outcomes.least_round_trip", lambda model_sha256: 1000)
    again = " ".join(run(capsys, "synthesize", model, root, made, "--jobs", 1, "--device", "cpu")[2].split())
    assert "1 volume with round_trip_db below 1000: the lowest is " in again
    assert f"Check the source scan. {REPAIR}" in again
    assert following(out) == ["report", str(made), "--sources", str(root)]
    assert following(run(capsys, *following(out))[1]) == ["doctor", "--privacy", str(made)]
    assert "Ids of participants" in run(capsys, "doctor", "--privacy", made)[1]  # nothing is found, nothing follows
    status, out, err = run(capsys, "prepare", root, prepared, "--grid-mm", 8, "--jobs", 1)
    assert status == 0, err
    assert "no participant has both scans: evaluate needs 2 of them" in err and "adapt can also learn" in err
    assert following(out) == ["synthesize", "default", str(root), "synthesised"]
    assert following(run(capsys, "report", prepared)[1])[0] == "synthesize"
    status, _, err = run(capsys, "inspect", made)
    assert status == 2 and "holds synthetic volumes of pdsynth" in err and "the folder of the study itself" in err
    status, _, err = run(capsys, "inspect", prepared)
    assert status == 2 and "was written by `pdsynth prepare` and is not a study" in err
