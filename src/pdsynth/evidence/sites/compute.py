"""Leave one site out: what a scanner costs that the model never saw."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from math import nan
from pathlib import Path

import numpy as np
import pandas as pd

from pdsynth import api
from pdsynth.data.pairs import Pairs
from pdsynth.evaluation import evaluate as scoring
from pdsynth.evaluation.metrics import dilate, psnr
from pdsynth.evidence.sites.files import SiteScores
from pdsynth.methods.base import Method
from pdsynth.statistics.inference import bca_interval, holm, paired_permutation
from pdsynth.statistics.resampling import Estimate
from pdsynth.types import NA, Direction, Size


def leave_one_site_out(
    recipe: str,
    pairs: Pairs,
    *,
    budget: float | None = None,
    steps: int | None = None,
    seed: int = 0,
    device: str = "auto",
    size: str = Size.FULL,
) -> list[SiteScores]:
    """What a site costs that the model never saw: trained without it, against trained on as many people of all sites.

    One row per site and direction, of the test participants of that site. The budget or steps are those of each
    training; there are two per site. Raises ValueError as `sites_to_leave_out` does.
    """
    train, test = pairs.train, pairs.test.whole_scans()
    sites = sites_to_leave_out(pairs)
    rows: list[SiteScores] = []
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
    return [replace(row, p_holm=float(p)) for row, p in zip(rows, holm([row.p for row in rows]), strict=True)]


def sites_to_leave_out(pairs: Pairs) -> list[str]:
    """The sites with training participants and at least two test participants; unknown ones are none.

    Raises ValueError where these are fewer than two.
    """
    people = pairs.test.whole_scans().table.groupby("site")["participant_id"].nunique()
    sites = [s for s in sorted(set(pairs.train.table["site"]) - {"", NA}) if people.get(s, 0) >= 2]
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


def _differences(scores: dict[str, dict[Direction, pd.Series]], site: str, seed: int) -> list[SiteScores]:
    rows = []
    for direction in Direction:
        unseen, seen = (scores[name][direction].to_numpy() for name in ("unseen", "seen"))
        rows.append(
            SiteScores(
                site=site,
                direction=direction,
                n_participants=len(seen),
                psnr_seen=float(seen.mean()),
                psnr_unseen=float(unseen.mean()),
                difference=Estimate(float((unseen - seen).mean()), *bca_interval(unseen - seen, seed=seed)),
                p=paired_permutation(unseen, seen, seed=seed),
                p_holm=nan,
            )
        )
    return rows
