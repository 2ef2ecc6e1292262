"""The gallery of the examples: the code of each, and the text that it prints when the site is built."""

from __future__ import annotations

import ast

import runs

URI = "gallery.md"
INTRODUCTION = """# Examples

Each example is a file in the folder `examples` of the repository. The build of this page ran them in this order; all
data are SIMULATED. Run them from the root of the repository, such as `python examples/01_simulate.py`. The last one is
also shown [as a notebook](notebook.md).
"""


def page() -> str:
    """The page in Markdown: one section per example with its sentence, its code and its output."""
    parts = [INTRODUCTION]
    _, outputs = runs.script_outputs(runs.EXAMPLES, "examples")
    for script, output in zip(runs.EXAMPLES, outputs, strict=True):
        code = script.read_text()
        sentence = (ast.get_docstring(ast.parse(code)) or "").strip()
        parts.append(f'## {script.stem}\n\n{sentence}\n\n```python title="examples/{script.name}"\n{code}```\n')
        parts.append(f'```text title="Output"\n{output.rstrip()}\n```\n')
    return "\n".join(parts)
