"""The page of a benchmark: its tables and figures, and the paper's scores beside ours. No score is computed here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from pdsynth import manifest
from pdsynth.evaluation.metrics import PRIMARY
from pdsynth.recipes import RECIPES
from pdsynth.report import words
from pdsynth.report.figures import comparison_figure
from pdsynth.report.rendering import render
from pdsynth.results.entries import recipe_of
from pdsynth.results.tables import read_by_site
from pdsynth.types import Direction

PAGE = "benchmark.md"
SECONDS_PER_MINUTE = 60
LOSS_TABLE = 6  # compares losses on features, and lists their costs


def write_page(
    out: Path, titles: Mapping[int, str], figures: Mapping[int, tuple[str, Sequence[str]]], tested: str | None
) -> Path:
    """Write the page of a benchmark, benchmark.md, and its figures into the folder `out`; returns the path of the page.

    `out` must contain the files table<number>.tsv. titles: title by number of the table. figures: by number of the
    figure, its title and the finished recipes ("recipe", or "recipe:small" for the small size) that it shows; a figure
    without recipes is left out. tested: the recipe under test, by whose scores the participant of the figures is
    chosen; None leaves out all figures.
    """
    record = manifest.read(out)
    terms = record["parameters"]["terms"]
    drawn = []
    for number, (title, entries) in figures.items():
        if tested is not None and entries:
            files = [
                comparison_figure(out, out / f"figure{number}_{direction}.png", entries, tested, direction).name
                for direction in Direction
            ]
            drawn.append({"number": number, "title": title, "files": files})
    tables = {number: read_by_site(out / f"table{number}.tsv") for number in titles}
    budget = f"{terms['budget'] / SECONDS_PER_MINUTE:g} min" if terms["budget"] else f"{terms['steps']} steps"
    context = {
        "simulated": record["simulated"],
        "machine": record["machine"],
        "date": record["started"][:10],
        "budget": budget,
        "threads": terms["threads"],
        "seed": terms["seed"],
        "n_train": record["n_train"],
        "n_test": int(next(iter(tables.values()))["n_participants"].max()),
        "failed": record["failed"],
        "tested": tested or "pds",
        "tables": [{"number": n, "title": titles[n], "parts": _parts(n, tables[n])} for n in titles],
        "figures": drawn,
        "beside": _beside(tables.values()),
    }
    return render(out / PAGE, "benchmark.md.j2", False, context)


def _parts(number: int, table: pd.DataFrame) -> list[dict[str, Any]]:
    """One part per direction of synthesis and site of table `number`, its rows by descending PSNR in the brain."""
    parts = []
    for key, rows in table.groupby(["direction", "site"], sort=False):
        direction, site = map(str, key)  # type: ignore[arg-type]
        where = "" if site == "all" else f", site {site}"
        ordered = rows.sort_values(PRIMARY, ascending=False)
        parts.append(
            {
                "title": f"{words.DIRECTIONS[Direction(direction)]}{where}",
                "costs": "parameters" in rows,
                "losses": number == LOSS_TABLE,
                "reliability": _reliability(rows),
                "rows": [_cells(dict(row)) for _, row in ordered.iterrows()],
            }
        )
    return parts


def _reliability(rows: pd.DataFrame) -> str | None:
    """Reliability of the real scans' effects (see `EffectRecovery`), the same for all methods, as text.

    None if no effect was estimated.
    """
    known = rows["effect_reliability"].dropna().tolist() if "effect_reliability" in rows else []
    return words.number(known[0], 2) if known else None


def _cells(row: dict[str, Any]) -> dict[str, str]:
    """The cells of a row of table<number>.tsv as text, by the names that the template uses."""

    def text(name: str, decimals: int, scale: float = 1.0) -> str:
        value = row.get(name)
        return words.number(None if value is None or pd.isna(value) else float(value) / scale, decimals)

    def spread(name: str, decimals: int) -> str:
        if pd.isna(row.get(name)):
            return text(name, decimals)
        return f"{text(name, decimals)} ({text(f'{name}_low', decimals)} to {text(f'{name}_high', decimals)})"

    compared = not pd.isna(row["pds_less_this"])
    return {
        "method": row["method"],
        "psnr": spread(PRIMARY, 2),
        "ssim": spread("ssim_brain", 3),
        "affine": text("psnr_brain_affine", 2),
        "full": f"{text('psnr_full', 2)} / {text('ssim_full', 3)}",
        "shuffled": text("shuffled_source_psnr_brain", 2),
        "effect": spread("effect_slope", 2),
        "identified": text("identification_rate", 2),
        "less": spread("pds_less_this", 2) if compared else "",
        "p": text("p_holm", 4) if compared else "",
        "parameters": text("parameters", 2, 1e6),
        "gflop": text("gflop_per_volume", 1),
        "steps": text("train_steps", 0),
        "train": text("train_tflop", 1),
        "minutes": text("fit_seconds", 1, SECONDS_PER_MINUTE),
        "seconds": text("seconds_per_volume", 2),
        "memory": text("peak_memory_mb", 0),
        "features": "" if pd.isna(row.get("loss_features")) else str(row["loss_features"]),
        "loss": f"{text('loss_weights', 2, 1e6)} / {text('loss_gflop', 1)} / {text('loss_seconds', 3)}",
    }


def _beside(tables: Iterable[pd.DataFrame]) -> list[dict[str, str]]:
    """The paper's PSNR (dB) / SSIM (%) beside ours, for the rows that have both, each entry and direction once."""
    content = pd.concat([table[table["site"] == "all"] for table in tables])
    rows = []
    for row in content.drop_duplicates(["direction", "method"]).to_dict("records"):
        direction, recipe = Direction(row["direction"]), RECIPES.get(recipe_of(str(row["method"]))[0])
        if recipe is not None and direction.target in recipe.paper:
            psnr, ssim = recipe.paper[direction.target]
            rows.append(
                {
                    "direction": words.DIRECTIONS[direction],
                    "method": row["method"],
                    "paper": f"{psnr:.2f} / {ssim:.2f}",
                    "full": f"{row['psnr_full']:.2f} / {100 * row['ssim_full']:.2f}",
                    "brain": f"{row['psnr_brain']:.2f} / {100 * row['ssim_brain']:.2f}",
                }
            )
    return rows
