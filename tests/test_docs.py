"""The pages: every command in them is one that the command line takes, every link leads somewhere."""

from __future__ import annotations

import doctest
import json
import re
import shlex
import tomllib
from pathlib import Path

import pytest
import typer
import yaml

import command_page
import gallery_page
import notebook_page
import pdsynth
import pictures
import plan_page
import recipe_page
import runs
import texts
from pdsynth.cli import app
from pdsynth.cli.log import log_file
from pdsynth.cohorts import LAYOUTS
from pdsynth.evaluation.metrics import METRICS, Better
from pdsynth.methods import Method, registry
from pdsynth.methods.recipe import Role
from pdsynth.recipes import RECIPES
from pdsynth.types import Diagnosis, Direction, Modality, Split

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
    (verb, *words), _ = log_file(shlex.split(command)[1:], None)  # every verb takes --log
    group = typer.main.get_command(app)
    found = group.commands[verb]  # type: ignore[attr-defined]
    context = found.make_context(verb, words)  # raises on an unknown option or a missing argument
    assert context.info_name == verb


def test_there_are_commands_and_pages_to_check() -> None:
    assert len(COMMANDS) > 15
    assert {"README.md", "CONTRIBUTING.md", "CHANGELOG.md"} <= {page.name for page in PAGES}


MADE = {
    command_page.URI,
    recipe_page.URI,
    gallery_page.URI,
    notebook_page.URI,
}  # by the build of the site


def test_the_page_that_lies_in_the_repository_is_that_of_the_program_and_the_pictures_are_there() -> None:
    assert (ROOT / "docs" / plan_page.URI).read_text() == plan_page.page(), "run `make pages`"
    named = {
        link for page in PAGES for link in re.findall(r"images/(?:tutorial|simulator)/[\w-]+\.png", page.read_text())
    }
    assert named == set(pictures.NAMES)


def _prose(page: Path) -> str:
    return re.sub(r"```.*?```", "", page.read_text(), flags=re.S)


def _anchors(page: Path) -> set[str]:
    """The anchors of the headings of a page, as the site and the usual viewers of Markdown name them."""
    headings = re.findall(r"^#+ (.*)$", _prose(page), re.M)
    return {re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_to_files_and_headings(page: Path) -> None:
    made = {ROOT / "docs" / uri for uri in MADE}
    missing = []
    for link in re.findall(r"\]\((?!https?:)([^)]+)", _prose(page)):
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if target in made:
            continue
        if not target.exists() or (anchor and anchor not in _anchors(target)):
            missing.append(link)
    assert missing == []


def test_every_page_is_in_the_navigation() -> None:
    """What `mkdocs build` names only in a note."""
    text = (ROOT / "mkdocs.yml").read_text()
    settings = yaml.safe_load(text)
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    named = set(re.findall(r"([\w/.-]+\.md)$", text, re.M))
    assert pages | {uri for uri in MADE if uri.endswith(".md")} <= named
    assert settings["theme"]["font"] is False  # the pages load nothing from other servers


def test_every_public_name_is_on_the_page_of_python() -> None:
    page = (ROOT / "docs" / "reference" / "python.md").read_text()
    for name, place in pdsynth._PUBLIC.items():
        assert f"::: {place.replace(':', '.')}\n" in page or f"## {name.capitalize()}\n" in page
    adapters = [f"::: {layout.read.__module__}.{layout.read.__name__}\n" for layout in LAYOUTS.values()]
    assert [line for line in adapters if line not in page] == []


def test_the_page_of_commands_has_every_verb_with_every_option() -> None:
    sections = command_page.page().split("\n## pdsynth ")[1:]
    assert [section.split("\n")[0] for section in sections] == list(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    for section in sections:
        named = set(re.findall(r"--[a-z][\w-]*", "".join(re.findall(r"^\| `[^`]*`", section, re.M))))
        options = {option for option in _options(section.split("\n")[0]) if option.startswith("--")}
        assert named - {"--help"} == options - {"--help"}  # only older versions of typer list it
    budget = r"\| `--budget \S+` \| Wall time of the training steps, such as 90s or 10m"
    assert re.search(budget, command_page.page())


def test_the_page_of_recipes_has_every_recipe_and_setting() -> None:
    page = recipe_page.page()
    assert [name for name in RECIPES if f"| `{name}` | [`{RECIPES[name].method}`]" not in page] == []
    assert "| `posterior_share` | `float` | `0.9` |  |" in page
    assert "`16` in `pds`, small" in page and "`False` in `pds-unconditioned`" in page


def test_the_output_of_a_command_is_below_its_block(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    called: list[list[str]] = []

    def kept(name: str, calls: list[list[str]]) -> tuple[Path, list[str]]:
        called.extend(call[1:] for call in calls)
        return tmp_path, [f"output {number}\n" for number, _ in enumerate(calls)]

    monkeypatch.setattr(runs, "_kept", kept)
    page = """```
pdsynth inspect study  # first
pdsynth recipes
```
Text.
<!-- not run: it takes an hour -->
```
pdsynth demo
```
```
a/  a tree
```
"""
    shown, folder = runs.with_outputs(page, "page")
    assert called == [["-m", "pdsynth", "inspect", "study"], ["-m", "pdsynth", "recipes"]]
    assert folder == tmp_path
    added = '\n\n```text title="Output"\noutput 0\noutput 1\n```'
    assert shown == page.replace("recipes\n```", f"recipes\n```{added}")


def test_the_pages_of_the_site_have_code_that_is_right() -> None:
    tested = [doctest.testmod(module) for module in (texts, runs, notebook_page)]
    assert [result.failed for result in tested] == [0, 0, 0] and all(result.attempted for result in tested)


def test_the_page_of_the_notebook_has_each_cell_with_what_it_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    cells = notebook_page.cells(notebook_page.EXAMPLE.read_text())
    assert len(cells) == 4 and all(compile(code, said, "exec") for said, code in cells)
    shown = [{"data": {"text/html": ["<b>a</b>", "<i>b</i>"], "text/plain": "x"}}, {"text": "printed\n"}]
    made = [{"cell_type": "code", "outputs": shown if number == 0 else []} for number, _ in enumerate(cells)]
    monkeypatch.setattr(notebook_page, "executed", lambda: {"cells": [{"cell_type": "markdown"}, *made]})
    page = notebook_page.page()
    assert [said for said, _ in cells if said not in page] == []
    first = page.index(cells[0][1])
    assert first < page.index('<div class="output"><b>a</b><i>b</i></div>') < page.index(cells[1][0])
    assert '```text title="Output"\nprinted\n```' in page


GLOSSARY = ROOT / "docs" / "reference" / "glossary.md"
ROWS = dict(re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", GLOSSARY.read_text(), re.M)[1:])
TERMS = {term.strip() for terms in ROWS for term in terms.split(",")}
# Codes of tables, words of names of files and series, units, and names of licences, encodings and processors.
KNOWN = {
    *("ACPC", "ADC", "ADNIMERGE", "BSD", "CITATION", "CN", "DX", "DXSUM", "EMCI", "FA", "GB", "GiB", "HC", "JSON"),
    *("AMD", "EPYC", "LMCI", "MB", "MRI", "NL", "SMC", "SYNTHETIC", "TRACEW", "UTF"),
}


def test_the_glossary_is_sorted_and_its_terms_are_in_use() -> None:
    assert list(ROWS) == sorted(ROWS, key=str.casefold)
    text = " ".join(" ".join(page.read_text().split()) for page in PAGES if page != GLOSSARY)
    assert [term for term in sorted(TERMS) if not re.search(rf"\b{re.escape(term)}", text, re.IGNORECASE)] == []


def test_the_glossary_explains_the_words_of_the_program_and_the_abbreviations_of_the_pages() -> None:
    meanings = " ".join([*ROWS, *ROWS.values()])
    words = [*Role, *Direction, *Diagnosis, *Split, *Modality, *LAYOUTS]
    short = {"train": "training", "val": "validation", "fmri": "fMRI", "dmri": "dMRI"}
    assert [word for word in words if short.get(word, str(word)) not in meanings] == []
    pages = [ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("docs/how-to/*.md")]
    for page in pages:
        if page.name in ("departures.md", "paper-map.md"):  # they name the symbols and systems of the paper
            continue
        prose = re.sub(r"`[^`]*`|\]\([^)]*\)", "", _prose(page))
        unknown = set(re.findall(r"\b[A-Z][A-Za-z]?[A-Z]+\b", prose)) - TERMS - KNOWN
        assert unknown == set(), f"{page}: explain them in the glossary"


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


def test_the_page_says_which_recipes_predict_an_sd_and_which_can_draw() -> None:
    page = (ROOT / "docs" / "reference" / "files.md").read_text()
    rows = page[page.index("| recipe of the model |") :].split("\n\n")[0].splitlines()[2:]
    named = {
        (sd, draws): set(re.findall("`([^`]+)`", recipes))
        for recipes, sd, draws in (row.strip("| ").split(" | ") for row in rows)
    }
    found: dict[tuple[str, str], set[str]] = {}
    for recipe in RECIPES.values():
        method = registry()[recipe.method]
        does = (method.predict_with_sd is not Method.predict_with_sd, method.generative)
        found.setdefault(tuple("yes" if each else "no" for each in does), set()).add(recipe.name)
    others = named.pop(("no", "no"))
    assert others < found.pop(("no", "no")) and named == found


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
EVERYWHERE = {"--help", "-h", "--version", "--debug", "--log", "--install-completion", "--show-completion"}


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


def test_help_and_page_of_train_state_the_steps_of_the_default_recipe_and_their_measured_time() -> None:
    steps = RECIPES["pds"].steps
    measured = json.loads((ROOT / "benchmarks/results/precision.json").read_text())
    seconds = measured["AMD EPYC (avx512_bf16, avx512_f, avx2)"]["steps"]["pds"]["diffusion"]["seconds"]["bf16-mixed"]
    assert steps == 6000 and round(seconds, 3) == 0.097 and round(steps * seconds / 60) == 10
    command = typer.main.get_command(app).commands["train"]  # type: ignore[attr-defined]
    for text in (command.help, (ROOT / "docs/how-to/train.md").read_text()):
        words = " ".join(text.split())
        assert str(steps) in words and ".097 s per step" in words and "about 10 minutes" in words
