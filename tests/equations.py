"""The equations of the paper, by number, and which of them a sentence may name beside a loss."""

from __future__ import annotations

import re
from dataclasses import dataclass

MEANING = {
    1: "one step of forward noising",
    2: "one step of forward noising",
    3: "t steps at once",
    4: "t steps at once",
    5: "x_t by its noise epsilon",
    6: "x_t by its noise epsilon",
    7: "reverse steps by eps_theta",
    8: "reverse steps by eps_theta",
    9: "the images inside A_f and A_d",
    10: "eps_s of the masked noisy source",
    11: "L_PA",
    12: "L_tis of dMRI to fMRI",
    13: "L_tis of fMRI to dMRI",
    14: "three views of the generated and the target image",
    15: "three views of the generated and the target image",
    16: "L_mic",
    17: "L1 terms of the first stage",
    18: "L_mic terms of the first stage",
    19: "L_s1",
    20: "L_s2",
}


@dataclass(frozen=True)
class Name:
    """A name of something that equations define, those that hold it, and those that a reference can't leave out."""

    pattern: str
    held_by: frozenset[int]
    defined_by: frozenset[int] = frozenset()


NAMES = (
    Name(r"L_s1", frozenset({17, 18, 19}), frozenset({19})),
    Name(r"L_s2", frozenset({20}), frozenset({20})),
    Name(r"L_tis", frozenset({12, 13})),
    Name(r"B\(draft\)|U\(source\)|[Tt]issue refine\w+", frozenset({12, 13})),
    Name(r"L_PA|[Pp]attern loss", frozenset({9, 10, 11})),
    Name(r"eps_s", frozenset({9, 10, 11, 17, 18})),
    Name(r"eps_theta", frozenset({5, 6, 7, 8, 17, 18})),
    Name(r"L1 terms", frozenset({17})),
    Name(r"L_mic terms", frozenset({18})),
    Name(r"L_mic|[Mm]icrostructure loss(?:es)?", frozenset({14, 15, 16, 18})),
    Name(r"projections|views", frozenset({14, 15, 16})),
)
REFERENCE = re.compile(r"Eqs?\. (\d+(?:(?:-|, | and )\d+)*)")
CITATION = re.compile(r"\d{4}[a-z]?,? $")  # (Ho et al. 2020, Eq. 4) is of another paper


def numbers(reference: str) -> frozenset[int]:
    """The equations of a reference such as "9-11" or "7, 8, 10"."""
    found: set[int] = set()
    for part in re.split(r", | and ", reference):
        first, _, last = part.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    return frozenset(found)


def clauses(text: str) -> list[str]:
    """Sentences, their parts between semicolons or colons, docstrings and cells of tables, each on one line."""
    joined = re.sub(r"[ \t]*\n[ \t]*(?=\S)(?![|\-#])", " ", text)
    return [part for line in joined.splitlines() for part in re.split(r"\.\s+(?=[A-Z])|[;:|](?:\s|$)|\"{3}", line)]


def references(text: str) -> list[tuple[str, frozenset[int], Name | None]]:
    """Each reference of a text to the paper's equations: its clause, its numbers, and the name that it belongs to.

    That is the name before "=" where the clause is a definition, else the nearest name before the reference, else the
    nearest after it.
    """
    found = []
    for clause in clauses(text):
        # of two names that begin at one place the longer is meant: dict keeps the last
        matches = [(match, name) for name in NAMES for match in re.finditer(name.pattern, clause)]
        names = {match.start(): name for match, name in sorted(matches, key=lambda pair: pair[0].span())}
        defined = [name for match, name in matches if clause[match.end() :].startswith(" = ")]
        for match in REFERENCE.finditer(clause):
            if CITATION.search(clause[: match.start()]):
                continue
            before = [names[at] for at in sorted(names) if at < match.start()]
            after = [names[at] for at in sorted(names) if at > match.start()]
            name = next(iter([*defined, *before[::-1], *after]), None)
            found.append((clause.strip(), numbers(match.group(1)), name))
    return found


def fits(named: frozenset[int], name: Name | None) -> bool:
    """Whether a reference to these equations is right beside a name."""
    if not named <= MEANING.keys():
        return False
    return name is None or (named <= name.held_by and name.defined_by <= named)
