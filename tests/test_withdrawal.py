"""After a withdrawal nothing of the participant is left in a folder, all else is as it was, and models are named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pdsynth import folders, manifest, withdrawal
from pdsynth.cli import main
from pdsynth.data.pairs import Pairs
from pdsynth.files import write_json
from pdsynth.imaging.nifti import SyntheticMark, Volume
from pdsynth.missing import DESCRIPTION
from pdsynth.outcomes import COLUMNS, write_outcomes
from pdsynth.report.quality import write_quality
from pdsynth.synthesis import Synthesis
from pdsynth.types import Direction, InputError
from pdsynth.withdrawal import Outcome, Use, withdraw

TABLE = "b" * 64  # digest of the gradient table of all scans
PERSON, OTHER = "sub-01", "sub-010"  # the id of one is the beginning of the other's


def tables(root: Path) -> None:
    """quality.tsv and rejected.tsv of a prepared folder; the person and two others have refused files."""
    ids = pd.read_csv(root / "pairs.tsv", sep="\t", dtype=str)["participant_id"]
    rows = [(person, "", "a", m, f"{person}/{m}", *["0.9"] * 5, "") for person in ids for m in ("fmri", "dmri")]
    names = ("participant_id", "session_id", "site", "modality", "path", "coverage", "overlap", "mutual_information")
    quality = pd.DataFrame(rows, columns=[*names, "correlation", "motion_mm", "flag"])
    quality.to_csv(root / "quality.tsv", sep="\t", index=False)
    paths = (f"{PERSON}/func/{PERSON}_task-x_bold.nii.gz", f"{OTHER}/func/a_bold.nii.gz", "01/scan.nii.gz", "010/a.nii")
    rejected = pd.DataFrame({"path": paths, "reason": "is a slab", "remedy": "give a whole head"})
    rejected.to_csv(root / "rejected.tsv", sep="\t", index=False)


@pytest.fixture
def folder(make_prepared: Callable[..., Pairs], tmp_path: Path) -> Path:
    """A complete prepared folder of ten participants, one of whom has the id `OTHER`."""
    source = make_prepared(10).root
    for path in sorted(source.rglob("*")):
        if path.is_file() and path.suffix in (".tsv", ".json"):
            path.write_text(path.read_text().replace("sub-09", OTHER))
    for path in (source / "sessions").glob("sub-09*"):
        path.rename(path.with_name(path.name.replace("sub-09", OTHER)))
    root = shutil.copytree(source, tmp_path / "prepared")
    for path in (root / "sessions").glob("*.json"):  # all scans have one protocol
        record = json.loads(path.read_text())
        record["inputs"][f"{path.stem}/dmri.bval"] = {"sha256": TABLE}
        path.write_text(json.dumps(record))
    tables(root)
    entries = manifest.begin("prepare", seed=0) | json.loads((root / "manifest.json").read_text())
    outputs = dict.fromkeys(("pairs.tsv", "splits.tsv", "rejected.tsv", "quality.tsv"), "")
    write_json(root / "manifest.json", entries | {"masks_given": 0, "kept": [PERSON], "outputs": {}})
    write_quality(root)
    write_json(root / "manifest.json", manifest.read(root) | {"outputs": outputs})
    folders.seal(root)
    entries = manifest.read(root)
    entries["outputs"] = {name: entries["files"][name] for name in outputs}
    write_json(root / "manifest.json", entries)
    folders.seal(root)
    return root


@pytest.fixture
def synthesised(tmp_path: Path) -> Path:
    """A folder of volumes synthesised from two participants, as `synthesize` writes it."""
    out, rows, stamps = tmp_path / "synthesised", [], {}
    for number, person in enumerate((PERSON, OTHER)):
        source = Path(f"{person}_bold.nii.gz")
        digest = f"{number}" * 64
        mark = SyntheticMark(Direction.FMRI_TO_DMRI, [source.name], "9" * 64, 0, "1", source_sha256=[digest, TABLE])
        volume = Volume(np.full((8, 8, 8), 0.1 + number), np.eye(4))
        (path,) = Synthesis(volume, None, mark, mark, source).save(out, person)
        name = path.relative_to(out).as_posix()
        values = (person, "", f"{person}/func/{source}", "dmri", "made", name, "0", "25.0", "", "")
        rows.append(dict(zip(COLUMNS, values, strict=True)))
        stamps[name] = [{"size": 1, "mtime_ns": 1, "ctime_ns": None, "inode": 1, "sha256": digest}]
    refused = dict.fromkeys(COLUMNS, "") | {"source": f"{PERSON}/func/{PERSON}_run-2_bold.nii.gz", "status": "refused"}
    write_outcomes(out / "synthesised.tsv", [*rows, refused])
    write_json(out / "dataset_description.json", DESCRIPTION)
    entries = manifest.begin("synthesize", seed=0, made_as={"version": "1"})
    inputs = {f"{PERSON}_bold.nii.gz": "0" * 64, "model": "9" * 64}
    write_json(out / "manifest.json", entries | {"stamps": stamps, "inputs": inputs})
    (out / "methods.md").write_text("old")
    folders.seal(out)
    return out


def model(folder: Path, **card: object) -> Path:
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"")
    write_json(folder / "config.json", {"method": "zeros", "card": card})
    return folder


def digests(root: Path, person: str) -> list[str]:
    record = json.loads((root / "sessions" / f"{person}.json").read_text())
    return [entry["sha256"] for entry in record["inputs"].values() if entry["sha256"] != TABLE]


def contents(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def run(*words: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    return int(stop.value.code or 0)


def test_nothing_of_the_person_is_left_in_a_prepared_folder_and_the_rest_is_as_it_was(folder: Path) -> None:
    theirs = digests(folder, PERSON)
    volumes = np.load(folder / "sessions" / f"{PERSON}.npy")
    before, pairs = contents(folder), Pairs.open(folder)
    expected = {row: pairs.volume("fmri", row) for row in range(len(pairs))}
    people = pairs.table["participant_id"].tolist()
    assert withdraw("01", [folder]).outcomes == {folder: Outcome.WITHDRAWN}
    after = contents(folder)
    searched = b"\0".join([*map(str.encode, after), *after.values()])
    for trace in (*theirs, *(digest[:16] for digest in theirs)):
        assert trace.encode() not in searched
    assert volumes[0]["fmri"].tobytes() not in searched and volumes[0]["fmri_brain"].shape == (24, 28, 24)
    assert PERSON.encode() not in searched.replace(OTHER.encode(), b"")
    assert b"01/scan.nii.gz" not in searched.replace(b"sub-", b"")
    assert set(before) - set(after) == {f"sessions/{PERSON}.npy", f"sessions/{PERSON}.json"}
    for name in set(after) - {"manifest.json", "quality.html"}:
        lines = before[name].splitlines(keepends=True)
        kept = [line for line in lines if PERSON.encode() not in line.replace(OTHER.encode(), b"")]
        kept = [line for line in kept if not line.startswith(b"01/")]
        assert after[name] == (b"".join(kept) if name.endswith(".tsv") else before[name])
    reopened = Pairs.open(folder)
    assert reopened.table["participant_id"].tolist() == [person for person in people if person != PERSON]
    left = [row for row, person in enumerate(people) if person != PERSON]
    for row, earlier in enumerate(left):
        np.testing.assert_array_equal(reopened.volume("fmri", row), expected[earlier])
    assert folders.refuse_foreign(folder)  # the inventory is that of the new files
    assert manifest.read(folder)["added"][0]["command"] == "withdraw"


def test_nothing_of_the_person_is_left_beside_other_synthesised_scans(synthesised: Path) -> None:
    before = contents(synthesised)
    withdraw(PERSON, [synthesised])
    after = contents(synthesised)
    searched = b"\0".join([*map(str.encode, after), *after.values()])
    assert PERSON.encode() not in searched.replace(OTHER.encode(), b"") and b"0" * 64 not in searched
    others = {name for name in before if name.startswith(OTHER)}
    assert len(others) == 2 and {name: after[name] for name in others} == {name: before[name] for name in others}
    table = pd.read_csv(synthesised / "synthesised.tsv", sep="\t", dtype=str)
    assert table["participant_id"].tolist() == [OTHER]
    entries = manifest.read(synthesised)
    assert entries["inputs"] == {"model": "9" * 64} and [OTHER in name for name in entries["stamps"]] == [True]
    assert "fMRI of 1 participant (1 scan)." in (synthesised / "methods.md").read_text()


def test_an_unknown_participant_is_an_error_and_changes_nothing(
    folder: Path, synthesised: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(folder.parent)
    assert run("withdraw", "sub-0", folder, synthesised) == 2
    assert "sub-0: is in none of" in capsys.readouterr().err
    assert contents(folder.parent) == before


def test_a_stopped_withdrawal_leaves_the_folder_whole(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is stopped at each of its writes in turn, as by a kill: no cleaning up is done."""
    before, whole = contents(folder), withdrawal.write_table

    class KillError(BaseException):
        pass

    for number in range(4):
        left = iter(range(number))

        def killed(path: Path, table: pd.DataFrame, left=left) -> None:
            if next(left, None) is None:
                raise KillError
            whole(path, table)

        monkeypatch.setattr(withdrawal, "write_table", killed)
        monkeypatch.setattr(folders, "discard", lambda new: None)
        with pytest.raises(KillError):
            withdraw(PERSON, [folder])
        monkeypatch.undo()
        assert contents(folder) == before
    assert withdraw(PERSON, [folder]).outcomes == {folder: Outcome.WITHDRAWN}
    assert len(Pairs.open(folder)) == 9 and not folder.with_name("prepared.partial").exists()


def test_models_are_named_by_the_digests_of_the_scans(folder: Path, tmp_path: Path) -> None:
    theirs, others = digests(folder, PERSON), digests(folder, OTHER)
    known = [theirs[0][:16], others[0][:16]]
    models = [
        model(tmp_path / "trained", scans_sha256=known),
        model(tmp_path / "both", scans_sha256=known, calibration={"scans_sha256": [theirs[1][:16]]}),
        model(tmp_path / "calibrated", scans_sha256=known[1:], calibration={"scans_sha256": known}),
        model(tmp_path / "other", scans_sha256=known[1:]),
        model(tmp_path / "older"),
    ]
    found = withdraw(PERSON, [folder], models).uses
    assert [found[str(path)] for path in models] == [
        [Use.TRAINED],
        [Use.TRAINED, Use.CALIBRATED],
        [Use.CALIBRATED],
        [Use.NONE],
        [Use.UNKNOWN],
    ]


def test_results_are_named_and_not_changed(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results, effects, apart = (tmp_path / name for name in ("results", "effects", "apart"))
    for root, inputs in ((results, []), (effects, [folder]), (apart, [])):
        root.mkdir()
        write_json(root / "manifest.json", manifest.begin("evaluate", inputs=inputs))
        (root / "metrics.tsv").write_text(f"participant_id\n{PERSON if root is results else OTHER}\n")
        folders.seal(root)
    before = {root: contents(root) for root in (results, effects, apart)}
    assert run("withdraw", PERSON, folder, results, effects, apart) == 2
    out, err = capsys.readouterr()
    assert f"{results}: holds results that were computed with {PERSON}, as 2 of the folders do" in err
    assert [out.count(str(outcome)) for outcome in Outcome] == [1, 1, 2]
    assert {root: contents(root) for root in before} == before
    assert PERSON not in Pairs.open(folder).table["participant_id"].tolist()


def test_what_cannot_be_done_is_refused_before_any_change(folder: Path, synthesised: Path) -> None:
    before = contents(folder.parent)
    (synthesised / "note.txt").write_text("ours")
    with pytest.raises(InputError, match=r"note\.txt: was not written by pdsynth"):
        withdraw(PERSON, [folder, synthesised])
    (synthesised / "note.txt").unlink()
    table = pd.read_csv(folder / "rejected.tsv", sep="\t", dtype=str)
    table.loc[1, "reason"] = f"holds the same image as {PERSON}/fmri"
    table.to_csv(folder / "rejected.tsv", sep="\t", index=False)
    entries = manifest.read(folder)
    entries["outputs"].pop("rejected.tsv")
    write_json(folder / "manifest.json", entries)
    folders.seal(folder)
    now = contents(folder)
    with pytest.raises(InputError, match=r"rejected\.tsv: has sub-01(/fmri)?, which is also another participant's"):
        withdraw(PERSON, [folder])
    assert contents(folder) == now and contents(synthesised) == {
        name.removeprefix("synthesised/"): data for name, data in before.items() if name.startswith("synthesised/")
    }


def test_a_table_without_rows_keeps_its_columns(tmp_path: Path) -> None:
    path = tmp_path / "rejected.tsv"
    path.write_text("path\treason\tremedy\n")
    withdrawal._keep_rows(path, lambda row: True)
    assert path.read_text() == "path\treason\tremedy\n"
    path.write_text("path\treason\nsub-1\tx\n")
    withdrawal._keep_rows(path, lambda row: row["path"] == "sub-1")
    assert path.read_text() == "path\treason\n"


def test_the_last_participant_of_a_folder_is_not_taken_out(synthesised: Path) -> None:
    withdraw(OTHER, [synthesised])
    with pytest.raises(InputError, match="holds no participant besides sub-01") as error:
        withdraw(PERSON, [synthesised])
    assert error.value.remedy == "remove the folder yourself"


@pytest.mark.parametrize(
    ("participant", "path", "owned"),
    [
        ("sub-002S0413", "002_S_0413/Resting/002_S_0413_a.nii", True),
        ("sub-002S0413", "002_S_04131/Resting/a.nii", False),
        ("sub-OAS30001", "OAS30001_MR_d0129/func1/a.nii.gz", True),
        ("sub-1", "sub-1/ses-2/func/a_bold.nii.gz", True),
        ("sub-1", "sub-2/ses-1/func/sub-2_ses-1_run-1_bold.nii.gz", False),
        ("sub-1", "sub-10/func/sub-10_bold.nii.gz", False),
        ("sub-P01", "hospital/P-01/v1/rest.nii.gz", True),
    ],
)
def test_a_refused_file_is_of_whom_its_path_names(participant: str, path: str, owned: bool) -> None:
    assert withdrawal._Person(participant, set(), set()).owns(path) is owned
