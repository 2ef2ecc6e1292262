"""Disease effects estimated from the real scans of a prepared simulated cohort, against the simulated truth.

Usage: python benchmarks/effect_truth.py COHORT_PREPARED [--results DIR] [--people 24] [--jobs 2] [--out FILE.json]
COHORT_PREPARED is a folder of `pdsynth prepare` with 200 simulated participants or more (none with --randomise).

- Estimate: the difference AD minus NC of each region's mean between different people, by least squares with site and
  age as covariates, and therefore within sites.
- Truth: the difference between the mean severities of the two groups in the same people, simulated at the same sites,
  without registration. It has a standard error, which is reported.
- Intervals: t intervals of the estimates, and bootstrap intervals of the slope (2000 resamples within groups).

With --results, a folder of `pdsynth evaluate`, a study that lacks half of its scans is compared with the truth too: by
its remaining scans, with synthesised scans counted as real, and rectified by the participants who have both scans.
Results are means over 20 random choices of the missing scans.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from pdsynth.atlas import evidence_regions, region_means
from pdsynth.cohorts.simulated.counterfactual import TrueEffects, true_effects
from pdsynth.cohorts.simulated.sites import SITES, site_name
from pdsynth.data.pairs import Pairs
from pdsynth.evidence.group_effects.hidden import half_left
from pdsynth.results.folder import Results
from pdsynth.results.patterns import read
from pdsynth.statistics.rectified import rectified_difference
from pdsynth.statistics.resampling import RESAMPLES, Estimate, bootstrap_weights
from pdsynth.types import Diagnosis, Direction, Modality

TRUTH_SEED = 20_000  # differs from the seeds of all cohorts, so that the truth is from other people
CONTRAST = (Diagnosis.AD, Diagnosis.NC)
MASKS = 20
STRONG = 20  # number of regions with the largest true effects


def design(table: pd.DataFrame) -> np.ndarray:
    """Design matrix (N, 3 + sites): AD, MCI (both against NC), age (decades from the mean), and one column per site."""
    groups = [table["diagnosis"] == str(group) for group in (Diagnosis.AD, Diagnosis.MCI)]
    age = table["age"].astype(float)
    sites = [table["site"] == site for site in sorted(set(table["site"]))]
    return np.column_stack([*groups, (age - age.mean()) / 10, *sites]).astype(float)


def group_effect(x: np.ndarray, values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Coefficient (R,) of the first column by weighted least squares, from x (N, k), values (N, R), weights (N,)."""
    return np.asarray(np.linalg.solve((x.T * weights) @ x, (x.T * weights) @ values)[0])


def half_widths(x: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Half widths of the 95 % t intervals of `group_effect`, (R,)."""
    freedom = len(x) - x.shape[1]
    residual = values - x @ np.linalg.lstsq(x, values, rcond=None)[0]
    variance = np.square(residual).sum(0) / freedom * np.linalg.inv(x.T @ x)[0, 0]
    return np.asarray(stats.t.ppf(0.975, freedom) * np.sqrt(variance))


def compare(x: np.ndarray, values: np.ndarray, groups: pd.Series, truth: TrueEffects, modality: Modality) -> dict:
    """Agreement of estimates from values (N, R) with the truth: slopes, r, and share of intervals that contain it."""
    known, error = truth.mean(modality), truth.standard_error(modality)
    estimates = np.stack([group_effect(x, values, w) for w in bootstrap_weights(groups.to_numpy(str), 0, RESAMPLES)])
    inside = np.abs(estimates[0] - known) <= half_widths(x, values)
    strong = np.argsort(-np.abs(known))[:STRONG]
    centred = known - known.mean()
    slopes = {
        "slope": estimates @ known / (known @ known),
        "slope_about_the_mean_region": estimates @ centred / (centred @ centred),
    }
    rounded = {
        name: [round(v, 3) for v in (e.value, e.low, e.high)]
        for name, slope in slopes.items()
        for e in [Estimate.of(slope)]
    }
    return {
        **rounded,
        "r": round(float(np.corrcoef(estimates[0], known)[0, 1]), 3),
        "truth_inside_interval": round(float(inside.mean()), 3),
        f"same_sign_in_the_{STRONG}_strongest": round(float((estimates[0] * known > 0)[strong].mean()), 3),
        "mean_absolute_effect": round(float(np.abs(known).mean()), 4),
        "mean_standard_error_of_truth": round(float(error.mean()), 4),
        "mean_half_width": round(float(half_widths(x, values).mean()), 4),
    }


def completed(results: Path, truth: TrueEffects) -> dict:
    """Agreement with the truth of a study that lacks half of its scans, completed by the method under test."""
    patterns = read(results).one_per_participant()
    patterns = patterns.where(patterns.people["diagnosis"].isin(CONTRAST).to_numpy())
    groups, sites = (patterns.people[name].to_numpy(str) for name in ("diagnosis", "site"))
    method, found = Results.read(results).tested, {}
    for direction in Direction:
        known = truth.mean(direction.target)
        real, synthesised = patterns.pair(method, direction)
        generator = np.random.default_rng(0)
        arms: dict[str, list[tuple[float, float, float]]] = {}
        for _ in range(MASKS):
            has = half_left(groups == CONTRAST[0], sites, generator)[:, None]
            hidden, nothing = np.where(has, real, np.nan), np.zeros_like(real)
            ways = {
                "all scans": (real, nothing),
                "complete cases": (hidden, nothing),
                "as if real": (np.where(has, real, synthesised), nothing),
                "rectified": (hidden, synthesised),
            }
            for arm, (scans, predictor) in ways.items():
                one = rectified_difference(scans, predictor, groups.tolist(), CONTRAST, sites.tolist())
                inside = np.mean((one.low <= known) & (known <= one.high))
                width = np.mean(one.high - one.low)
                arms.setdefault(arm, []).append((one.difference @ known / (known @ known), float(inside), float(width)))
        means = {arm: np.mean(values, axis=0) for arm, values in arms.items()}
        found[direction.value] = {
            arm: {
                "slope": round(float(slope), 3),
                "truth_inside_interval": round(float(inside), 3),
                "width_of_all_scans": round(float(width / means["all scans"][2]), 3),
            }
            for arm, (slope, inside, width) in means.items()
        }
    return {"method": method, "participants": len(patterns.people), "arms": found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prepared", type=Path, metavar="COHORT_PREPARED")
    parser.add_argument("--results", type=Path, metavar="DIR")
    parser.add_argument("--people", type=int, default=24)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "effect_truth.json")
    options = parser.parse_args()
    pairs = Pairs.open(options.prepared).whole_scans()
    styles = {site_name(style): style for style in SITES}
    pairs = pairs.where((pairs.table["available"] == "both") & pairs.table["site"].isin(styles))
    sites = [styles[site] for site in sorted(set(pairs.table["site"]))]
    truth = true_effects(options.people, TRUTH_SEED, sites, grid_mm=float(pairs.grid.spacing_mm[0]), jobs=options.jobs)
    x, atlas = design(pairs.table), evidence_regions(pairs.grid)
    found = {}
    for modality in Modality:
        values = np.stack([region_means(pairs.volume(modality, row), atlas) for row in range(len(pairs))])
        found[modality.value] = compare(x, values, pairs.table["diagnosis"], truth, modality)
    result = {
        "date": date.today().isoformat(),
        "machine": f"{os.cpu_count()}-core {platform.machine().replace('_', '-')}",
        "data": "SIMULATED",
        "participants": pairs.table["diagnosis"].value_counts().to_dict(),
        "sites": sites,
        "regions": len(atlas),
        "people_of_the_truth": options.people,
        "severities": truth.severities,
        "effect": found,
    }
    if options.results is not None:
        result["half_missing"] = completed(options.results, truth)
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
