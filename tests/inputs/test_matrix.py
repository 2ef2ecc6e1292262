"""The page of the docs on inputs is made from the tests of this folder."""

from __future__ import annotations

import pytest

import input_matrix as matrix


@pytest.mark.parametrize("file", sorted(matrix.HERE.glob("test_*.py")), ids=lambda file: file.stem)
def test_each_row_has_a_known_verdict_and_an_explanation(file) -> None:
    found = matrix.rows(file)
    assert all(verdict in matrix.VERDICTS for _, verdict, _, _ in found)
    assert all(on_disk and how for on_disk, _, how, _ in found)


def test_the_page_is_up_to_date() -> None:
    assert matrix.PAGE.read_text() == matrix.page(), "run python tests/input_matrix.py"


def test_a_docstring_becomes_a_row(tmp_path) -> None:
    source = 'def test_a():\n    """Input: a b|c\n    file. Result: read;\n    the rest.\n    """\n'
    (tmp_path / "test_x.py").write_text(source)
    assert matrix.rows(tmp_path / "test_x.py") == [("a b|c file", "read", "the rest", "test_a")]
