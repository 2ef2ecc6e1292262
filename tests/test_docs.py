"""The pages: every command in them is one that the command line takes, every link leads somewhere."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import pytest
import typer

from pdsynth.cli import app
from pdsynth.cohorts import LAYOUTS
from pdsynth.evaluation.metrics import METRICS, Better

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/*.md")])
COMMANDS = [
    (page.relative_to(ROOT).as_posix(), line.split("#")[0].strip())
    for page in PAGES
    for block in re.findall(r"```\w*\n(.*?)```", page.read_text(), re.S)
    for line in block.splitlines()
    if line.startswith("pdsynth ")
]


@pytest.mark.parametrize(("page", "command"), COMMANDS)
def test_commands_of_the_pages_are_taken(page: str, command: str) -> None:
    verb, *words = shlex.split(command)[1:]
    group = typer.main.get_command(app)
    found = group.commands[verb]  # type: ignore[attr-defined]
    context = found.make_context(verb, words)  # raises on an unknown option or a missing argument
    assert context.info_name == verb


def test_there_are_commands_and_pages_to_check() -> None:
    assert len(COMMANDS) > 15
    assert {"README.md", "CONTRIBUTING.md", "CHANGELOG.md"} <= {page.name for page in PAGES}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_to_files(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text())
    missing = [link for link in links if not (page.parent / link).exists()]
    assert missing == []


def test_every_layout_has_a_row() -> None:
    page = (ROOT / "docs" / "how-to" / "own-bids-folder.md").read_text()
    rows = [f"| `{layout.name}` | {layout.sign} | " for layout in LAYOUTS.values()]
    assert [row for row in rows if row not in page] == []


def test_every_metric_has_its_row() -> None:
    page = (ROOT / "docs" / "reference" / "files.md").read_text()
    better = {Better.HIGH: "higher", Better.LOW: "lower", Better.ONE: "nearer to 1", Better.NEITHER: "neither"}
    rows = [f"| `{m.name}` | {m.unit} | {better[m.better]} | {m.meaning} |" for m in METRICS]
    start = page.index(rows[0])
    assert page[start:].split("\n\n")[0].splitlines() == rows


def test_each_promise_names_tests_that_are_there() -> None:
    page = (ROOT / "docs" / "reference" / "promises.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| ") and "promise | kept by" not in line]
    named = [re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row) for row in rows]
    assert len(rows) > 25 and all(named)
    for path, test in (each for row in named for each in row):
        assert f"def {test}(" in (ROOT / path).read_text(), f"{path} has no {test}"


def _options(verb: str) -> set[str]:
    found = typer.main.get_command(app).commands[verb]  # type: ignore[attr-defined]
    return {name for parameter in found.params for name in (*parameter.opts, *parameter.secondary_opts)}


VERBS = sorted(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
EVERYWHERE = {"--help", "-h", "--version", "--debug"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_options_in_the_text_of_a_page_are_options_of_the_verb_or_of_any(page: Path) -> None:
    any_verb = EVERYWHERE.union(*map(_options, VERBS))
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
    unknown = []
    for code in re.findall(r"`([^`]+)`", text):
        words = code.removeprefix("pdsynth ").split()
        if words and words[0].endswith(".py"):  # a program with options of its own
            continue
        named = {word.partition("=")[0] for word in words if re.match(r"--[a-z]", word)}
        known = _options(words[0]) | EVERYWHERE if words and words[0] in VERBS else any_verb
        unknown += [(code, option) for option in sorted(named - known)]
    assert unknown == []


def test_extras_in_the_pages_and_messages_are_extras_of_the_package() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    texts = [*PAGES, *(ROOT / "src").rglob("*.py")]
    named = {name for path in texts for name in re.findall(r"pdsynth\[([a-z]+)\]", path.read_text())}
    assert named and named <= extras.keys()
