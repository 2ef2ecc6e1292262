"""Commands and scripts that the build runs, so that pages show their true output. Each run is kept in build/docs.

With DOCS_RUNS=0 in the environment nothing is run: the pages lack outputs and pictures of runs, and links are checked.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

ROOT = Path(__file__).parents[2]
CACHE = ROOT / "build" / "docs"
EXAMPLES = sorted(ROOT.glob("examples/*.py"))
FENCE = re.compile(r"(?:<!-- not run: (?P<reason>[^>]*) -->\n)?```\w*\n(?P<code>.*?)```", re.S)
RUNS = os.environ.get("DOCS_RUNS") != "0"
ENVIRONMENT = {"COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"}


def commands(block: str) -> list[str]:
    """The `pdsynth` commands in a block of code, one per line, without comments.

    >>> commands("pdsynth inspect study   # lists scans\\npip install .\\n")
    ['pdsynth inspect study']
    """
    return [line.split("#")[0].strip() for line in block.splitlines() if line.startswith("pdsynth ")]


def blocks(markdown: str) -> list[tuple[list[str], str | None]]:
    """The commands of each block of code, and the reason why the block is not run, or None.

    The reason is in a comment above the block: <!-- not run: it takes two hours -->.
    """
    return [(commands(match["code"]), match["reason"]) for match in FENCE.finditer(markdown)]


def with_outputs(markdown: str, name: str) -> tuple[str, Path]:
    """Run the commands of a page; returns the page with the output below each block, and the folder of the run.

    name: of the run, for its folder. Raises RuntimeError if a command fails.
    """
    words = [line for found, reason in blocks(markdown) if reason is None for line in found]
    folder, printed = _kept(name, [[sys.executable, "-m", *shlex.split(line)] for line in words])
    remaining = iter(printed)

    def shown(match: re.Match[str]) -> str:
        found = commands(match["code"])
        if match["reason"] is not None or not found:
            return match[0]
        text = "\n".join(next(remaining).rstrip() for _ in found)
        return f'{match[0]}\n\n```text title="Output"\n{text}\n```'

    return FENCE.sub(shown, markdown), folder


def script_outputs(scripts: list[Path], name: str) -> tuple[Path, list[str]]:
    """The folder that Python scripts share, and the output of each. name: of the run, for its folder."""
    return _kept(name, [[sys.executable, str(script)] for script in scripts])


def _kept(name: str, calls: list[list[str]]) -> tuple[Path, list[str]]:
    """The folder of a run and the text that each call prints; a run of the same code and calls is not repeated."""
    if not RUNS:
        return CACHE, ["(not run)"] * len(calls)
    folder = CACHE / f"{name}-{_digest(calls)}"
    record = folder / "outputs.json"
    if not record.is_file():
        for older in CACHE.glob(f"{name}-*"):
            shutil.rmtree(older)
        folder.mkdir(parents=True)
        printed = [_run(call, folder) for call in calls]
        record.write_text(json.dumps(printed))
    return folder, json.loads(record.read_text())


def _run(call: list[str], folder: Path) -> str:
    environment = os.environ | ENVIRONMENT | {"PYTHONPATH": str(ROOT / "src")}
    ended = subprocess.run(call, cwd=folder, env=environment, check=False, capture_output=True, text=True)
    if ended.returncode:
        raise RuntimeError(f"{shlex.join(call)} ended with status {ended.returncode}: {ended.stderr}")
    return ended.stdout.replace(f"{folder}/", "")


def _digest(calls: list[list[str]]) -> str:
    """Digest of the calls, and of the code and the shipped model that they use."""
    digest = sha256(json.dumps([call[1:] for call in calls]).encode())
    for path in sorted([*ROOT.glob("src/pdsynth/**/*"), *ROOT.glob("examples/*.py")]):
        if path.is_file() and "__pycache__" not in path.parts:
            digest.update(path.relative_to(ROOT).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:16]
