"""Write the tables of the evidence's page from result files, so that no figure in them was typed.

Usage: python benchmarks/evidence_tables.py RESULTS [--page benchmarks/results/simulated/evidence.md]
RESULTS is a folder of `pdsynth evaluate` with what `roi` and `diagnose` added. A table stands in the page between
`<!-- NAME -->` and `<!-- end -->`; the result files that the page links to are copied beside it.
"""

from __future__ import annotations

import argparse
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from pdsynth.report import words
from pdsynth.report.tables import (
    BY_DIAGNOSE,
    BY_ROI,
    COMPLETED_EFFECTS,
    COMPLETION,
    DIAGNOSIS,
    EFFECTS,
    EMBEDDING,
    Row,
    direction_of,
    number,
    p_value,
    rows_of,
    spread,
)
from pdsynth.results.folder import Results
from pdsynth.types import Direction

COPIED = tuple(name for name in (*BY_ROI, *BY_DIAGNOSE) if name != EMBEDDING)  # coordinates, a row a scan: too long
PAGE = Path(__file__).parent / "results" / "simulated" / "evidence.md"
FEW = ("pds", "local-ridge", "unet", "pds-ne-pa-tr", "pds-refiner-only", "population-mean", "oracle", "")


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """
    >>> markdown(["a", "b"], [["1", "2"]])
    '| a | b |\\n|---|---|\\n| 1 | 2 |'
    """
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, *rows)).replace("\n", f"\n|{'---|' * len(head)}\n", 1)


def code(row: Row) -> str:
    return f"`{row['method']}`" if row["method"] else ""


def quality(root: Path) -> str:
    """PSNR in the brain, a row a method."""
    rows = []
    for name, scores in Results.read(root).methods.items():
        each = [scores[d.value]["psnr_brain"] for d in Direction]
        rows.append([f"`{name}`", *(f"{s['mean']:.2f} ({words.interval(*s['ci95'], 2)})" for s in each)])
    return markdown(["method", *(words.DIRECTIONS[d] for d in Direction)], rows)


def effects(root: Path) -> str:
    """Slope, sign and persons, a row a method and direction."""
    head = ["direction", "method", "slope", "sign agrees (regions)", "r within site", "a person's slope"]
    rows = [
        [
            direction_of(row),
            code(row),
            spread(row, "slope"),
            f"{spread(row, 'sign_agreement')} ({row['n_strong']})",
            spread(row, "within_site_r"),
            spread(row, "shrinkage"),
        ]
        for row in rows_of(root / EFFECTS) or []
    ]
    return markdown(head, rows)


def half_missing(root: Path) -> str:
    """A row an arm of the most telling methods."""
    head = ["direction", "missing scans", "by", "slope", "error", "worth"]
    rows = [
        [
            direction_of(row),
            row["arm"],
            code(row),
            spread(row, "slope"),
            number(row, "rmse", 3),
            "" if row["worth"] is None else spread(row, "worth"),
        ]
        for row in rows_of(root / COMPLETED_EFFECTS) or []
        if (row["method"] or "") in FEW and row["arm"] != "all scans"
    ]
    return markdown(head, rows)


def diagnosis(root: Path) -> str:
    """Table V, a row a scheme and method."""
    head = ["scheme", "scans by", "balanced accuracy", "AUC", "control", "less the control", "p, Holm", "paper"]
    rows = []
    for row in rows_of(root / DIAGNOSIS) or []:
        compared = row["difference"] is not None
        rows.append(
            [
                f"{row['scheme']}: {row['asks']}" if row["asks"] else row["scheme"],
                code(row),
                spread(row, "balanced_accuracy"),
                number(row, "auc"),
                row["against"] or "",
                spread(row, "difference") if compared else "",
                p_value(row["p_holm"]) if compared else "",
                "" if row["paper"] is None else spread(row, "paper", 3),
            ]
        )
    return markdown(head, rows)


def completion(root: Path) -> str:
    """A row an arm."""
    head = ["arm", "scans by", "balanced accuracy", "less the mean", "less complete cases", "less one-scan"]

    def over(row: Row, name: str) -> str:
        if row[name] is None:
            return ""
        return f"{spread(row, name, 3)}, p {p_value(row[f'{name}_p_holm'])}"

    rows = [
        [
            row["arm"],
            code(row),
            spread(row, "balanced_accuracy", 3),
            *(over(row, f"over_{other}") for other in ("mean", "complete_cases", "one_scan")),
        ]
        for row in rows_of(root / COMPLETION) or []
    ]
    return markdown(head, rows)


TABLES: dict[str, Callable[[Path], str]] = {
    "quality": quality,
    "effects": effects,
    "half missing": half_missing,
    "diagnosis": diagnosis,
    "completion": completion,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, metavar="RESULTS")
    parser.add_argument("--page", type=Path, default=PAGE)
    options = parser.parse_args()
    text = options.page.read_text()
    for name, table in TABLES.items():
        block = re.compile(rf"(<!-- {name} -->\n).*?(\n<!-- end -->)", re.S)
        if not block.search(text):
            raise SystemExit(f"{options.page} has no place for the table {name!r}: <!-- {name} --> ... <!-- end -->")
        made = table(options.results)
        text = block.sub(lambda found, made=made: f"{found[1]}{made}{found[2]}", text)  # type: ignore[misc]
    options.page.write_text(text)
    beside = options.page.with_suffix("")
    for path in [*(options.results / name for name in COPIED), *options.results.glob("figure*.png")]:
        if path.exists():
            shutil.copy2(path, beside / path.name)


if __name__ == "__main__":
    main()
