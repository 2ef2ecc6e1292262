"""Evidence in one command and by its verbs, and what a site costs that was never seen."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from pdsynth import fit
from pdsynth.cli import main
from pdsynth.evaluation.metrics import dilate, psnr
from pdsynth.evidence import leave_one_site_out, probes
from pdsynth.methods.base import Method, MethodConfig
from pdsynth.report.evidence import _effect_sentence
from pdsynth.statistics import classification
from pdsynth.synthesis import Model
from pdsynth.types import Direction


class Copier(Method):
    """Prints a training participant, another for each source."""

    name = "copier"

    def __init__(self, train):
        super().__init__(MethodConfig(train.grid.shape))
        self.train_pairs = train

    def predict(self, batch, direction):
        row = int(batch.rows[0]) % len(self.train_pairs)
        return torch.from_numpy(self.train_pairs.volume(direction.target, row))[None, None]


def status(*words):
    """The exit status of the command line."""
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    return ended.value.code


def test_a_site_is_left_out_of_training_and_the_control_is_as_large(prepared):
    """The population mean's score is known: that of the mean over those whom it was trained on."""
    table = leave_one_site_out("population-mean", prepared, seed=3, device="cpu")
    assert table[["site", "direction"]].to_numpy().tolist() == [[s, d.value] for s in "ab" for d in Direction]
    assert table["n_participants"].tolist() == [2] * 4
    train, test = prepared.train, prepared.test
    for _, row in table.iterrows():
        target = Direction(row["direction"]).target
        volumes = np.stack([train.volume(target, i) for i in range(len(train))])
        mean = volumes[(train.table["site"] != row["site"]).to_numpy()].mean(0)
        scores = [
            psnr(mean, test.volume(target, i), dilate(test.brain(target, i)))
            for i in np.flatnonzero(test.table["site"] == row["site"])
        ]
        assert row["psnr_unseen"] == pytest.approx(np.mean(scores), abs=1e-3)
        assert row["difference"] == pytest.approx(row["psnr_unseen"] - row["psnr_seen"])
        assert row["difference_low"] <= row["difference"] <= row["difference_high"]


def test_one_site_cannot_be_left_out(prepared):
    one = prepared.where(prepared.table["site"] == "a")
    with pytest.raises(ValueError, match="1 site"):
        leave_one_site_out("population-mean", one, device="cpu")


@pytest.fixture(scope="module")
def evidence_out(make_prepared, tmp_path_factory):
    """What `evidence` leaves of 30 test participants; few folds, and 2 people at two severities."""
    pairs, root = make_prepared(40, test=30), tmp_path_factory.mktemp("evidence")
    fit("local-ridge", pairs.train, run=root / "run", device="cpu")
    words = ["evidence", pairs.root, "--model", root / "run" / "model", "--out", root / "out", "--jobs", "1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classification, "INNER_FOLDS", 1)
        patch.setattr(probes, "TWICE", 2)
        assert status(*words, "--samples", "0") == 0
    return root / "out"


def test_each_table_has_its_methods_and_controls(evidence_out):
    effects = pd.read_csv(evidence_out / "effects.tsv", sep="\t")
    methods = json.loads((evidence_out / "metrics.json").read_text())["methods"]
    assert set(effects["method"]) == set(methods) and len(effects) == 2 * len(methods)
    slope = effects.groupby("method")["slope"].mean()
    assert slope["population-mean"] == 0 and slope["zeros"] == 0 and 0.8 < slope["oracle"] < 1.2
    completed = pd.read_csv(evidence_out / "completed_effects.tsv", sep="\t").set_index(["method", "arm"])
    rectified = completed.xs("rectified", level="arm")
    assert set(rectified.index) == set(methods) and (rectified["n_left"] == 12).all()
    assert (rectified["worth"] == 0).all()  # 12 at two sites are too few to learn from what a scan is worth
    table = pd.read_csv(evidence_out / "table5.tsv", sep="\t", keep_default_na=False)
    assert set(table["method"]) == {"", "local-ridge", "population-mean"} and set(table["data"]) == {"SIMULATED"}
    schemes = table[table["method"] == "local-ridge"]["scheme"].tolist()
    assert schemes == [f"S{number}" for number in range(1, 10)]
    assert table["svm_balanced_accuracy"].astype(float).between(0, 1).all()
    controls = {"real fMRI", "real dMRI", "real both", "covariates only", "site only", "majority class"}
    assert set(table[table["method"] == ""]["scheme"]) == controls | {"permuted labels"}
    arms = pd.read_csv(evidence_out / "completion.tsv", sep="\t", keep_default_na=False)
    assert arms["arm"].tolist()[:4] == ["complete-cases", "mean", "real", "one-scan"]
    groups = pd.read_csv(evidence_out / "groups.tsv", sep="\t")
    assert set(groups["by"]) == {"site", "diagnosis", "sex"} and groups["worst"].sum() == 4
    regions = pd.read_csv(evidence_out / "agreement.tsv", sep="\t")
    assert len(regions) == 2 * 93 and set(regions["method"]) == {"local-ridge"}
    assert not (evidence_out / "table9.tsv").exists()  # its two recipes were not evaluated


def test_the_report_holds_every_section(evidence_out):
    page = (evidence_out / "report.html").read_text()
    keys = [
        "effects",
        "completed-effects",
        "patterns",
        "diagnosis",
        "completion",
        "embedding",
        "memorisation",
        "lesions",
        "counterfactual",
    ]
    for key in keys:
        assert f'<section id="{key}">' in page and f'href="#{key}"' in page
    assert page.count('<figure class="plot"') == 7  # Figs. 5 and 6 and the effects in both directions, and Fig. 7
    assert "Not addressed in this run: leave-one-site-out." in page
    assert not re.findall(r'(src|href)="(?!data:|#)', page)
    for name in ("claim.md", "tripod_ai.md", "model_card.md", "data_card.md"):
        assert (evidence_out / name).read_text().startswith("**SIMULATED")


def test_probes_measure(evidence_out):
    """local-ridge follows what its source shows; a probe's table holds what its functions return."""
    found = json.loads((evidence_out / "probes.json").read_text())
    memory = found["memorisation"]
    assert memory["caption"] == "10 participants whom it was trained on, 30 whom it was not"
    assert memory["head"][1:4] == ["ratio to all 10", "to 10 of them", "to 15 never seen"]
    for row in memory["rows"]:
        assert row[1] == row[2] and 0.3 < float(row[1]) < 1.1 and 0.3 < float(row[3]) < 1.1
        assert 0.5 < float(row[4].split()[0]) <= 1  # its regressions fit those whom they were fitted on
    assert [row[0] for row in found["lesions"]["rows"][::2]] == ["local-ridge's output"] * 2
    assert all(float(row[2]) >= 0.9 for row in found["lesions"]["rows"][1::2])  # what could be seen in the source
    assert len(found["counterfactual"]["rows"]) == 2


def test_copies_are_known(make_prepared):
    """A method that prints people whom it was trained on has a ratio of 0 to them, and is no nearer to strangers."""
    pairs = make_prepared(20, seed=3, test=10)
    model = Model(
        Copier(pairs.train), {"recipe": "copier", "scans_sha256": list(pairs.train.scan_digests())}, "", "cpu"
    )
    for row in probes._memorisation(model, pairs, pairs.test, 0)["rows"]:
        assert float(row[1]) < 0.01 and float(row[3]) > 0.8


@pytest.mark.parametrize(
    ("slope", "low", "high", "reliability", "said"),
    [
        (0.4, 0.2, 0.6, 0.9, "the disease is understated"),
        (0.9, 0.7, 1.1, 0.9, "no loss can be told"),
        (1.4, 1.1, 1.8, 0.9, "the disease is overstated"),
        (0.4, -0.2, 1.1, 0.9, "tell neither"),
        (0.9, 0.8, 0.96, 0.1, "tells of persons as much as of the disease"),
    ],
)
def test_the_sentence_claims_what_the_numbers_carry(slope, low, high, reliability, said):
    row = {"method": "pds", "direction": "fmri_to_dmri", "slope": slope, "slope_low": low, "slope_high": high}
    sentence = _effect_sentence(row | {"reliability": reliability}, {})
    assert said in sentence and f"a slope of {slope:.2f}" in sentence


def test_the_verbs_alone_write_the_same_bytes(evidence_out, tmp_path):
    """Files of result files only, a function of these and the seed."""
    out = Path(shutil.copytree(evidence_out, tmp_path / "out"))
    made = (
        "effects.tsv",
        "completed_effects.tsv",
        "agreement.tsv",
        "groups.tsv",
        "figure5_fmri_to_dmri.png",
        "figure6_dmri_to_fmri.png",
    )
    for name in made:
        (out / name).unlink()
    assert status("roi", out) == 0
    for name in made:
        assert (out / name).read_bytes() == (evidence_out / name).read_bytes(), name
    assert json.loads((out / "manifest.json").read_text())["added"][0]["command"] == "roi"


def test_a_class_too_small_for_the_folds_costs_only_the_diagnosis(prepared, tmp_path, monkeypatch):
    fit("population-mean", prepared.train, run=tmp_path / "run", device="cpu")
    monkeypatch.setattr(probes, "TWICE", 2)
    words = ["evidence", prepared.root, "--model", tmp_path / "run" / "model", "--out", tmp_path / "out"]
    assert status(*words, "--samples", "0", "--no-controls", "--jobs", "1") == 0
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Diagnosis: not done. " in page and '<section id="effects">' in page
    assert status("diagnose", tmp_path / "out") == 2
