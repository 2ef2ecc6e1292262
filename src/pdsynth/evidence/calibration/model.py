"""Calibrates the SD of a saved model on participants of a prepared folder."""

from __future__ import annotations

from math import isnan
from pathlib import Path

from pdsynth import api
from pdsynth.data.pairs import Pairs
from pdsynth.evidence.calibration import compute
from pdsynth.evidence.calibration.compute import Calibration
from pdsynth.evidence.calibration.files import Entry
from pdsynth.methods import checkpoint
from pdsynth.types import Available, Direction, InputError, Split, counted


def calibrate(
    model: str | Path, pairs: Pairs, out: str | Path, device: str = "auto", progress: compute.Progress | None = None
) -> dict[Direction, Calibration]:
    """Scale the SD of a model so that its 90 % intervals contain 90 % of the real values, and save the model in `out`.

    model: folder of the model, or "default" for the shipped one; it is not changed. Uses participants of `pairs` who
    have both scans, are not in the test split and were not in the model's training set. The scans are recorded in the
    card (record of the training) of the new model, and `pdsynth evaluate` refuses to score on them. device: "auto",
    "cpu" or "cuda". progress(done, total) is called after each scan, in each direction.

    Returns, by direction of synthesis, the factor, and the coverage of 90 % intervals without it and, in
    cross-validation, with it. If the model was calibrated before, the factor multiplies the earlier one. Raises
    InputError if the model has another preprocessing than the pairs, if its card does not list its training scans, and
    if fewer than nine such participants are found; ValueError if the model gives no SD and if no factor is large
    enough.
    """
    loaded = api.load(model, device)
    new = api.new_people(str(model), loaded, pairs)
    people = new.where(new.table["available"] == Available.BOTH)
    number = people.participants
    if number < compute.fewest():
        outside = pairs.where((pairs.table["available"] == Available.BOTH) & (pairs.table["split"] != Split.TEST))
        problem = (
            f"has {counted(number, 'participant')} with both scans outside the test split and the training set of the "
            f"model; {outside.participants - number} more were used to train or adapt it"
        )
        raise InputError(pairs.root, problem, f"prepare {compute.fewest()} others or more, better 30")
    found = {d: compute.calibrate(loaded.method, people, d, progress) for d in Direction}
    for index, direction in enumerate(Direction):
        loaded.method.sd_scale[index] *= found[direction].scale
    entry = Entry(
        cohort=pairs.root.name,
        simulated=pairs.simulated,
        n_participants=number,
        scale={d.value: round(float(loaded.method.sd_scale[i]), 4) for i, d in enumerate(Direction)},
        coverage_90={d.value: None if isnan(each.after) else round(each.after, 4) for d, each in found.items()},
        scans_sha256=sorted(people.scan_digests()),
    )
    checkpoint.save(loaded.method.cpu(), out, entry.in_card(loaded.card))
    return found
