"""The page of a notebook: the cells of an example, run by Jupyter when the site is built, with what they show."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import runs

URI, DOWNLOAD = "notebook.md", "notebook.ipynb"
EXAMPLE = runs.ROOT / "examples" / "05_in_a_notebook.py"
INTRODUCTION = """# In a notebook

{sentence} The build of this page ran the cells; [download]({download}) the notebook with its outputs. The data are
those of the [examples](gallery.md) before it.
"""
SECONDS = 600  # for a cell


def cells(text: str) -> list[tuple[str, str]]:
    """The cells of a script: the sentence after each mark `# %%`, and the code below it.

    >>> cells('# %% One.\\na = 1\\na\\n\\n# %% Two.\\nb = 2\\n')
    [('One.', 'a = 1\\na'), ('Two.', 'b = 2')]
    """
    parts = re.split(r"^# %% (.+)$", text, flags=re.M)[1:]
    return [(sentence, code.strip()) for sentence, code in zip(parts[::2], parts[1::2], strict=True)]


def page() -> str:
    """The page in Markdown: the sentence, the code and the output of each cell."""
    text = EXAMPLE.read_text()
    sentence = (ast.get_docstring(ast.parse(text)) or "").strip()
    parts = [INTRODUCTION.format(sentence=sentence, download=DOWNLOAD)]
    outputs = [cell.get("outputs", []) for cell in executed()["cells"] if cell["cell_type"] == "code"]
    for (said, code), shown in zip(cells(text), outputs, strict=True):
        parts += [said, f"```python\n{code}\n```", *map(_markdown, shown)]
    return "\n\n".join(parts) + "\n"


def executed() -> Any:
    """The notebook of the example with its outputs; without them if nothing is run."""
    import nbformat
    from nbclient import NotebookClient

    made = nbformat.v4.new_notebook(cells=list(_cells(nbformat.v4)))
    if not runs.RUNS:
        return made
    folder, _ = runs.script_outputs(runs.EXAMPLES, "examples")
    kept = folder / f"notebook-{sha256(EXAMPLE.read_bytes()).hexdigest()[:16]}.ipynb"
    if not kept.is_file():
        path = os.pathsep.join([str(runs.ROOT / "src"), os.environ.get("PYTHONPATH", "")])
        client = NotebookClient(made, timeout=SECONDS, resources={"metadata": {"path": str(folder)}})
        client.execute(env=os.environ | runs.ENVIRONMENT | {"PYTHONPATH": path})
        nbformat.write(made, kept)
    return nbformat.read(kept, as_version=4)


def download() -> str:
    """The notebook with its outputs, as the text of an .ipynb file."""
    import nbformat

    return str(nbformat.writes(executed()))


def _cells(v4: Any) -> Iterator[Any]:
    for said, code in cells(Path(EXAMPLE).read_text()):
        yield v4.new_markdown_cell(said)
        yield v4.new_code_cell(code)


def _markdown(output: Mapping[str, Any]) -> str:
    """One output of a cell: its HTML, or else its text."""
    data = output.get("data", {})
    if "text/html" in data:
        return f'<div class="output">{"".join(data["text/html"])}</div>'
    text = "".join(data.get("text/plain", output.get("text", "")))
    return f'```text title="Output"\n{text.rstrip()}\n```'
