"""Leave one site out: what a scanner costs that the model never saw."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pdsynth import api
from pdsynth.data.pairs import Pairs
from pdsynth.evaluation import evaluate as scoring
from pdsynth.evaluation.metrics import dilate, psnr
from pdsynth.methods.base import Method
from pdsynth.results.tables import write_table
from pdsynth.statistics.inference import bca_interval, holm, paired_permutation
from pdsynth.types import Direction

NAME = "sites.tsv"


def write_sites(out: Path, model: api.Model, pairs: Pairs, budget: float | None, seed: int, device: str) -> Path:
    """Write what `leave_one_site_out` finds of the model's recipe to out/sites.tsv; returns its path."""
    recipe, size = model.card["recipe"], model.card.get("size", "full")
    table = leave_one_site_out(recipe, pairs, budget=budget, seed=seed, device=device, size=size)
    write_table(out / NAME, table)
    return out / NAME


def leave_one_site_out(
    recipe: str,
    pairs: Pairs,
    *,
    budget: float | None = None,
    steps: int | None = None,
    seed: int = 0,
    device: str = "auto",
    size: str = "full",
) -> pd.DataFrame:
    """What a site costs that the model never saw: trained without it, against trained on as many people of all sites.

    A row a site and direction: test participants of that site, `psnr_brain` of the model that saw the site and of the
    one that did not, and the difference, unseen less seen, with its 95 % interval and paired permutation test, p_holm
    corrected over the rows. The budget or steps are those of each of the trainings, two a site. Raises ValueError as
    `sites_to_leave_out` does.
    """
    train, test = pairs.train, pairs.test.whole_scans()
    sites = sites_to_leave_out(pairs)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for site in sites:
            without = train.where(train.table["site"] != site)
            methods = {}
            for name, part in (("unseen", without), ("seen", _as_many(train, without, seed))):
                run = Path(folder) / f"{name}-{len(rows)}"
                model = api.fit(recipe, part, run=run, budget=budget, steps=steps, seed=seed, device=device, size=size)
                methods[name] = model.method
            there = test.where(test.table["site"] == site)
            rows += _differences({name: _psnr(method, there) for name, method in methods.items()}, site, seed)
    table = pd.DataFrame(rows)
    return table.assign(p_holm=holm(table["p"].tolist()))


def sites_to_leave_out(pairs: Pairs) -> list[str]:
    """The sites with training participants and at least two test participants; unknown ones are none.

    Raises ValueError where these are fewer than two.
    """
    people = pairs.test.whole_scans().table.groupby("site")["participant_id"].nunique()
    sites = [s for s in sorted(set(pairs.train.table["site"]) - {"", "n/a"}) if people.get(s, 0) >= 2]
    if len(sites) < 2:
        raise ValueError(f"{len(sites)} site(s) have training and test participants; leave-one-site-out needs two.")
    return sites


def _as_many(train: Pairs, without: Pairs, seed: int) -> Pairs:
    """As many participants as `without` has, drawn from all sites."""
    everyone = np.sort(train.table["participant_id"].unique())
    number = without.table["participant_id"].nunique()
    chosen = np.random.default_rng(seed).choice(everyone, number, replace=False)
    return train.where(train.table["participant_id"].isin(chosen))


def _psnr(method: Method, pairs: Pairs) -> dict[Direction, pd.Series]:
    """psnr_brain by participant and direction, sessions averaged."""
    found = {}
    for direction in Direction:
        made = scoring.predictions(method, pairs, direction)
        scores = [
            psnr(image, pairs.volume(direction.target, row), dilate(pairs.brain(direction.target, row)))
            for row, image in enumerate(made)
        ]
        found[direction] = pd.Series(scores).groupby(pairs.table["participant_id"].to_numpy()).mean()
    return found


def _differences(scores: dict[str, dict[Direction, pd.Series]], site: str, seed: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for direction in Direction:
        unseen, seen = (scores[name][direction].to_numpy() for name in ("unseen", "seen"))
        low, high = bca_interval(unseen - seen, seed=seed)
        rows.append(
            {
                "site": site,
                "direction": direction.value,
                "n_participants": len(seen),
                "psnr_seen": seen.mean(),
                "psnr_unseen": unseen.mean(),
                "difference": (unseen - seen).mean(),
                "difference_low": low,
                "difference_high": high,
                "p": paired_permutation(unseen, seen, seed=seed),
            }
        )
    return rows
