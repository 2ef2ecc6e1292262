"""Writes docs/reference/inputs.md, "What is read, what is refused", from the docstrings of the tests in tests/inputs.

A test whose docstring has `Input: ... Result: ...` is a row of the table of its file.
Usage: python tests/input_matrix.py
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

HERE = Path(__file__).parent / "inputs"
PAGE = HERE.parents[1] / "docs" / "reference" / "inputs.md"
ROW = re.compile(r"Input: (?P<input>.+?)\s+Result: (?P<verdict>\w+)(?P<rest>.*)", re.DOTALL)
VERDICTS = ("read", "refused", "flagged", "ignored")
HEADER = """# What is read, what is refused

A test holds each row; this page is made from the tests (`python tests/input_matrix.py`).

- *read*: the scan or value is used, if needed after a correction that the row names.
- *refused*: it is not used. A row of `rejected.tsv`, or the one line of the error, names the file, the reason and the
  remedy. All other files are read.
- *flagged*: it is used, and its doubt is on the screen and in a table.
- *ignored*: it is known not to be a scan or a value.
"""


def rows(file: Path) -> list[tuple[str, str, str, str]]:
    """Input, verdict, the rest of the result, and the name of each documented test of a file."""
    found = []
    for node in ast.walk(ast.parse(file.read_text())):
        if not isinstance(node, ast.FunctionDef):
            continue
        match = ROW.search(ast.get_docstring(node) or "")
        if match:
            words = {name: " ".join(text.split()) for name, text in match.groupdict().items()}
            found.append((words["input"].rstrip("."), words["verdict"], words["rest"].strip(".,;: "), node.name))
    return found


def page() -> str:
    """The text of the page."""
    parts = [HEADER]
    for file in sorted(HERE.glob("test_*.py")):
        found = rows(file)
        if not found:
            continue
        parts.append(f"\n## {file.stem.removeprefix('test_').replace('_', ' ').capitalize()}\n")
        parts.append("| on disk | result | how | test |\n|---|---|---|---|")
        for on_disk, verdict, how, test in found:
            cells = (_cell(on_disk), verdict, _cell(how), f"`{test}`")
            parts.append(f"| {' | '.join(cells)} |")
    return "\n".join(parts) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page())
