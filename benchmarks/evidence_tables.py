"""Write the tables of the page evidence.md from result files, so that no number in them is typed by hand.

Usage: python benchmarks/evidence_tables.py RESULTS PROBES SITES [--page docs/benchmark/evidence.md]
RESULTS is a folder of `pdsynth evaluate` with the files of `roi` and `diagnose`. PROBES and SITES are folders of
`pdsynth evidence`, with the probes of a model and with models trained without each site. In the page, a table is
between `<!-- NAME -->` and `<!-- end -->`. The result files that the page links to are copied into the folder
`evidence`.
"""

from __future__ import annotations

import argparse
import re
import shutil
from collections.abc import Callable, Iterable, Sequence
from math import isnan
from pathlib import Path

from pdsynth.evidence.completion.files import ARMS, RIVALS
from pdsynth.evidence.diagnosis.files import SCHEME_SCORES
from pdsynth.evidence.diagnosis.section import with_question
from pdsynth.evidence.effects.files import EFFECTS
from pdsynth.evidence.embedding.files import POINTS
from pdsynth.evidence.group_effects.files import COMPLETED
from pdsynth.evidence.probes import section as of_probes
from pdsynth.evidence.sites import section as of_sites
from pdsynth.evidence.sites.files import SITES
from pdsynth.evidence.verbs import BY_DIAGNOSE, BY_ROI
from pdsynth.report import words
from pdsynth.report.cells import number, p_value, spread
from pdsynth.report.sections import Section
from pdsynth.results.folder import Results
from pdsynth.types import Direction

COPIED = tuple(name for name in (*BY_ROI, *BY_DIAGNOSE) if name != POINTS.name)  # one row per scan: too long
PAGE = Path(__file__).parents[1] / "docs" / "benchmark" / "evidence.md"
FEW = ("pds", "local-ridge", "unet", "pds-ne-pa-tr", "pds-refiner-only", "population-mean", "oracle", "")


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table.

    >>> markdown(["a", "b"], [["1", "2"]])
    '| a | b |\\n|---|---|\\n| 1 | 2 |'
    """
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, *rows)).replace("\n", f"\n|{'---|' * len(head)}\n", 1)


def code(method: str) -> str:
    return f"`{method}`" if method else ""


def quality(root: Path) -> str:
    """PSNR in the brain, one row per method."""
    rows = []
    for name, scores in Results.read(root).methods.items():
        each = [scores[d.value]["psnr_brain"] for d in Direction]
        rows.append([f"`{name}`", *(f"{s['mean']:.2f} ({words.interval(*s['ci95'], 2)})" for s in each)])
    return markdown(["method", *(words.DIRECTIONS[d] for d in Direction)], rows)


def effects(root: Path) -> str:
    """Slope of effects, agreement of signs, and correlations over persons, one row per method and direction."""
    head = ["direction", "method", "slope", "sign agrees (regions)", "r within site", "a person's slope"]
    rows = [
        [
            words.DIRECTIONS[row.direction],
            code(row.method),
            spread(row.slope),
            f"{spread(row.sign_agreement)} ({row.n_strong})",
            spread(row.within_site_r),
            spread(row.shrinkage),
        ]
        for row in EFFECTS.read(root)
    ]
    return markdown(head, rows)


def half_missing(root: Path) -> str:
    """Effects with half of the scans missing, one row per arm of the methods in FEW."""
    head = ["direction", "missing scans", "by", "slope", "error", "worth"]
    rows = [
        [
            words.DIRECTIONS[row.direction],
            row.arm,
            code(row.method),
            spread(row.slope),
            number(row.rmse, 3),
            "" if isnan(row.worth.value) else spread(row.worth),
        ]
        for row in COMPLETED.read(root)
        if row.method in FEW
    ]
    return markdown(head, rows)


def diagnosis(root: Path) -> str:
    """Table V, one row per scheme and method."""
    head = ["scheme", "scans by", "balanced accuracy", "AUC", "control", "less the control", "p, Holm", "paper"]
    rows = []
    for row in SCHEME_SCORES.read(root):
        compared = not isnan(row.difference.value)
        rows.append(
            [
                with_question(row.scheme),
                code(row.method),
                spread(row.balanced_accuracy),
                number(row.auc),
                row.against,
                spread(row.difference) if compared else "",
                p_value(row.p_holm) if compared else "",
                "" if isnan(row.paper.value) else spread(row.paper, 3),
            ]
        )
    return markdown(head, rows)


def completion(root: Path) -> str:
    """Classification with missing scans, one row per arm."""
    head = ["arm", "scans by", "balanced accuracy", "less the mean", "less complete cases", "less one-scan"]
    rows = []
    for row in ARMS.read(root):
        over = [(getattr(row, name), getattr(row, f"{name}_p_holm")) for name in RIVALS]
        cells = ["" if isnan(each.value) else f"{spread(each, 3)}, p {p_value(p)}" for each, p in over]
        rows.append([row.arm, code(row.method), spread(row.balanced_accuracy, 3), *cells])
    return markdown(head, rows)


def in_words(sections: Iterable[Section]) -> str:
    """The lead and the tables of sections of the report."""
    parts = []
    for section in sections:
        parts.append(f"**{section.title}.** {section.lead}")
        for table in section.tables:
            parts += [f"*{table.caption}*", markdown(table.head, table.rows)]
    return "\n\n".join(parts)


TABLES: dict[str, Callable[[Path], str]] = {
    "quality": quality,
    "effects": effects,
    "half missing": half_missing,
    "diagnosis": diagnosis,
    "completion": completion,
}
WORDS = {"probes": of_probes.sections, "sites": of_sites.sections}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("results", *WORDS):
        parser.add_argument(name, type=Path, metavar=name.upper())
    parser.add_argument("--page", type=Path, default=PAGE)
    options = parser.parse_args()
    text = options.page.read_text()
    written = {name: table(options.results) for name, table in TABLES.items()}
    written |= {name: in_words(sections(Results.read(getattr(options, name)))) for name, sections in WORDS.items()}
    for name, rows in written.items():
        block = re.compile(rf"(<!-- {name} -->\n).*?(\n<!-- end -->)", re.S)
        if not block.search(text):
            raise SystemExit(f"{options.page} has no lines <!-- {name} --> ... <!-- end --> for the table {name!r}")
        text = block.sub(lambda found, rows=rows: f"{found[1]}{rows}{found[2]}", text)  # type: ignore[misc]
    options.page.write_text(text)
    beside = options.page.with_suffix("")
    results = [options.results / name for name in COPIED]
    for path in [*results, options.sites / SITES.name, *options.results.glob("figure*.png")]:
        if path.exists():
            shutil.copy2(path, beside / path.name)


if __name__ == "__main__":
    main()
