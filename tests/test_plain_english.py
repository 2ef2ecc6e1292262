"""Docstrings, comments and messages of src/pdsynth are plain scientific English, by a list of patterns and names."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "pdsynth"

QUANTITY = (
    r"one|two|three|four|five|six|ten|\d+|once|twice|times|each|rows?|columns?|lines?|cells?|files?|shards?|numbers?"
    r"|values?|entries|entry|copies|copy|factors?|voxels|volumes|draws?|steps|blocks|units?|bytes|[KMG]i?B|mm|ms|dB"
    r"|seconds?|minutes?|hours?|days|threads?|processes|networks?|channels?|points?|words?|matrix|matrices"
)
NOUN = (
    r"scan|volume|voxel|image|participant|person|subject|patient|session|visit|direction|modality|region|network|site"
    r"|group|class|fold|split|pair|batch|patch|method|model|recipe|run|trial|step|stage|epoch|level|layer|block|head"
    r"|axis|side|row|column|line|cell|file|folder|process|thread|job|task|core|channel|entry|page|figure|table|metric"
    r"|score|sample|draw|second|minute|hour|day|year|decade|segment|shell|tissue|seed|arm|target|source|name|bundle|term"
)
PATTERNS = {
    'write "one X per Y"': rf"\b(?:{QUANTITY}) an? (?:{NOUN})\b(?! of)",
    'write "print", "know", "report" or "distinguish"': r"\b(?:told|tells?|telling)\b",
    "name the noun that the clause stands for": r"\bwhat\b",
    "name the thing": r"\b(?:in so many|nobody's|at hand|what lies)\b",
    'write "resume" or "continue"': r"\b(?:go|goes|going|gone|went) on with\b",
    'write "start again"': r"\bbeg[iau]ns? anew\b",
    'write "complete"': r"\b(?:bring|brings|brought)\b[^.]{0,20} to (?:its|an) end\b",
    'write "is not a"': r"(?<!\bthere )\b(?:is|are|was|were) no (?!longer\b|more\b|less\b)\w+",
    'write "if" after an error\'s name': r"Error\)? where\b",
    "give the sentence a subject and a verb": r"(?:^|\. )(?:As it|So that|Of which|By what|Whom)\b",
}
NAMES = {
    *("asked", "begun", "fooled", "gone", "kept", "made", "mine", "remaining", "said", "seen", "shown", "stated"),
    *("there", "told", "told_apart", "unusual", "usual", "wanted"),
}


def texts(source: str) -> Iterator[tuple[int, str]]:
    """Line and text of every comment, and of every string with a space in it: docstrings and messages.

    The fields of an f-string are replaced by "{}", doctests and back-quoted code by nothing.
    """
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string.lstrip("# ")
    parts = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.JoinedStr):
            parts |= {id(value) for value in node.values}
            pieces = [str(value.value) if isinstance(value, ast.Constant) else "{}" for value in node.values]
            yield node.lineno, "".join(pieces)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts:
            prose = "\n".join(line for line in node.value.splitlines() if not line.lstrip().startswith((">>>", "...")))
            if " " in prose.strip():
                yield node.lineno, re.sub(r"`[^`]*`", "", prose)


def names(source: str) -> Iterator[tuple[int, str]]:
    """Line and name of every function, class, argument, variable and attribute that is assigned.

    Registered buffers are left out: their names are part of the format of saved models.
    """
    buffers = set(re.findall(r'register_buffer\("(\w+)"', source))
    return ((line, name) for line, name in _assigned(ast.parse(source)) if name not in buffers)


def _assigned(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr


def violations(source: str) -> list[str]:
    """One line per violation: its line number, the phrase or name, and the advice."""
    phrases = [
        (line, match[0], advice)
        for line, text in texts(source)
        for advice, pattern in PATTERNS.items()
        for match in re.finditer(pattern, " ".join(text.split()), re.IGNORECASE)
    ]
    bad_names = [(line, name, "use a noun") for line, name in names(source) if name.strip("_") in NAMES]
    return [f"line {line}: {phrase!r}: {advice}" for line, phrase, advice in sorted(phrases + bad_names)]


@pytest.mark.parametrize("module", sorted(path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*.py")))
def test_a_module_is_in_plain_english(module: str) -> None:
    assert violations((SOURCE / module).read_text(encoding="utf-8")) == []


EXAMPLES = [
    ("One matrix an axis.", "matrix an axis"),
    ("truth.tsv has a row a session.", "row a session"),
    ("The function that is told the count.", "told"),
    ("What a checkpoint holds.", "What"),
    ("Every fold takes one participant in so many.", "in so many"),
    ("The next run goes on with it.", "goes on with"),
    ("resume it, or begin anew with --overwrite", "begin anew"),
    ("The next run brings it to its end.", "brings it to its end"),
    ("a code that is not known is no measurement", "is no measurement"),
    ("Raises InputError where it is damaged.", "Error where"),
    ("So that it comes whole from another process.", "So that"),
]


def test_every_pattern_has_an_example() -> None:
    found = [violations(f"# {text}")[0].split(": ", 2)[2] for text, _ in EXAMPLES]
    assert set(found) == set(PATTERNS)


@pytest.mark.parametrize(("text", "phrase"), EXAMPLES)
@pytest.mark.parametrize("form", ['"""{}"""', "# {}", 'raise ValueError("{}")', 'x = f"{} {{1}}"'])
def test_each_pattern_finds_its_phrase_in_every_kind_of_text(text: str, phrase: str, form: str) -> None:
    found = violations(form.format(text))
    assert len(found) == 1
    assert f"'{phrase}'" in found[0]


@pytest.mark.parametrize(
    "source",
    [
        '"""One row per session. There is no scan of a participant, and the memory is no longer free."""',
        '"""Runs code.\n\n>>> told = "what a row a scan"\n"""',
        '"""See `told`."""',
        "shape = 'told'",
        "class A:\n    scan: int\n\n\ndef per_scan(one_scan: int) -> int:\n    return one_scan",
        'self.register_buffer("remaining", x)\nself.remaining = y',
    ],
)
def test_plain_text_and_code_pass(source: str) -> None:
    assert violations(source) == []


@pytest.mark.parametrize(
    "source",
    [
        "told = 1",
        "def f(wanted): ...",
        "for _made in []: ...",
        "class stated: ...",
        "def shown(): ...",
        "self.kept = 1",
    ],
)
def test_a_name_that_is_a_participle_is_found(source: str) -> None:
    assert len(violations(source)) == 1
