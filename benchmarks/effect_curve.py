"""Slope of synthesised disease effects by the number of training participants, and severity predicted from the source.

Usage: python benchmarks/effect_curve.py TRAIN_PREPARED TEST_PREPARED --truth TRAIN.tsv TEST.tsv [--out FILE.json]
Both folders are prepared simulated cohorts without common participants; --truth gives their derivatives/truth/truth.tsv
files.
`local-ridge` is fitted in closed form on the first N participants of the training split and scored on the test split. A
ridge regression from the source's voxels to the severity is trained on the same N participants. The correlation of its
output with the true severity measures the source's information about the disease, which limits synthesised effects.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pdsynth import fit
from pdsynth.atlas import evidence_regions, region_means
from pdsynth.data.pairs import Pairs
from pdsynth.evaluation.estimates import predictions
from pdsynth.evidence.effects.compute import effect_recovery
from pdsynth.types import Direction, Modality

NUMBERS = (50, 100, 200, 400)
PENALTIES = 10.0 ** np.arange(2, 7.5, 0.5)  # in voxels of unit SD


def volumes(pairs: Pairs, modality: Modality) -> np.ndarray:
    """Volumes of all rows, (N, X, Y, Z)."""
    return np.stack([pairs.volume(modality, row) for row in range(len(pairs))])


def severity(pairs: Pairs, truth: Path) -> np.ndarray:
    """Simulated severity of each row, 0 (healthy) to 1, (N,)."""
    table = pd.read_csv(truth, sep="\t").set_index("participant_id")
    return table.loc[pairs.table["participant_id"], "severity"].to_numpy(float)


def r_of_severity(train: np.ndarray, test: np.ndarray, of_train: np.ndarray, of_test: np.ndarray) -> float:
    """Correlation of true severity and that predicted by ridge regression from volumes (N, X, Y, Z).

    Leave-one-out cross-validation chooses the penalty.
    """
    inside = (train > 0).mean(0) > 0.5
    model = make_pipeline(StandardScaler(), RidgeCV(PENALTIES)).fit(train[:, inside], of_train)
    return float(np.corrcoef(model.predict(test[:, inside]), of_test)[0, 1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", type=Path, metavar="TRAIN_PREPARED")
    parser.add_argument("test", type=Path, metavar="TEST_PREPARED")
    parser.add_argument("--truth", type=Path, nargs=2, required=True, metavar=("TRAIN.tsv", "TEST.tsv"))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "effect_curve.json")
    options = parser.parse_args()
    train, test = Pairs.open(options.train).train.whole_scans(), Pairs.open(options.test).test.whole_scans()
    atlas, rows = evidence_regions(test.grid), []
    known = [severity(pairs, truth) for pairs, truth in zip((train, test), options.truth, strict=True)]
    groups, sites = test.table["diagnosis"].tolist(), test.table["site"].tolist()
    real = {d: region_means(volumes(test, d.target), atlas) for d in Direction}
    for number in sorted({*(n for n in NUMBERS if n < len(train)), len(train)}):
        part = train.where(np.arange(len(train)) < number)
        with tempfile.TemporaryDirectory() as run:
            method = fit("local-ridge", part, run=run, device="cpu").method
        for direction in Direction:
            synthesised = region_means(predictions(method, test, direction), atlas)
            found = effect_recovery(real[direction], synthesised, groups, sites=sites)
            source = [volumes(pairs, direction.source) for pairs in (part, test)]
            rows.append(
                {
                    "participants": number,
                    "direction": direction.value,
                    "slope": [round(v, 3) for v in (found.slope.value, found.slope.low, found.slope.high)],
                    "r_of_severity_told_by_source": round(r_of_severity(*source, known[0][:number], known[1]), 3),
                }
            )
            print(rows[-1], flush=True)
    result = {
        "date": date.today().isoformat(),
        "machine": f"{os.cpu_count()}-core {platform.machine().replace('_', '-')}",
        "data": "SIMULATED",
        "method": "local-ridge",
        "test_participants": test.table["diagnosis"].value_counts().to_dict(),
        "rows": rows,
    }
    options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
