"""Summary of the scores of all scans: means over participants with intervals, and comparisons of methods."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from pdsynth.evaluation.metrics import PRIMARY
from pdsynth.methods.controls import Oracle
from pdsynth.statistics.inference import bca_interval, holm, paired_permutation
from pdsynth.types import Direction


def comparisons(table: pd.DataFrame, names: list[str], seed: int) -> list[dict[str, Any]]:
    """Comparison of the first method with every other method but the oracle, by PSNR in the brain (primary endpoint).

    table: the scores of every scan, with the columns method, direction, participant_id and psnr_brain. names: the
    methods. The result has one dict per direction and other method: the difference `psnr_brain_difference` (dB), first
    method minus the other, mean over participants; its BCa 95 % interval `ci95` (a limit is None if it cannot be
    estimated); and `p` of a paired permutation test. All these tests form one family of Holm's correction, which gives
    `p_holm`.
    """
    people = table.groupby(["method", "direction", "participant_id"])[PRIMARY].mean()
    rows: list[dict[str, Any]] = []
    for direction in Direction:
        for other in names[1:]:
            if other == Oracle.name:
                continue
            a, b = (people[name, direction.value].to_numpy() for name in (names[0], other))
            rows.append(
                {
                    "direction": direction.value,
                    "method": names[0],
                    "against": other,
                    "psnr_brain_difference": float(np.mean(a - b)),
                    "ci95": [_finite(v) for v in bca_interval(a - b, seed=seed)],
                    "p": paired_permutation(a, b, seed=seed),
                }
            )
    for row, p in zip(rows, holm([row["p"] for row in rows]), strict=True):
        row["p_holm"] = float(p)
    return rows


def intervals(per_scan: pd.DataFrame, table: pd.DataFrame, seed: int) -> dict[str, dict[str, Any]]:
    """Mean over participants and 95 % bootstrap interval (keys "mean" and "ci95") of each metric.

    A participant's scans are averaged first. A limit of the interval is None if it cannot be estimated.
    """
    people = per_scan.groupby(table["participant_id"].to_numpy()).mean()
    return {
        str(metric): {
            "mean": float(values.mean()),
            "ci95": [_finite(v) for v in bca_interval(values.to_numpy(), seed=seed)],
        }
        for metric, values in people.items()
    }


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
