"""Shrinkage of differences between people, and fairness: scores of groups of participants."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from pdsynth.statistics.inference import bca_interval, holm
from pdsynth.statistics.resampling import (
    RESAMPLES,
    ROUNDING,
    UNKNOWN,
    Estimate,
    bootstrap_weights,
    deviations,
    paired,
    ratio,
)
from pdsynth.types import NA, Diagnosis

TRAITS = ("site", "sex", "age", "diagnosis")
FEWEST = 3


def variance_ratio(real: np.ndarray, synthesised: np.ndarray) -> np.ndarray:
    """Variance over participants of synthesised region means divided by that of real ones, per region, (R,).

    real, synthesised (N, R): means of R regions, one row per participant. 0: everyone gets the same value. 1:
    synthesised values vary as much as real ones, which is also possible by noise. A method that gives the posterior
    mean E[target | source] has the share of the real variance that the source explains. nan if real values do not vary,
    and for fewer than three participants. Raises ValueError if the shapes differ.

    >>> variance_ratio(np.array([[1.0], [2.0], [3.0]]), np.array([[1.0], [1.5], [2.0]])).tolist()
    [0.25]
    """
    real, synthesised = paired(real, synthesised)
    if len(real) < FEWEST:
        return np.full(real.shape[1], np.nan)
    return ratio(*(np.sum(deviations(side) ** 2, axis=0) for side in (synthesised, real)))


def shrinkage_slope(
    real: np.ndarray, synthesised: np.ndarray, mean: np.ndarray, seed: int = 0, n: int = RESAMPLES
) -> Estimate:
    """Slope of the synthesised on the real deviations of participants from a mean pattern, over all regions together.

    real, synthesised (N, R): means of R regions, one row per participant; mean (R,): mean pattern of the training
    population. The slope is that of (synthesised - mean) on (real - mean), through the origin. 0: the method gives the
    population mean. 1: individual deviations are kept in full. Products and squares are summed over regions, so that
    regions with large variation have a large weight. The 95 % interval is over participants, from n resamples. nan if
    no real pattern deviates from the mean, and for fewer than three participants. Raises ValueError if the shapes of
    real and synthesised differ.

    >>> real = np.array([[1.0], [2.0], [4.0]])
    >>> shrinkage_slope(real, 2 + 0.5 * (real - 2), mean=np.array([2.0]))
    Estimate(value=0.5, low=0.5, high=0.5)
    """
    real, synthesised = paired(real, synthesised)
    if len(real) < FEWEST:
        return UNKNOWN
    of_real = np.where(np.abs(real - mean) > ROUNDING * np.abs(mean), real - mean, 0.0)
    products, squares = (synthesised - mean) * of_real, of_real**2
    weights = bootstrap_weights(np.zeros(len(real), str), seed, n)
    return Estimate.of(ratio(weights @ products.sum(1), weights @ squares.sum(1)))


def group_table(scores: np.ndarray, columns: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Mean score of the participants of each site, sex, third of age and diagnosis, and tests of differences.

    scores (N,): one finite number per participant; higher is better. columns: a table of N rows with some of the
    columns site, sex, age and diagnosis (traits); a value that is missing, empty or "n/a" is left out. Returns one row
    per group with by (the trait), group (its name, or its range of ages), n, mean, mean_low and mean_high (BCa 95 %
    interval; nan for one participant), worst (whether it has the lowest mean among the groups of the trait with two or
    more participants; false if there is only one such group), p (Kruskal-Wallis test over these groups; nan for fewer
    than two groups, or if scores do not vary) and p_holm (corrected over the traits). There are no rows of age if all
    ages are equal. Raises ValueError if the lengths differ.
    """
    scores = np.asarray(scores, np.float64)
    if scores.shape != (len(columns),):
        raise ValueError(f"{scores.shape} scores for {len(columns)} participants; give each participant one score.")
    rows: list[dict[str, Any]] = []
    p_values: dict[str, float] = {}
    for trait in [name for name in TRAITS if name in columns]:
        groups = {label: scores[inside] for label, inside in _groups(trait, columns[trait]).items()}
        many = {label: values for label, values in groups.items() if len(values) > 1}
        if len(many) > 1 and np.ptp(np.concatenate(list(many.values()))) > 0:
            p_values[trait] = float(stats.kruskal(*many.values()).pvalue)
        worst = min(many, key=lambda label: many[label].mean()) if len(many) > 1 else None
        for label, values in groups.items():
            interval = Estimate(float(values.mean()), *bca_interval(values, seed=seed))
            who = {"by": trait, "group": label, "n": len(values)}
            rows.append(who | interval.columns("mean") | {"worst": label == worst, "p": p_values.get(trait, np.nan)})
    table = pd.DataFrame(rows, columns=["by", "group", "n", "mean", "mean_low", "mean_high", "worst", "p"])
    adjusted = dict(zip(p_values, holm(list(p_values.values())), strict=True))
    return table.assign(p_holm=table["by"].map(adjusted).astype(float))


def _groups(trait: str, column: pd.Series) -> dict[str, np.ndarray]:
    """Members (N,) bool of each group of a trait: thirds of age, diagnoses in the order NC, MCI, AD, others by name."""
    if trait == "age":
        return _thirds(pd.to_numeric(column, errors="coerce"))
    names = column.where(~column.isin(["", NA])).astype(object)
    progress = {str(diagnosis): position for position, diagnosis in enumerate(Diagnosis)}
    labels = sorted(
        {str(name) for name in names.dropna()}, key=lambda label: (progress.get(label, len(progress)), label)
    )
    return {label: (names.astype(str) == label).to_numpy() for label in labels}


def _thirds(ages: pd.Series) -> dict[str, np.ndarray]:
    """Members (N,) bool of each third of the known ages, by its range of ages; empty if all ages are equal."""
    if ages.nunique() < 2:
        return {}
    third = pd.qcut(ages, 3, labels=False, duplicates="drop")
    parts = [(third == number).to_numpy() for number in sorted(third.dropna().unique())]
    return {f"{ages[part].min():g} to {ages[part].max():g}": part for part in parts}
