"""Tables of participants as labs have them: which rows and cells are read, and which are refused by name."""

from __future__ import annotations

import codecs
import csv
import io
import json
import logging
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fixture_trees import write_scan
from pdsynth.cli import main
from pdsynth.cohorts import read
from pdsynth.cohorts.cells import AGE, SCORE, Date
from pdsynth.cohorts.tables import Column, Table
from pdsynth.types import Diagnosis, InputError

NC, MCI, AD = Diagnosis
SCHEMA = {
    "id": Column(("participant_id",), needed=True, identity=True),
    "age": Column(("age",), AGE),
    "diagnosis": Column(("diagnosis",)),
    "mmse": Column(("mmse",), SCORE),
    "note": Column(("note",)),
    "day": Column(("day",), Date()),
}
HEADER = "participant_id\tage\tsex\tdiagnosis\n"
HOSPITAL = """fmri: "{participant}/rest.nii"
table: patients.csv
columns: {participant: id, diagnosis: dx, age: years}
"""


@pytest.fixture(autouse=True)
def _loud_again() -> Iterator[None]:
    yield
    logging.disable(logging.NOTSET)


def study(root: Path, table: str | bytes, people: tuple[str, ...] = ("sub-01", "sub-02")) -> Path:
    for name in people:
        write_scan(root / name / "func" / f"{name}_task-rest_bold.nii", 2)
    content = table if isinstance(table, bytes) else table.encode()
    (root / "participants.tsv").write_bytes(content)
    return root


def hospital(root: Path, table: str | bytes, people: tuple[str, ...] = ("P1", "P2")) -> Path:
    for name in people:
        write_scan(root / name / "rest.nii", 2)
    (root / "pdsynth.yaml").write_text(HOSPITAL)
    (root / "patients.csv").write_bytes(table if isinstance(table, bytes) else table.encode())
    return root


def found(root: Path) -> list[tuple]:
    return [(p.participant_id, v.diagnosis, v.age) for p, v in read(root)]


def reasons(root: Path) -> list[str]:
    return [r.reason for r in read(root).rejected]


BOTH = [("sub-01", NC, 70), ("sub-02", AD, 71)]
PATIENTS = [("sub-P1", NC, 70.5), ("sub-P2", AD, 71)]


def test_a_row_with_blanks_in_place_of_tabs(tmp_path, capsys) -> None:
    """Input: a row of participants.tsv is written with blanks in place of tabs. Result: refused, the row alone, named
    by its line; its participant has no diagnosis and no age."""
    root = study(tmp_path, f"{HEADER}sub-01\t70\tF\tNC\nsub-02  71 M AD\n")
    with pytest.raises(SystemExit) as stop:
        main(["inspect", str(root), "--json"])
    assert not stop.value.code
    contents = json.loads(capsys.readouterr().out)
    assert contents["diagnoses"] == {"NC": 1, "unknown": 1}
    refused = {row["reason"]: row["remedy"] for row in contents["rejected"]}
    reason = "has rows that were not read, because a row has 1 cell, and the header 4: line 3"
    assert refused[reason] == "separate its cells by tabs, and write n/a for a missing one"
    assert "has no row for the participants sub-02" in refused


def test_stray_quotes_in_tsv(tmp_path) -> None:
    """Input: a note in a TSV file begins with a quote that is not closed, or contains one. Result: read, each row by
    itself, because quotes have no meaning in the TSV of BIDS."""
    table = 'participant_id\tnote\tage\tdiagnosis\nsub-01\t"tall\t70\tNC\nsub-02\t5" scar\t71\tAD\n'
    root = study(tmp_path, table)
    assert found(root) == BOTH and reasons(root) == []


def test_empty_rows(tmp_path) -> None:
    """Input: rows that have only tabs or blanks, as spreadsheets write them below or between the others. Result:
    ignored."""
    root = study(tmp_path, f"\n{HEADER}sub-01\t70\tF\tNC\n\t\t\t\n  \t\t\t\nsub-02\t71\tM\tAD\n\t\t\t\n\n")
    assert found(root) == BOTH and reasons(root) == []


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "cp1252"])
def test_encodings_and_line_endings(tmp_path, encoding, ending) -> None:
    """Input: a table in UTF-8, UTF-16 or UTF-32, with or without a byte order mark, or in Latin-1 or Windows-1252, with
    the line endings of Linux, Windows or an old Mac. Result: read, cell by cell."""
    table = f"{HEADER.replace('sex', 'Größe')}sub-01\t70\t1,6\tNC\nsub-02\t71\tü\tAD\n".replace("\n", ending)
    root = study(tmp_path, table.encode(encoding))
    assert found(root) == BOTH and reasons(root) == []


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"PK\x03\x04rest", "is a spreadsheet or a zip archive, not text"),
        (b"\xd0\xcf\x11\xe0rest", "is a spreadsheet of Excel"),
        (b"\x1f\x8brest", "is compressed"),
        (b"id,dx\0\0,x\0\0\0y", r"is not text \(it contains zero bytes\)"),
        (b"", "it is empty"),
        (b"\n,,\n", "it is empty"),
        (b"<!DOCTYPE html><html>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a pointer to a file that was not fetched"),
        (b"/annex/objects/MD5E-s12--ab.csv", "is a pointer to a file that was not fetched"),
        (b'"id,dx\nP1,1', "has a quote in line 1, its header, that is not closed"),
        (b"Export of 2024\nid,dx,years\n", "has no column id; its columns are Export of 2024"),
    ],
)
def test_a_file_that_is_not_a_table(tmp_path, content, problem) -> None:
    """Input: an Excel file, a zip archive, a web page, a pointer of git-lfs or git-annex or an empty file with the name
    of the table. Result: refused, with its kind and the remedy; the cohort is not read without its table."""
    with pytest.raises(InputError, match=problem) as error:
        read(hospital(tmp_path, content))
    assert error.value.path.name == "patients.csv"


def test_a_table_that_was_not_fetched(tmp_path) -> None:
    """Input: participants.tsv is a link to content that was not fetched. Result: refused; it does not count as
    missing."""
    root = study(tmp_path, "")
    (root / "participants.tsv").unlink()
    (root / "participants.tsv").symlink_to(root / ".git" / "annex" / "objects" / "x")
    with pytest.raises(InputError, match="is a link to a file that is not here"):
        read(root)


def test_a_table_of_another_name(tmp_path) -> None:
    """Input: participants.csv or participants.xlsx in place of participants.tsv. Result: refused, with the name that
    BIDS gives it; the participants have no diagnosis."""
    root = study(tmp_path, "")
    (root / "participants.tsv").rename(root / "participants.xlsx")
    assert found(root) == [("sub-01", None, None), ("sub-02", None, None)]
    assert reasons(root) == ["was not read, because the table of BIDS is participants.tsv"]


@pytest.mark.parametrize(
    ("separator", "name"), [(",", "commas"), (";", "semicolons"), (" ", "blanks"), ("  ", "blanks")]
)
def test_a_tsv_file_without_tabs(tmp_path, separator, name) -> None:
    """Input: participants.tsv with commas, semicolons or blanks between the cells. Result: refused, with the separator
    that it has."""
    with pytest.raises(InputError, match=f"has no column participant_id.*it is separated by {name}"):
        read(study(tmp_path, f"{HEADER}sub-01\t70\tF\tNC\n".replace("\t", separator)))


@pytest.mark.parametrize(
    "table",
    [
        "id,dx,years\nP1,NC,70.5\nP2,AD,71\n",
        "id;dx;years\nP1;NC;70,5\nP2;AD;71\n",
        "id;dx;years;a,b,c,d\nP1;NC;70,5;\nP2;AD;71,0;x\n",
        "id\tdx\tyears\nP1\tNC\t70,5\nP2\tAD\t71\n",
        "sep=;\nid;dx;years\nP1;NC;70,5\nP2;AD;71\n",
        'id,dx,years\nP1,NC,"70,5"\n"P2","AD","71"\n',
        "id,dx,years,,\nP1,NC,70.5,,\nP2,AD,71,,\n,,,,\n",
        "id,dx,years\nP1,NC,70.5,\nP2,AD,71,,,\n",
        '"id","dx","years","note"\n"P1","NC","70.5","two\nlines, and ""quotes"""\n"P2","AD","71",""\n',
        "\n,,\nID , Dx,YEARS\n P1 ,nc, 70.5\n,,\nP2,AD,71\n",
        'note,id,dx,years\n5" scar,P1,NC,70.5\n"a, b",P2,AD,71\n',
        "years,id,dx\n070.50Y,P1,CN\n71 years,P2,Dementia\n",
    ],
)
def test_csv_as_spreadsheets_write_it(tmp_path, table) -> None:
    """Input: a CSV file with commas, semicolons or tabs, decimal commas, trailing separators, empty rows, quoted cells
    with separators, quotes and line breaks, or the line `sep=;` of Excel. Result: read, cell by cell."""
    root = hospital(tmp_path, table)
    assert found(root) == PATIENTS and reasons(root) == []


@pytest.mark.parametrize(
    ("lines", "refused", "problem"),
    [
        ('P1,"tall,NC,70.5\nP2,short,AD,71', [2], "has a quote that is not closed"),
        ('P1,"tall,NC,70.5\nP2,5" scar,AD,71', [2], "has a quote that is not closed"),
        ('P1,"tall,NC,70.5\nP2,end",AD,71', [2, 3], "has a quote that is closed in another row"),
        ("P1,tall,NC,70,5\nP2,short,AD,71", [2], "has 5 cells, and the header 4"),
        ("P1,NC,70.5\nP2,short,AD,71", [2], "has 3 cells, and the header 4"),
    ],
)
def test_rows_of_a_csv_file_that_cannot_be_read(tmp_path, lines, refused, problem) -> None:
    """Input: a row of a CSV file with a quote that is not closed, or with more or fewer cells than the header. Result:
    refused, the row alone, named by its line; no row takes cells of the next."""
    root = hospital(tmp_path, f"id,note,dx,years\n{lines}\n")
    expected = [(person[0], None, None) if line in refused else person for line, person in enumerate(PATIENTS, 2)]
    assert found(root) == expected
    where = ", ".join(f"line {line}" for line in refused)
    assert f"has rows that were not read, because a row {problem}: {where}" in reasons(root)


def test_row_numbers_without_a_name_in_the_header(tmp_path) -> None:
    """Input: a table with a column of row numbers whose header has no cell for it, as R writes it. Result: refused,
    each row, with this cause; no column is taken for another."""
    root = study(tmp_path, f"{HEADER}1\tsub-01\t70\tF\tNC\n2\tsub-02\t71\tM\tAD\n")
    assert found(root) == [("sub-01", None, None), ("sub-02", None, None)]
    first = read(root).rejected[0]
    assert first.reason.endswith("a row has 5 cells, and the header 4: line 2, line 3")
    assert first.remedy.startswith("name each column in the header, also that of row numbers")


def test_two_columns_of_one_name(tmp_path) -> None:
    """Input: a header that has a name twice. Result: refused if their cells differ: neither column is read; read if
    they are equal."""
    root = study(tmp_path, "participant_id\tage\tAge\tdiagnosis\nsub-01\t70\t71\tNC\nsub-02\t71\t71\tAD\n")
    assert found(root) == [("sub-01", NC, None), ("sub-02", AD, None)]
    assert reasons(root) == ["has 2 columns age with different cells; none was read"]
    study(root, "participant_id\tage\tAge\tdiagnosis\nsub-01\t70\t70\tNC\nsub-02\t71\t71\tAD\n")
    assert found(root) == BOTH


def written(text: str, name: str = "x.csv") -> Table:
    with TemporaryDirectory() as folder:
        (Path(folder) / name).write_bytes(text.encode())
        return Table(Path(folder) / name, SCHEMA)


CELLS = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), max_size=6).map(str.strip)
ROWS = st.lists(st.tuples(st.from_regex(r"[a-z][0-9]{1,3}", fullmatch=True), CELLS, st.integers(0, 120)), max_size=6)


def plain(cell: str) -> str:
    """A cell as it is read: without invisible characters, and a pair of quotes around the whole."""
    for invisible in "\ufeff\u200b\u200c\u200d\u2060":
        cell = cell.replace(invisible, "")
    cell = cell.strip()
    return cell[1:-1].strip() if len(cell) > 1 and cell[0] == cell[-1] == '"' else cell


@given(ROWS, st.sampled_from(["\n", "\r\n", "\r"]), st.sampled_from(["", codecs.BOM_UTF8.decode()]), st.integers(0, 2))
@settings(max_examples=60)
@example([("a1", '"', 70), ("b2", '"', 71)], "\n", "", 0)
def test_any_tsv_is_read_as_it_is_written(rows, ending, mark, blank) -> None:
    """Input: any table of BIDS, with any characters in its notes. Result: read, cell by cell as it is written."""
    lines = ["participant_id\tnote\tage", *("\t\t" for _ in range(blank))]
    lines += [f"{name}\t{note}\t{age}" for name, note, age in rows]
    table = written(mark + ending.join(lines) + ending, "x.tsv")
    assert [(row.cells["id"], row.cells["note"], row.number("age")) for row in table] == [
        (name, plain(note), age) for name, note, age in rows
    ]
    assert table.notes.rejections() == []


@given(ROWS, st.sampled_from([",", ";", "\t", "|"]), st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]))
@settings(max_examples=60)
def test_any_csv_is_read_as_it_is_written(rows, separator, quoting) -> None:
    """Input: any CSV file that a spreadsheet or csv library writes. Result: read, cell by cell as it is written."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=separator, quoting=quoting)
    writer.writerows([("participant_id", "note", "age"), *((name, f"x{note}x", age) for name, note, age in rows)])
    table = written(text.getvalue())
    assert [(row.cells["id"], row.cells["note"], row.number("age")) for row in table] == [
        (name, plain(f"x{note}x"), age) for name, note, age in rows
    ]


@given(st.binary(max_size=80), st.sampled_from(["x.tsv", "x.csv"]), st.booleans())
@settings(max_examples=150)
def test_any_bytes_are_read_or_refused(content, name, header) -> None:
    """Input: any bytes in place of a table. Result: read or refused, never an error without a remedy."""
    content = (b"participant_id,age,day\n" if header else b"") + content
    with TemporaryDirectory() as folder:
        (Path(folder) / name).write_bytes(content)
        try:
            table = Table(Path(folder) / name, SCHEMA)
        except InputError as error:
            assert error.remedy
            return
        for row in table:
            assert row.number("age") is None or 0 <= row.number("age") <= 120
            assert row.day("day") is None or date(1900, 1, 1).toordinal() <= row.day("day")
        assert all(r.reason and r.remedy and "\n" not in r.reason for r in table.notes.rejections())


@given(st.data())
@settings(max_examples=60)
def test_a_missing_or_added_tab_costs_its_row_alone(data) -> None:
    """Input: a row of a TSV file that lost a tab, or has one too many. Result: refused, this row alone."""
    size = data.draw(st.integers(1, 6))
    bad = data.draw(st.integers(0, size - 1))
    rows = [[f"p{i}", "note", str(60 + i)] for i in range(size)]
    lines = ["\t".join(row) for row in rows]
    separator = data.draw(st.sampled_from([" ", "", "\t\t"]))
    lines[bad] = "\t".join(rows[bad][:2]) + separator + rows[bad][2]
    table = written("\n".join(["participant_id\tnote\tage", *lines]), "x.tsv")
    assert [(row.cells["id"], row.number("age")) for row in table] == [
        (f"p{i}", 60 + i) for i in range(size) if i != bad
    ]
    assert [r.reason[-6:] for r in table.notes.rejections()] == [f"line {bad + 2}"[-6:]]
