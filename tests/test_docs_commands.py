"""The commands of the README and the how-to pages run, in the order of the pages, on a tiny SIMULATED study.

A block of commands that takes long, or needs a GPU or a cluster, has a comment above it and is not run:
<!-- not run: it trains for two hours -->. The tutorial runs when the site is built (docs/generate/runs.py).
"""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest
import typer

from layouts import as_adni, as_derivatives, as_hospital, as_oasis3
from pdsynth.cli import app, main
from pdsynth.cohorts.simulated.cohort import simulate
from runs import blocks

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/how-to/*.md")), ROOT / "docs" / "troubleshooting.md"]
BLOCKS = [block for page in PAGES for block in blocks(page.read_text())]
COMMANDS = list(dict.fromkeys(line for commands, reason in BLOCKS if reason is None for line in commands))
LAST = "doctor --privacy"  # nothing follows it


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the inputs that the pages name: a study in every layout, and one scan."""
    root = tmp_path_factory.mktemp("docs")
    study = simulate(root / "my-study", subjects=8, missing_fmri=0.125, missing_dmri=0.125, quick=True)
    as_adni(study, root / "my-adni")
    as_oasis3(study, root / "my-oasis3", bids=False)
    as_derivatives(study, root / "my-derivatives")
    as_hospital(study, root / "my-hospital")
    scan = sorted(study.glob("sub-*/dwi/*_dwi.nii.gz"))[0]
    for ending in (".nii.gz", ".bval", ".bvec"):
        name = scan.name.removesuffix(".nii.gz") + ending
        shutil.copy(scan.with_name(name), root / f"sub-01_dwi{ending}")
    return root


def test_the_commands_run_and_name_the_next_one(
    world: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(world)
    group = typer.main.get_command(app)
    for command in COMMANDS:
        with pytest.raises(SystemExit) as stop:
            main(shlex.split(command)[1:])
        out, err = capsys.readouterr()
        assert stop.value.code == 0, f"{command}: {err}"
        following = re.findall(r"^Next: pdsynth (.+)$", out, re.M)
        assert following or LAST in command, f"{command} does not name the next command"
        for verb, *words in map(shlex.split, following):
            group.commands[verb].make_context(verb, words)  # type: ignore[attr-defined]
    written = ("prepared/quality.html", "results/report.html", "synthesised/synthesised.tsv", "run-ridge/model")
    assert [name for name in (*written, "adapted/config.json") if not (world / name).exists()] == []
    assert len(list(world.glob("synthesised/sub-*/*/*_desc-synthetic_*.nii.gz"))) == 2
    assert len(list(world.glob("out/sub-01/func/*_desc-synthetic_boldref.nii.gz"))) == 1


def test_most_verbs_are_run_and_each_block_that_is_not_has_its_reason() -> None:
    verbs = {line.split()[1] for line in COMMANDS}
    assert verbs >= {"inspect", "prepare", "synthesize", "evaluate", "report", "adapt", "train", "doctor"}
    reasons = [reason for commands, reason in BLOCKS if reason is not None]
    assert reasons and all(re.search(r"hour|minute|cluster|participants|recipe|example", reason) for reason in reasons)
