"""The types of the public interface as a program outside the package sees them (py.typed)."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pdsynth

CLIENT = """
from pathlib import Path
import pdsynth
from pdsynth.types import Modality

cohort = pdsynth.cohorts.bids("study")
pairs = pdsynth.prepare(cohort, out="prepared", split=(0.5, 0.0, 0.5))
model = pdsynth.fit("local-ridge", pairs.train, run="run", device="cpu")
shipped = pdsynth.load("default")
scores = pdsynth.evaluate({"own": model, "shipped": shipped}, pairs.test)
synthesis = shipped.synthesize("sub-01_task-rest_bold.nii.gz", to=Modality.DMRI, samples=2)
written, refused = pdsynth.synthesise("default", Path("study"), Path("out"))
factors = pdsynth.calibrate("default", pairs, "calibrated")
for name in ("cohort", "pairs", "model", "scores", "synthesis", "written", "factors"):
    print(name)
reveal_type(cohort)
reveal_type(pairs)
reveal_type(model)
reveal_type(scores)
reveal_type(synthesis)
reveal_type(written)
reveal_type(factors)
"""
REVEALED = [
    "pdsynth.cohorts.cohort.Cohort",
    "pdsynth.data.pairs.Pairs",
    "pdsynth.synthesis.Model",
    "dict[str, Any]",
    "pdsynth.synthesis.Synthesis",
    "list[pathlib.Path]",
    "dict[pdsynth.types.Direction, pdsynth.evidence.calibration.compute.Calibration]",
]


def test_a_client_is_checked_against_the_types_of_the_package(tmp_path: Path) -> None:
    """The client and a copy with two wrong arguments, outside the repository, which find the package as installed."""
    assert (Path(pdsynth.__file__).parent / "py.typed").is_file()
    (tmp_path / "client.py").write_text(CLIENT)
    wrong = CLIENT.replace('run="run"', 'runs="run"').replace("samples=2", 'samples="2"')
    (tmp_path / "wrong.py").write_text(wrong)
    words = ["--strict", "--follow-imports=silent", "--config-file=", "--cache-dir", "cache", "client.py", "wrong.py"]
    shown = subprocess.run(
        [sys.executable, "-m", "mypy", *words], cwd=tmp_path, check=False, capture_output=True, text=True
    )
    lines = shown.stdout.splitlines()
    found = [line.split('"')[1].replace("builtins.", "") for line in lines if re.match("client.py.*Revealed", line)]
    assert found == REVEALED, shown.stdout + shown.stderr
    errors = [line for line in lines if ": error: " in line]
    assert len(errors) == 2 and all(line.startswith("wrong.py") for line in errors), shown.stdout


def test_the_names_for_type_checkers_are_the_public_ones() -> None:
    assert set(pdsynth.__all__) == {"__version__", *pdsynth._PUBLIC}
