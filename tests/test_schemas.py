"""A file that is read back fits its schema, or is refused with its name, the entry or cell, and the remedy."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import pytest
from pydantic import BaseModel

from pdsynth import manifest
from pdsynth.data.pairs import Pairs
from pdsynth.data.shards import FOLDER
from pdsynth.files import read_json, write_json
from pdsynth.journal import read_cost
from pdsynth.options import TrainOptions
from pdsynth.outcomes import COLUMNS, doubts, not_made, read_outcomes, write_outcomes
from pdsynth.schemas import LONGEST, Affine, Number, Shape, check, read_object, read_table
from pdsynth.training import chosen_precision
from pdsynth.types import InputError, Modality


class Inner(BaseModel):
    n: int


class Outer(BaseModel):
    name: str
    inner: dict[str, Inner] = {}
    ratio: float = 1.0


def refusal(function: Any, *arguments: Any, **options: Any) -> str:
    """The message of the InputError, which is one line with a remedy."""
    with pytest.raises(InputError) as raised:
        function(*arguments, **options)
    message = str(raised.value)
    assert "\n" not in message and message.endswith("Remedy: make it again.")
    return message


@pytest.mark.parametrize(
    ("content", "entry"),
    [
        ({}, "name (Field required)"),
        ({"name": 5}, "name (Input should be a valid string)"),
        ({"name": "a", "inner": {"x": {}}}, "inner.x.n (Field required)"),
        ({"name": "a", "inner": {"x": {"n": "1"}}}, "inner.x.n (Input should be a valid integer)"),
        ({"name": "a", "inner": {"x": {"n": True}}}, "inner.x.n (Input should be a valid integer)"),
        ({"name": "a", "inner": [1]}, "inner (Input should be a valid dictionary)"),
        ({"name": "a", "ratio": "1"}, "ratio (Input should be a valid number)"),
    ],
)
def test_an_entry_that_does_not_fit_is_named(tmp_path: Path, content: Any, entry: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content))
    assert refusal(read_object, path, Outer, "make it again").startswith(f"{path}: has an invalid entry {entry}. ")


def test_what_fits_is_returned_as_it_is_with_further_entries(tmp_path: Path) -> None:
    content = {"name": "a", "inner": {"x": {"n": 1, "more": [1]}}, "ratio": 2, "other": None}
    (tmp_path / "a.json").write_text(json.dumps(content))
    assert read_object(tmp_path / "a.json", Outer, "make it again") == content


@pytest.mark.parametrize(("text", "problem"), [("", "damaged"), ("[1]", "no entries"), ("{" * 10**5, "damaged")])
def test_what_is_no_object_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "a.json").write_text(text)
    assert problem in refusal(read_object, tmp_path / "a.json", Outer, "make it again")
    assert "a.json: is missing" in refusal(read_object, tmp_path / "b" / "a.json", Outer, "make it again")


def test_a_file_that_would_fill_the_memory_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "a.json").open("wb") as file:
        file.truncate(LONGEST + 1)
    for read, schema in ((read_object, Outer), (read_table, {"n": int})):
        assert "is larger than 256 MiB" in refusal(read, tmp_path / "a.json", schema, "make it again")


@pytest.mark.parametrize(
    ("cell", "reason"),
    [("x", "unable to parse"), ("", "unable to parse"), ("nan", "finite number"), ("1e400", "finite number")],
)
def test_a_cell_that_does_not_fit_is_named_by_line_and_column(tmp_path: Path, cell: str, reason: str) -> None:
    path = tmp_path / "a.tsv"
    path.write_text(f"name\tage\nb\tn/a\nc\t{cell}\n")
    message = refusal(read_table, path, {"name": str, "age": Number}, "make it again")
    assert message.startswith(f"{path}: has {cell!r} in line 3, column age (") and reason in message


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is not a table"),
        ("name\nb\n", "lacks the columns age"),
        ("name\tage\nb\t1\t2\n", "more cells in a line than columns"),
        ("name\tage\nb\t1\nc\t1\t2\t3\n", "is not a table"),
        ("name\tage\nb\t1\nc\n", "has '' in line 3, column age"),
        ('name\tage\n"b\t1\n', "is not a table"),
        ("name\tage\tkind\nb\t1\tz\n", "has 'z' in line 2, column kind"),
    ],
)
def test_what_is_no_such_table_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "a.tsv").write_text(text)
    kinds = {"name": str, "age": int}
    assert problem in refusal(read_table, tmp_path / "a.tsv", kinds, "make it again", others=Literal["y"])


def test_a_table_that_fits_keeps_texts_and_numbers(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("name\tage\tmore\n007\t1.5\tx\n1e5\tn/a\t\n")
    table = read_table(tmp_path / "a.tsv", {"name": str, "age": Number}, "", text=["name"], na_values=["n/a"])
    assert table["name"].tolist() == ["007", "1e5"] and table["age"].tolist()[0] == 1.5
    assert table["age"].isna().tolist() == [False, True] and table["more"].tolist() == ["x", ""]


@pytest.mark.parametrize(
    ("schema", "content"),
    [
        (Shape, [8, 8]),
        (Shape, [8, 8, 7]),
        (Shape, [8, 8, 10**6]),
        (Affine, [[0.0] * 4] * 4),
        (Affine, [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]]),
        (Affine, [[1, 1e9, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]),
        (Affine, [[1, 0, 0, float("nan")], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]),
    ],
)
def test_a_grid_that_no_volume_has(schema: Any, content: Any) -> None:
    refusal(check, content, schema, Path("a.json"), "make it again")


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("seed", "a"),
        ("parameters", []),
        ("parameters", {"made_as": 1}),
        ("parameters", {"begun_as": None}),
        ("parameters", {"terms": "5m"}),
        ("files", {"a": 1}),
        ("added", {}),
        ("notes", "a"),
        ("stamps", {"a": [{"size": 1}]}),
        ("inputs", None),
    ],
)
def test_an_edited_manifest_of_pdsynth_is_refused_and_a_foreign_one_is_not_ours(
    tmp_path: Path, entry: str, value: Any
) -> None:
    entries = manifest.begin("evaluate", seed=1)
    write_json(tmp_path / manifest.NAME, entries | {entry: value})
    with pytest.raises(InputError, match=rf"manifest\.json: has an invalid entry {entry}.*Remedy: restore it"):
        manifest.read(tmp_path)
    write_json(tmp_path / manifest.NAME, {"version": "2", entry: value})
    assert not manifest.made_by_pdsynth(manifest.read(tmp_path))


def rewritten(root: Path, name: str, change: Any) -> None:
    """Change a table of a prepared folder."""
    table = pd.read_csv(root / name, sep="\t", dtype=str, keep_default_na=False)
    change(table).to_csv(root / name, sep="\t", index=False)


@pytest.mark.parametrize(
    ("column", "cell", "problem"),
    [
        ("index", "99", r"sub-00\.npy: holds 1 rows, but pairs.tsv names row 99"),
        ("index", "-1", r"pairs\.tsv: has '-1' in line 2, column index"),
        ("dmri_bval", "nan", r"pairs\.tsv: has 'nan' in line 2, column dmri_bval"),
        ("available", "zz", r"pairs\.tsv: has 'zz' in line 2, column available"),
        ("shard", "../../sub-00.npy", r"pairs\.tsv: has '../../sub-00.npy' in line 2, column shard"),
        ("age", "old", r"pairs\.tsv: has 'old' in line 2, column age"),
        ("segment", "first", r"pairs\.tsv: has 'first' in line 2, column segment"),
        ("participant_id", "", r"pairs\.tsv: has '' in line 2, column participant_id"),
    ],
)
def test_a_pair_that_was_edited_by_hand(prepared: Pairs, tmp_path: Path, column: str, cell: str, problem: str) -> None:
    root = Path(shutil.copytree(prepared.root, tmp_path / "prepared"))

    def change(table: pd.DataFrame) -> pd.DataFrame:
        table.loc[0, column] = cell
        return table

    rewritten(root, "pairs.tsv", change)
    with pytest.raises(InputError, match=rf"{problem}.*Remedy: run `pdsynth prepare` again"):
        Pairs.open(root).volume("fmri", 0)


@pytest.mark.parametrize("column", ["site", "shard", "age", "available", "dmri_bval"])
def test_a_column_that_was_removed_is_named(prepared: Pairs, tmp_path: Path, column: str) -> None:
    root = Path(shutil.copytree(prepared.root, tmp_path / "prepared"))
    rewritten(root, "pairs.tsv", lambda table: table.drop(columns=column))
    with pytest.raises(InputError, match=rf"pairs\.tsv: lacks the columns {column}\. Remedy: run"):
        Pairs.open(root)


@pytest.mark.parametrize(
    ("entry", "value", "problem"),
    [
        ("grid_shape", [24, 28], "entry grid_shape"),
        ("grid_affine", [[0] * 4] * 4, "entry grid_affine"),
        ("simulated", "yes", "entry simulated"),
        ("volumes", ["fmri", "anat"], "entry volumes.1"),
        ("volumes", [], "lacks volumes of the pairs"),
        ("shards", {"sub-00.npy": "big"}, "entry shards.sub-00.npy"),
        ("masks_given", -1, "entry masks_given"),
    ],
)
def test_a_prepared_manifest_that_was_edited(
    prepared: Pairs, tmp_path: Path, entry: str, value: Any, problem: str
) -> None:
    root = Path(shutil.copytree(prepared.root, tmp_path / "prepared"))
    write_json(root / manifest.NAME, read_json(root / manifest.NAME) | {entry: value})
    with pytest.raises(InputError, match=rf"manifest\.json: .*{problem}"):
        Pairs.open(root)


@pytest.mark.parametrize("record", [{}, {"steps": {"dmri": []}}])
def test_a_record_without_the_transform_of_a_scan(prepared: Pairs, tmp_path: Path, record: dict[str, Any]) -> None:
    pairs = Pairs.open(Path(shutil.copytree(prepared.root, tmp_path / "prepared")))
    path = (pairs.root / FOLDER / pairs.table["shard"].iloc[0]).with_suffix(".json")
    write_json(path, record)
    with pytest.raises(InputError, match=rf"{path.name}: has no transform of a scan of the kind fmri\. Remedy: run"):
        pairs.transform(Modality.FMRI, 0)


def test_a_table_of_outcomes_keeps_earlier_rows_and_is_refused_without_its_columns(tmp_path: Path) -> None:
    path, row = tmp_path / "synthesised.tsv", dict.fromkeys(COLUMNS, "a")
    write_outcomes(path, [row | {"status": "made"}, row | {"source": "b", "file": "b", "status": "not made"}])
    write_outcomes(path, [row | {"status": "made", "reason": "it is tilted"}])
    found = read_outcomes(path)
    assert found["source"].tolist() == ["a", "b"] and not_made(found) == 1
    assert doubts(found) == [("a", "it is tilted")]
    pd.read_csv(path, sep="\t").drop(columns="status").to_csv(path, sep="\t", index=False)
    with pytest.raises(InputError, match=r"synthesised\.tsv: lacks the columns status\. Remedy: restore it"):
        write_outcomes(path, [row])


@pytest.mark.parametrize(
    ("name", "text", "entry"),
    [
        ("training.json", '{"precision": "32-true", "devices": "two"}', "devices"),
        ("training.json", '{"precision": "fp8"}', "precision"),
        ("cost.json", '{"regression": {"steps": "many", "seconds": 1, "gflop_per_step": 1}}', "regression.steps"),
    ],
)
def test_the_files_of_a_run_that_were_edited(tmp_path: Path, name: str, text: str, entry: str) -> None:
    (tmp_path / name).write_text(text)
    options = TrainOptions(resume=True, device="cpu")
    with pytest.raises(InputError, match=rf"{name}: has an invalid entry {entry} .*Remedy: restore it"):
        read_cost(tmp_path) if name == "cost.json" else chosen_precision(tmp_path, options, "cpu")
