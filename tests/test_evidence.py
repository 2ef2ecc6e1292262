"""Evidence in one command and by its verbs."""

import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

from pdsynth import fit
from pdsynth.cli import main
from pdsynth.evidence import verbs
from pdsynth.evidence.probes import compute as probes
from pdsynth.statistics import classification

TESTED = "run (local-ridge)"  # the folder of the model, and its recipe


def status(*words):
    """The exit status of the command line."""
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    return ended.value.code


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
    assert next(iter(methods)) == TESTED and "local-ridge" in methods  # the model, and the control of its recipe
    assert set(effects["method"]) == set(methods) and len(effects) == 2 * len(methods)
    slope = effects.groupby("method")["slope"].mean()
    assert slope["population-mean"] == 0 and slope["zeros"] == 0 and 0.8 < slope["oracle"] < 1.2
    completed = pd.read_csv(evidence_out / "completed_effects.tsv", sep="\t").set_index(["method", "arm"])
    rectified = completed.xs("rectified", level="arm")
    assert set(rectified.index) == set(methods) and (rectified["n_left"] == 12).all()
    assert (rectified["worth"] == 0).all()  # 12 at two sites are too few to learn from what a scan is worth
    table = pd.read_csv(evidence_out / "table5.tsv", sep="\t", keep_default_na=False)
    assert set(table["method"]) == {"", TESTED, "population-mean"} and set(table["data"]) == {"SIMULATED"}
    schemes = table[table["method"] == TESTED]["scheme"].tolist()
    assert schemes == [f"S{number}" for number in range(1, 10)]
    assert table["svm_balanced_accuracy"].astype(float).between(0, 1).all()
    controls = {"real fMRI", "real dMRI", "real both", "covariates only", "site only", "majority class"}
    assert set(table[table["method"] == ""]["scheme"]) == controls | {"permuted labels"}
    arms = pd.read_csv(evidence_out / "completion.tsv", sep="\t", keep_default_na=False)
    assert arms["arm"].tolist()[:4] == ["complete-cases", "mean", "real", "one-scan"]
    groups = pd.read_csv(evidence_out / "groups.tsv", sep="\t")
    assert set(groups["by"]) == {"site", "diagnosis", "sex"} and groups["worst"].sum() == 4
    regions = pd.read_csv(evidence_out / "agreement.tsv", sep="\t")
    assert len(regions) == 2 * 93 and set(regions["method"]) == {TESTED}
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
    assert "Not measured in this run: a site that was not in the training set." in page
    assert not re.findall(r'(src|href)="(?!data:|#)', page)
    for name in ("claim.md", "tripod_ai.md", "model_card.md", "data_card.md"):
        assert (evidence_out / name).read_text().startswith("**SIMULATED")


def test_probes_measure(evidence_out):
    """local-ridge follows what its source shows; a probe's table holds what its functions return."""
    found = json.loads((evidence_out / "probes.json").read_text())
    memory = found["memorisation"]
    assert (memory["members"], memory["others"]) == (10, 30)
    assert (memory["trained_on"], memory["few"], memory["strangers"]) == (10, 10, 15)
    for row in memory["rows"]:
        assert row["ratio_to_all"] == row["ratio_to_few"]
        assert 0.3 < row["ratio_to_all"] < 1.1 and 0.3 < row["ratio_to_strangers"] < 1.1
        assert 0.5 < row["membership"]["value"] <= 1  # its regressions fit those whom they were fitted on
    assert [row["of_source"] for row in found["lesions"]["rows"]] == [False, True] * 2
    assert all(row["sensitivity"] >= 0.9 for row in found["lesions"]["rows"] if row["of_source"])
    assert found["counterfactual"]["people"] == 2 and len(found["counterfactual"]["rows"]) == 2
    page = (evidence_out / "report.html").read_text()
    assert '<th scope="col">to 15 other people</th>' in page and "the output of local-ridge" in page
    assert f"<td>{memory['rows'][0]['ratio_to_all']:.2f}</td>" in page


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


def test_diagnose_writes_all_of_its_tables_or_none(evidence_out, tmp_path, monkeypatch):
    out = Path(shutil.copytree(evidence_out, tmp_path / "out"))
    for name in verbs.BY_DIAGNOSE:
        (out / name).unlink(missing_ok=True)

    def refuse(*_, **__):
        raise ValueError("a class has too few participants to train on")

    monkeypatch.setattr(classification, "INNER_FOLDS", 1)
    monkeypatch.setattr(verbs, "complete", refuse)
    assert status("diagnose", out) == 2
    assert [name for name in verbs.BY_DIAGNOSE if (out / name).exists()] == []


def test_a_class_too_small_for_the_folds_costs_only_the_diagnosis(prepared, tmp_path, monkeypatch):
    fit("population-mean", prepared.train, run=tmp_path / "run", device="cpu")
    monkeypatch.setattr(probes, "TWICE", 2)
    words = ["evidence", prepared.root, "--model", tmp_path / "run" / "model", "--out", tmp_path / "out"]
    assert status(*words, "--samples", "0", "--no-controls", "--jobs", "1") == 0
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Diagnosis: not done. " in page and '<section id="effects">' in page
    assert status("diagnose", tmp_path / "out") == 2
