"""Results that were edited by hand are refused with the file and the entry, and are read as they were written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pdsynth.api import fit_controls
from pdsynth.evaluation.evaluate import evaluate
from pdsynth.evidence.diagnosis.files import SCHEME_SCORES
from pdsynth.evidence.probes.files import Probes
from pdsynth.results.folder import Results
from pdsynth.types import InputError

REMOVED = object()


@pytest.fixture(scope="module")
def whole(prepared, tmp_path_factory):
    out = tmp_path_factory.mktemp("results")
    evaluate(fit_controls(prepared.train, names=["population-mean", "copy-source"]), prepared.test, out, ceiling=False)
    return out


@pytest.fixture
def results(whole, tmp_path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "results"))


def refused(read, problem: str) -> None:
    with pytest.raises(InputError, match=rf"{problem}.*Remedy: ") as raised:
        read()
    assert "\n" not in str(raised.value)


def test_results_are_read_as_they_were_written(results):
    found = Results.read(results)
    assert found.tested == "population-mean" and found.table["psnr_brain"].between(5, 60).all()
    assert len(found.imaged) == 4 and found.images("fmri").shape == (4, 24, 28, 24)
    assert found.images("no-such-method") is None and found.affine.shape == (4, 4)


@pytest.mark.parametrize(
    ("place", "value", "problem"),
    [
        (["methods"], {}, "entry methods "),
        (["methods", "copy-source", "dmri_to_fmri"], REMOVED, "entry methods.copy-source.dmri_to_fmri "),
        (["methods", "copy-source", "dmri_to_fmri", "psnr_brain"], 5.0, "dmri_to_fmri.psnr_brain "),
        (["methods", "copy-source", "dmri_to_fmri", "mae", "ci95"], [1.0], "dmri_to_fmri.mae"),
        (["n_participants"], 0, "entry n_participants "),
        (["n_scans"], 5, "has 4 scans of population-mean, fmri_to_dmri, and metrics.json 5"),
        (["simulated"], "no", "entry simulated "),
        (["comparisons", 0, "p_holm"], None, "entry comparisons.0.p_holm "),
        (["times", "copy-source"], [], "entry times.copy-source "),
    ],
)
def test_an_edited_metrics_json(results, place, value, problem):
    path = results / "metrics.json"
    content = json.loads(path.read_text())
    holder = content
    for key in place[:-1]:
        holder = holder[key]
    if value is REMOVED:
        del holder[place[-1]]
    else:
        holder[place[-1]] = value
    path.write_text(json.dumps(content))
    refused(lambda: Results.read(results), problem)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda t: t.drop(columns="site"), r"metrics\.tsv: lacks the columns site"),
        (lambda t: t.iloc[1:], r"metrics\.tsv: has 3 scans of population-mean"),
        (lambda t: t.assign(direction="up"), r"metrics\.tsv: has 'up' in line 2, column direction"),
        (lambda t: t.assign(mae="low"), r"metrics\.tsv: has 'low' in line 2, column mae"),
    ],
)
def test_an_edited_metrics_tsv(results, change, problem):
    path = results / "metrics.tsv"
    table = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
    change(table).to_csv(path, sep="\t", index=False)
    refused(lambda: Results.read(results), problem)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((3, 24, 28, 24), np.float16),
        np.zeros((4, 24, 28, 23), np.float16),
        np.zeros((4, 24, 28, 24), np.float32),
        np.zeros(4, np.float16),
        np.array([{}], object),
    ],
)
def test_volumes_that_are_not_those_of_the_scans(results, array):
    name = "population-mean_fmri_to_dmri"
    np.save(results / "predictions" / f"{name}.npy", array, allow_pickle=True)
    found = Results.read(results)
    refused(lambda: found.images(name), rf"{name}\.npy: ")


def test_edited_places_and_scans_of_the_volumes(results):
    found = Results.read(results)
    (results / "predictions" / "grid.json").write_text('{"affine": [[1, 0], [0, 1]]}')
    refused(lambda: found.affine, r"grid\.json: has an invalid entry affine")
    (results / "predictions" / "participants.tsv").write_text("participant_id\tsession_id\tsite\tdiagnosis\n")
    refused(lambda: found.imaged, r"participants\.tsv: has 0 scans")


@pytest.mark.parametrize(
    ("entries", "problem"),
    [
        ({"models": {"a": {"card": {"seed": "x"}}}}, "models.a.card.seed"),
        ({"data": {"groups": [{"site": "a"}]}}, "data.groups.0.split"),
        ({"data": {"ages": {"test": {"known": 1}}}}, "data.ages.test.mean"),
        ({"data": {"prepared": {"parameters": {"grid_mm": "4"}}}}, "data.prepared.parameters.grid_mm"),
        ({"notes": "a"}, "notes"),
    ],
)
def test_an_edited_manifest_of_results(results, entries, problem):
    (results / "manifest.json").write_text(json.dumps(entries))
    refused(lambda: Results.read(results), rf"manifest\.json: has an invalid entry {problem} ")


def test_evidence_that_was_edited(tmp_path):
    kinds = {"accuracy": 0.5, "method": "a", "scheme": "S1", "data": "real", "against": "b", "n": 3}
    cells = {name: kinds.get(name, 0.5) for name in SCHEME_SCORES.columns} | {"confusion": "NC, AD"}
    pd.DataFrame([cells]).to_csv(tmp_path / SCHEME_SCORES.name, sep="\t", index=False)
    refused(lambda: SCHEME_SCORES.read(tmp_path), r"table5\.tsv: has 'NC, AD' in line 2, column confusion")
    (tmp_path / "probes.json").write_text('{"recipe": "a", "memorisation": null, "lesions": null, "reasons": []}')
    refused(lambda: Probes.read(tmp_path), r"probes\.json: does not contain probes of this version")
