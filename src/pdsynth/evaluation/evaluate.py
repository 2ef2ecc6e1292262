"""Scores and audits methods on participants who have both scans, and saves the results (see `archive`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pdsynth.atlas import Atlas, evidence_regions, region_means
from pdsynth.data.pairs import Pairs
from pdsynth.evaluation.scans import Scans
from pdsynth.evaluation.scoring import Draws, scored
from pdsynth.evaluation.summary import comparisons, intervals
from pdsynth.methods.base import Method, MethodConfig
from pdsynth.methods.controls import Oracle
from pdsynth.progress import progress
from pdsynth.results import patterns
from pdsynth.results.archive import KEYS, SECONDS, Archive, image_name
from pdsynth.types import Available, Direction, Modality
from pdsynth.workers import Workers

ORACLE = Oracle.name


def evaluate(
    methods: dict[str, Method],
    pairs: Pairs,
    out: Path | None = None,
    *,
    seed: int = 0,
    samples: int = 0,
    sample_steps: int = 8,
    ceiling: bool = True,
    atlas: Atlas | None = None,
    jobs: int | Workers = 1,
) -> dict[str, Any]:
    """Score every method in both directions on whole scans; returns the content of metrics.json.

    methods: by name; the first one is the method under test, and it is compared with every other one except the oracle.
    Sessions that lack a scan are left out. A method receives source scans only, never targets or masks. If the data
    hold simulated truth volumes and `ceiling` is true, `oracle`, E[target | shared anatomy], is added as upper limit.

    Image quality is always that of the estimate. If a method gives an SD with its estimate, the SD is scored too. For a
    generative method and `samples` of 3 or more, the uncertainty is scored from that number of samples instead, each
    drawn in `sample_steps` sampling steps; with fewer, none is drawn. Scores of the sessions of a participant are
    averaged before the mean over participants and its BCa 95 % interval are computed. If `out` is given, the results
    are written into this folder, with the mean signal of every scan in the regions of `atlas`. None means the regions
    of the paper with hippocampi and amygdalae. Raises ValueError if there are no methods, if fewer than two
    participants have both scans, if a method returns values that are not finite, and, for more than one job, if a
    method is not one of `pdsynth.methods`.

    `jobs` processes of one thread each, or the workers of a cluster, share the scans. Everything except the key `times`
    is the same in every run with the same seed, for any number of jobs. Each process holds one method, one scan and the
    synthesised values of a block of 16 scans, for any number of scans. Scores of the whole set are accumulated or read
    the real scans again.
    """
    pairs = pairs.whole_scans()
    pairs = pairs.where(pairs.table["available"] == Available.BOTH)
    if not methods:
        raise ValueError("there is no method to evaluate; name at least one model.")
    if pairs.participants < 2:
        raise ValueError(
            f"{len(pairs)} session(s) with both scans are too few; prepare a split of 2 participants or more."
        )
    scans = Scans(pairs, seed)
    with_oracle = scans.has_oracle and (ceiling or ORACLE in methods)
    methods = {name: method.eval() for name, method in methods.items() if name != ORACLE}
    if with_oracle:
        methods[ORACLE] = Oracle(MethodConfig(pairs.grid.shape))
    archive = Archive(Path(out), scans.pairs) if out is not None else None
    atlas, draws = atlas or evidence_regions(pairs.grid), Draws(samples, sample_steps, seed)
    regions: dict[tuple[Modality, str], np.ndarray] = {
        (d.target, patterns.REAL): np.stack([region_means(scans.real(row, d), atlas) for row in range(len(scans))])
        for d in Direction
    }
    rows: list[pd.DataFrame] = []
    summary: dict[str, dict[str, Any]] = {name: {} for name in methods}
    times: dict[str, dict[str, Any]] = {name: {} for name in methods}
    with progress("Evaluating") as update:
        for scores in scored(methods, scans, atlas, draws, Workers.of(jobs), update):
            name, direction = scores.method, scores.direction
            per_scan = pd.DataFrame(scores.rows, columns=scores.columns)
            keys = scans.table[KEYS].assign(method=name, direction=direction.value)
            rows.append(pd.concat([keys, per_scan], axis=1))
            regions[direction.target, name] = scores.regions
            summary[name][direction.value] = intervals(per_scan, scans.table, seed) | scores.scalars
            times[name][direction.value] = {SECONDS: float(np.median(scores.seconds))}
            if archive is not None:
                archive.save_images(image_name(name, direction), scores.images)
            if archive is not None and scores.sd:
                archive.save_images(f"{image_name(name, direction)}_std", scores.sd)
    table = pd.concat(rows, ignore_index=True)
    splits = sorted(set(scans.table["split"])) if "split" in scans.table else []
    result = {
        "simulated": pairs.simulated,
        "split": "+".join(splits),
        "n_participants": int(scans.table["participant_id"].nunique()),
        "n_scans": len(scans),
        "seed": seed,
        "samples": samples,
        "uncertainty_from_samples": [name for name, method in methods.items() if draws.audited(method)],
        "methods": summary,
        "comparisons": comparisons(table, list(methods), seed),
        "times": times,
    }
    if archive is not None:
        region_table = patterns.describe_regions(atlas, pairs.grid)
        patterns.save(patterns.Patterns(patterns.people_of(scans.table), region_table, regions), archive.out)
        archive.finish(result, table)
    return result
