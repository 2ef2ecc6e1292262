"""Leave-one-site-out evaluation: loss of quality at a site that was not in the training set."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from math import nan
from pathlib import Path

import numpy as np
import pandas as pd

from pdsynth import api
from pdsynth.data.pairs import Pairs
from pdsynth.evaluation.estimates import predictions
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
    """PSNR at each site of a model trained without it, and of a model trained on as many people of all sites.

    recipe: name of the recipe, trained in its size `size` ("full" or "small") on training participants of `pairs`.
    There are two training runs per site; budget (seconds) and steps are the limits of one run, and if both are None,
    the recipe's own number of steps applies. Both models are scored on the test participants of the site who have both
    scans (see `SiteScores`). Returns one row per site and direction of synthesis, for the sites of
    `sites_to_leave_out`. seed: of the training and of the random choices. Raises ValueError if fewer than two sites
    have training participants and at least two test participants.
    """
    train, test = pairs.train, pairs.test.whole_scans()
    sites = sites_to_leave_out(pairs)
    rows: list[SiteScores] = []
    with tempfile.TemporaryDirectory() as folder:
        for site in sites:
            without = train.where(train.table["site"] != site)
            methods = {}
            for name, part in (("unseen", without), ("seen", _same_number(train, without, seed))):
                run = Path(folder) / f"{name}-{len(rows)}"
                model = api.fit(recipe, part, run=run, budget=budget, steps=steps, seed=seed, device=device, size=size)
                methods[name] = model.method
            at_site = test.where(test.table["site"] == site)
            rows += _differences({name: _psnr(method, at_site) for name, method in methods.items()}, site, seed)
    return [replace(row, p_holm=float(p)) for row, p in zip(rows, holm([row.p for row in rows]), strict=True)]


def sites_to_leave_out(pairs: Pairs) -> list[str]:
    """Names of the sites that can be left out of training: with training and at least two test participants.

    Only participants with both scans count, and those of unknown sites are ignored. The names are sorted. Raises
    ValueError if there are fewer than two such sites.
    """
    people = pairs.test.whole_scans().table.groupby("site")["participant_id"].nunique()
    sites = [s for s in sorted(set(pairs.train.table["site"]) - {"", NA}) if people.get(s, 0) >= 2]
    if len(sites) < 2:
        raise ValueError(f"{len(sites)} site(s) have training and test participants; leave-one-site-out needs two.")
    return sites


def _same_number(train: Pairs, without: Pairs, seed: int) -> Pairs:
    """The rows of as many random participants of `train`, from all sites, as `without` has."""
    everyone = np.sort(train.table["participant_id"].unique())
    number = without.participants
    chosen = np.random.default_rng(seed).choice(everyone, number, replace=False)
    return train.where(train.table["participant_id"].isin(chosen))


def _psnr(method: Method, pairs: Pairs) -> dict[Direction, pd.Series]:
    """PSNR in the brain (dB) of each participant, averaged over sessions, by direction of synthesis."""
    found = {}
    for direction in Direction:
        synthesised = predictions(method, pairs, direction)
        scores = [
            psnr(image, pairs.volume(direction.target, row), dilate(pairs.brain(direction.target, row)))
            for row, image in enumerate(synthesised)
        ]
        found[direction] = pd.Series(scores).groupby(pairs.table["participant_id"].to_numpy()).mean()
    return found


def _differences(scores: dict[str, dict[Direction, pd.Series]], site: str, seed: int) -> list[SiteScores]:
    """The rows of one site, without p_holm. scores: by "seen" and "unseen", the results of `_psnr`."""
    rows = []
    for direction in Direction:
        without, with_site = (scores[name][direction].to_numpy() for name in ("unseen", "seen"))
        rows.append(
            SiteScores(
                site=site,
                direction=direction,
                n_participants=len(with_site),
                psnr_seen=float(with_site.mean()),
                psnr_unseen=float(without.mean()),
                difference=Estimate(float((without - with_site).mean()), *bca_interval(without - with_site, seed=seed)),
                p=paired_permutation(without, with_site, seed=seed),
                p_holm=nan,
            )
        )
    return rows
