"""Memorisation of a model whose memory is known, and probes.json there and back."""

import json

import numpy as np
import pytest
import torch

from pdsynth.data.pairs import Pairs
from pdsynth.evidence.probes.compute import measure_memorisation, probe
from pdsynth.evidence.probes.files import Change, Counterfactual, Lesion, Lesions, Memorisation, Memory, Probes
from pdsynth.evidence.probes.responses import NotMeasurableError
from pdsynth.methods.base import Method, MethodConfig
from pdsynth.statistics.resampling import Estimate
from pdsynth.synthesis import Model
from pdsynth.types import Direction, InputError


class Copier(Method):
    """Prints a training participant, another for each source."""

    name = "copier"

    def __init__(self, train):
        super().__init__(MethodConfig(train.grid.shape))
        self.train_pairs = train

    def predict(self, batch, direction):
        row = int(batch.rows[0]) % len(self.train_pairs)
        return torch.from_numpy(self.train_pairs.volume(direction.target, row))[None, None]


@pytest.fixture(scope="module")
def pairs(make_prepared):
    return make_prepared(20, seed=3, test=10)


@pytest.fixture
def model(pairs):
    card = {"recipe": "copier", "scans_sha256": list(pairs.train.scan_digests())}
    return Model(Copier(pairs.train), card, "", "cpu")


def sessions_of(people: int, pairs: Pairs) -> Pairs:
    """The same rows as sessions of as many participants, who are in turn those of the first rows."""
    ids = pairs.table["participant_id"].to_numpy()
    table = pairs.table.assign(participant_id=[ids[row % people] for row in range(len(ids))])
    return Pairs(pairs.root, table, pairs.manifest, pairs.volumes)


def test_copies_are_known(pairs, model):
    """A method that prints people whom it was trained on has a ratio of 0 to them, and is no nearer to strangers."""
    for row in measure_memorisation(model, pairs, pairs.test, 0).rows:
        assert row.ratio_to_all < 0.01 and row.ratio_to_strangers > 0.8


def test_many_sessions_of_few_people_are_few_people(pairs, model):
    """Ten sessions of one person, or of five, are no six others; ten of two are no three training participants."""
    for people in (1, 5):
        with pytest.raises(NotMeasurableError, match="the split has fewer than 6 participants"):
            measure_memorisation(model, pairs, sessions_of(people, pairs.test), 0)
    with pytest.raises(NotMeasurableError, match="lists fewer than 3 participants"):
        measure_memorisation(model, sessions_of(2, pairs.train), pairs.test, 0)


def test_sessions_do_not_count_as_people_but_copies_of_any_are_known(pairs, model):
    found = measure_memorisation(model, sessions_of(4, pairs.train), sessions_of(6, pairs.test), 0)
    assert (found.trained_on, found.few, found.strangers, found.members, found.others) == (4, 3, 3, 4, 6)
    for row in found.rows:
        assert row.ratio_to_all < 0.01 < row.ratio_to_few  # the copied scans are not all first sessions


def test_a_split_without_people_gives_plain_reasons(pairs, model):
    acquired = Pairs(pairs.root, pairs.table, pairs.manifest | {"simulated": False}, pairs.volumes)
    found = probe(model, acquired, "val", seed=0)
    assert (found.memorisation, found.lesions, found.counterfactual) == (None, None, None)
    assert found.reasons["lesions"] == "the split has no participant with both scans"
    assert found.reasons["memorisation"].endswith("the split has fewer than 6 participants")


def probes():
    memory = Memory(Direction.FMRI_TO_DMRI, 0.5, 0.75, 1.0, Estimate(0.5, 0.25, 0.75))
    lesion = Lesion(True, Direction.DMRI_TO_FMRI, 0.875, 0.0, 8.5)
    change = Change(Direction.FMRI_TO_DMRI, Estimate(0.5, 0.25, 0.75), Estimate(1.0, 1.0, 1.0), 12)
    return Probes(
        "pds",
        Memorisation(10, 5, 5, 10, 10, [memory]),
        Lesions(4, 8, 8.0, 1.5, 0.02, [lesion]),
        Counterfactual(9, [0.125, 0.875], [change]),
        {},
    )


def test_probes_come_back_as_they_were_written(tmp_path):
    probes().write(tmp_path)
    assert Probes.read(tmp_path) == probes()
    assert json.loads((tmp_path / "probes.json").read_text())["lesions"]["rows"][0]["sensitivity"] == 0.875


def test_what_was_not_measured_and_what_is_not_finite_come_back(tmp_path):
    lesions = Lesions(1, 1, 8.0, 1.5, 0.02, [Lesion(False, Direction.DMRI_TO_FMRI, 1.0, 0.0, float("inf"))])
    Probes("pds", None, lesions, None, {"memorisation": "too few"}).write(tmp_path)
    assert "Infinity" not in (tmp_path / "probes.json").read_text()
    found = Probes.read(tmp_path)
    assert found.memorisation is None and found.counterfactual is None and found.reasons == {"memorisation": "too few"}
    assert np.isnan(found.lesions.rows[0].contrast_to_noise)
    assert Probes.read(tmp_path / "elsewhere") is None


@pytest.mark.parametrize(
    "content",
    [
        {"memorisation": {"title": "Memory", "rows": [["fMRI → dMRI", "0.69"]]}},  # version 0.1.0: sentences
        {"recipe": "pds", "memorisation": None, "lesions": {"people": "four"}, "counterfactual": None, "reasons": {}},
        [],
    ],
)
def test_a_file_of_another_form_is_refused_by_name(tmp_path, content):
    (tmp_path / "probes.json").write_text(json.dumps(content))
    with pytest.raises(
        InputError, match=r"probes\.json: does not contain probes of this version.*run `pdsynth evidence` again"
    ):
        Probes.read(tmp_path)
