"""The BIDS validator accepts the datasets that pdsynth writes; .bidsignore names and explains each exception."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fixture_trees import copy_source_model
from pdsynth.cohorts.bidsignore import NAME, REASONS
from pdsynth.cohorts.simulated.cohort import simulate
from pdsynth.missing import synthesise_path

VALIDATOR = Path(sys.executable).with_name("bids-validator-deno")


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """A folder with a simulated cohort, and with the volumes of both modalities that were synthesised from it."""
    folder = tmp_path_factory.mktemp("written")
    simulate(folder / "cohort", subjects=1, seed=0, quick=True)
    (scan_folder,) = (folder / "cohort").glob("sub-*")
    model = copy_source_model(folder / "model")
    for modality, other in (("func", "dwi"), ("dwi", "func")):
        lacking = folder / f"without-{other}" / scan_folder.name
        shutil.copytree(scan_folder / modality, lacking / modality)
        out = folder / f"synthetic-{other}"
        synthesise_path(model, lacking.parent, out, space="MNI152NLin6Asym")
        for name in ("methods.md", "references.bib"):  # the command writes these too
            (out / name).write_text("A text.\n")
    return folder


def errors(dataset: Path, cache: Path) -> list[tuple[str, str]]:
    """Code and file of each error that the validator finds."""
    command = [VALIDATOR, "--format", "json", dataset]
    environment = os.environ | {"DENO_DIR": str(cache)}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    issues = json.loads(result.stdout)["issues"]["issues"]
    return [(issue["code"], issue["location"]) for issue in issues if issue["severity"] == "error"]


DATASETS = ("cohort", "cohort/derivatives/truth", "synthetic-dwi", "synthetic-func")


@pytest.mark.parametrize("dataset", DATASETS)
def test_the_validator_accepts_every_name_that_is_not_explained(dataset, written, tmp_path) -> None:
    assert errors(written / dataset, tmp_path) == []


@pytest.mark.parametrize("dataset", DATASETS)
def test_each_exception_is_needed_and_explained(dataset, written, tmp_path) -> None:
    copy = shutil.copytree(written / dataset, tmp_path / "copy", ignore=shutil.ignore_patterns("derivatives"))
    patterns = [line for line in (copy / NAME).read_text().splitlines() if not line.startswith("#")]
    (copy / NAME).unlink()
    refused = {Path(location).name for code, location in errors(copy, tmp_path / "cache") if code == "NOT_INCLUDED"}
    present = [pattern for pattern in patterns if any(copy.rglob(pattern))]
    assert refused == {path.name for pattern in present for path in copy.rglob(pattern)}
    assert set(patterns) <= REASONS.keys()
