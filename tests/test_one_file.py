"""One new file is enough: the files of docs/how-to/extend.md, dropped into a copy of the package, are found."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import pdsynth
from fixture_trees import write_dwi, write_scan
from pdsynth.benchmark.code import code_digest
from pdsynth.cohorts import LAYOUTS
from pdsynth.evaluation.metrics import METRICS, MODULES
from pdsynth.recipes import RECIPES

ROOT = Path(__file__).parents[1]
FILES = dict(re.findall(r"```python\n# (src/\S+)\n(.*?)```", (ROOT / "docs/how-to/extend.md").read_text(), re.S))
DIGESTS = """
import json
from pdsynth.benchmark.code import code_digest
from pdsynth.evaluation.metrics import MODULES
training = code_digest("pdsynth.training", "pdsynth.methods.unet")
print(json.dumps([training, code_digest("pdsynth.evaluation.evaluate", *MODULES)]))
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> dict[str, str]:
    """In which a process takes the copy, with the three files, for pdsynth."""
    copy = tmp_path_factory.mktemp("copy")
    shutil.copytree(Path(pdsynth.__file__).parent, copy / "src/pdsynth", ignore=shutil.ignore_patterns("__pycache__"))
    for path, text in FILES.items():
        assert not (copy / path).exists()
        (copy / path).write_text(text)
    return os.environ | {"PYTHONPATH": str(copy / "src"), "COLUMNS": "200"}


def run(environment: dict[str, str], *words: object) -> str:
    done = subprocess.run(
        [sys.executable, *map(str, words)], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_page_has_one_file_of_each_kind():
    folders = {str(Path(path).parent) for path in FILES}
    assert folders == {"src/pdsynth/methods", "src/pdsynth/cohorts", "src/pdsynth/evaluation/metrics"}
    assert "line" not in RECIPES and "flat" not in LAYOUTS and "rmse" not in {metric.name for metric in METRICS}


def test_a_new_method_is_a_recipe(environment):
    listed = run(environment, "-m", "pdsynth", "recipes")
    baselines = listed.split("Recipes: baseline")[1].split("Recipes: ours")[0]
    assert re.search(r"line +│ line +│ full +│ one straight line between intensities", baselines)


def test_a_new_method_is_under_the_conformance_tests(environment):
    """Its closed-form fit is trained, saved, loaded and predicts, as every method's."""
    words = ("-o", "pythonpath=tests", "-p", "no:cacheprovider", "-p", "no:xdist", "-q", "-k", "[line or -line]")
    ran = run(environment, "-m", "pytest", *words, "tests/methods/test_conformance.py")
    assert re.search(r"^\d+ passed, \d+ deselected", ran, re.M), ran


def test_a_new_layout_is_recognised_and_read(environment, tmp_path):
    write_scan(tmp_path / "P1_bold.nii.gz")
    write_dwi(tmp_path / "P1_dwi.nii.gz")
    write_scan(tmp_path / "P2_bold.nii.gz")
    found = json.loads(run(environment, "-m", "pdsynth", "inspect", tmp_path, "--json"))
    assert found["participants"] == 2 and found["scans"] == {"fmri": 2, "dmri": 1}
    assert json.loads(run(environment, "-m", "pdsynth", "inspect", tmp_path, "--json", "--layout", "flat")) == found


def test_a_new_method_and_a_new_metric_are_in_the_tables_and_the_report(environment, prepared, tmp_path):
    out = tmp_path / "out"
    words = ("--recipes", "line,population-mean", "--steps", 1, "--jobs", 1)
    run(environment, "-m", "pdsynth", "benchmark", prepared.root, out, *words)
    run(environment, "-m", "pdsynth", "report", out)
    for number in (2, 3):
        table = pd.read_csv(out / f"table{number}.tsv", sep="\t")
        assert set(table["method"]) == {"line", "population-mean"}
        assert (table["rmse_low"] <= table["rmse"]).all() and (table["rmse"] <= table["rmse_high"]).all()
    assert set(pd.read_csv(out / "table7.tsv", sep="\t")["method"]) == {"population-mean"}  # a control is in every one
    scans = pd.read_csv(out / "metrics.tsv", sep="\t")
    np.testing.assert_allclose(-20 * np.log10(scans["rmse"]), scans["psnr_brain"], atol=1e-3)
    html = (out / "report.html").read_text()
    assert "<dt>RMSE</dt><dd>Root mean squared error inside the brain.</dd>" in html and ">line<" in html


def test_new_files_make_no_other_run_anew_but_every_score(environment):
    training, scoring = json.loads(run(environment, "-c", DIGESTS))
    assert training == code_digest("pdsynth.training", "pdsynth.methods.unet")
    assert scoring != code_digest("pdsynth.evaluation.evaluate", *MODULES)
