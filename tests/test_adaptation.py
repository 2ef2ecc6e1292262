"""A model of another contrast is corrected by pairs, and only if people who were left out gain."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pdsynth import api
from pdsynth.adaptation import Equations, adapt, fitted
from pdsynth.cli import main
from pdsynth.data.pairs import Pairs
from pdsynth.evaluation.estimates import predictions
from pdsynth.evaluation.metrics import psnr
from pdsynth.methods import checkpoint, create
from pdsynth.methods.correction import COLUMNS
from pdsynth.types import Available, Direction


def test_the_solution_is_that_of_least_squares() -> None:
    generator = np.random.default_rng(0)
    x, truth = generator.standard_normal((400, 5)), np.array([0.5, -1, 0, 2, 0.1])
    people = [Equations.of(part, part @ truth) for part in np.split(x, 8)]
    weights, gains = fitted(people)
    assert weights == pytest.approx(truth, abs=0.01) and (gains > 25).all()
    assert people[0].left(truth) == pytest.approx(0, abs=1e-9)
    assert people[0].left(np.zeros(5)) == pytest.approx(np.square(x[:50] @ truth).mean())


def test_noise_is_not_learnt() -> None:
    """Columns without a relation to the error give people who were left out no gain."""
    generator = np.random.default_rng(1)
    people = [Equations.of(generator.standard_normal((40, 11)), generator.standard_normal(40)) for _ in range(5)]
    gains = fitted(people)[1]
    assert gains.mean() < gains.std(ddof=1) / np.sqrt(len(gains))


@pytest.fixture
def model(prepared, tmp_path):
    """A model that copies its source, which is a wrong estimate: dMRI falls where fMRI rises."""
    method = create("copy-source", {"grid_shape": list(prepared.grid.shape)})
    card = prepared.preprocessing.entries() | {"scans_sha256": ["0" * 16]}
    return checkpoint.save(method, tmp_path / "model", card)


def quality(method, pairs: Pairs, direction: Direction) -> float:
    found = predictions(method, pairs, direction)
    scores = [
        psnr(found[row], pairs.volume(direction.target, row), pairs.brain(direction.target, row))
        for row in range(len(pairs))
    ]
    return float(np.mean(scores))


def test_pairs_of_the_scanner_correct_the_model(prepared, model, tmp_path):
    found = adapt(model, prepared, tmp_path / "adapted", "cpu")
    before, after = (api.load(folder, "cpu").method for folder in (model, tmp_path / "adapted"))
    for direction, each in found.items():
        assert each.correction and each.participants == 6
        gain = quality(after, prepared.test, direction) - quality(before, prepared.test, direction)
        assert gain > 2 and each.gain_db == pytest.approx(gain, abs=1.5)  # people of the test split gain as much
    batch = prepared.batch(np.array([0]))
    copy = before.estimate(batch, Direction.FMRI_TO_DMRI)[0]
    assert torch.equal(copy, before.predict(batch, Direction.FMRI_TO_DMRI))  # no correction: the same bytes
    used = set(api.load(tmp_path / "adapted", "cpu").card["scans_sha256"])
    assert used > set(prepared.train.scan_digests()) and used.isdisjoint(prepared.test.scan_digests())


def test_scans_without_a_partner_change_nothing(prepared, model, tmp_path):
    """Their means differ by anatomy, and not by the scanner alone: a correction by them made estimates worse."""
    alone = [Available(a) for a in np.where(np.arange(len(prepared)) % 2, "fmri", "dmri")]
    table = prepared.table.assign(available=alone)
    found = adapt(
        model, Pairs(prepared.root, table, prepared.manifest, prepared.volumes), tmp_path / "same", "cpu", True
    )
    assert all(each.participants == 0 and not each.correction for each in found.values())
    assert not api.load(tmp_path / "same", "cpu").method.correction.any()


def test_too_few_pairs_leave_the_model_as_it_was(prepared, model, tmp_path):
    two = prepared.where(prepared.table["participant_id"].isin(["sub-00", "sub-01"]))
    found = adapt(model, two, tmp_path / "same", "cpu")
    assert all(each.participants == 2 and not each.correction for each in found.values())
    same = api.load(tmp_path / "same", "cpu")
    assert not same.method.correction.any() and same.card["scans_sha256"] == ["0" * 16]
    asked = adapt(model, two, tmp_path / "asked", "cpu", unjudged=True)
    assert all(each.correction and np.isnan(each.gain_db) for each in asked.values())
    corrected = api.load(tmp_path / "asked", "cpu").method.correction
    assert corrected.any(1).all()
    adapt(tmp_path / "asked", two, tmp_path / "again", "cpu")  # nobody is new, and nothing can be learnt
    assert torch.equal(api.load(tmp_path / "again", "cpu").method.correction, corrected)


def test_a_model_whose_errors_are_noise_stays_as_it_was(prepared, tmp_path):
    """The oracle's errors have no relation to estimate or source."""
    method = create("oracle", {"grid_shape": list(prepared.grid.shape)})
    card = prepared.preprocessing.entries() | {"scans_sha256": ["0" * 16]}
    found = adapt(checkpoint.save(method, tmp_path / "oracle", card), prepared, tmp_path / "out", "cpu")
    for each in found.values():
        assert each.gain_db < 0.1


def test_the_command_prints_how_and_how_far_to_trust_it(prepared, model, tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        main(["adapt", str(model), str(prepared.root), str(tmp_path / "out")])
    assert not end.value.code
    printed = capsys.readouterr().out
    assert "SIMULATED" in printed and "dB" in printed and "corrected" in printed
    saved = checkpoint.load(tmp_path / "out")[1]["adaptation"]
    assert saved["fmri_to_dmri"]["participants"] == 6 and saved["fmri_to_dmri"]["correction"]
    assert api.load(tmp_path / "out", "cpu").method.correction.shape == (2, COLUMNS)
