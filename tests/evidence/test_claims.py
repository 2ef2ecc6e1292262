"""A new claim is one new folder: the report and the cards have it, and nothing else is edited."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pdsynth
from pdsynth.evaluation.evaluate import evaluate
from pdsynth.evidence.claims import claims
from pdsynth.methods.base import MethodConfig
from pdsynth.methods.controls import CopySource

WRITTEN = """
import sys
from pdsynth.evidence.claims import write_cards, write_report
write_report(sys.argv[1]), write_cards(sys.argv[1])
"""
CLAIM = {
    "__init__.py": '"""Claim: the results folder has a name."""\n',
    "section.py": """
from pdsynth.report.sections import Section, Table

ADDRESSES = {"names": "names of folders", "more": "a question without an answer"}


def sections(results):
    table = Table("The folder", ["Name"], [[results.root.name]])
    yield Section("names", "A name", 15, "How is the folder called?", [f"Its name is {results.root.name}."], [table])


def facts(results):
    return {"permuted": f"none in {results.root.name}"}
""",
}


def test_the_claims_are_the_packages():
    names = [claim.__name__.split(".")[-2] for claim in claims()]
    assert names == sorted(names) and {"effects", "diagnosis", "completion", "group_effects"} <= set(names)
    assert {"probes", "sites", "calibration"} <= set(names)
    keys = [key for claim in claims() for key in claim.ADDRESSES]
    assert len(keys) == len(set(keys))


def test_a_claim_that_is_dropped_in_is_in_the_report_and_the_cards(prepared, tmp_path):
    out = tmp_path / "results-7"
    evaluate({"copy-source": CopySource(MethodConfig(prepared.grid.shape))}, prepared.test, out)
    package, copy = Path(pdsynth.__file__).parent, tmp_path / "source" / "pdsynth"
    copy.mkdir(parents=True)
    for path in package.iterdir():
        if path.name != "evidence":
            (copy / path.name).symlink_to(path)
    shutil.copytree(package / "evidence", copy / "evidence")
    (copy / "evidence" / "naming").mkdir()
    for name, text in CLAIM.items():
        (copy / "evidence" / "naming" / name).write_text(text)
    environment = os.environ | {"PYTHONPATH": str(copy.parent), "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run([sys.executable, "-c", WRITTEN, out], env=environment, check=True)
    page = (out / "report.html").read_text()
    assert '<section id="names">' in page and '<a href="#names">A name</a>' in page
    assert "<b>Its name is results-7.</b>" in page and '<th scope="row">results-7</th>' in page
    assert "a question without an answer" in page and "names of folders" not in page
    assert "none in results-7" in (out / "model_card.md").read_text()
