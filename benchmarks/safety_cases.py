"""The commands that `safety.py` attacks, each as small as possible, and the comparable content of their outputs."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from pdsynth import manifest
from pdsynth.files import sha256

TIMES = {"started", "finished", "seal", "peak_memory_mb", "resume", "mtime_ns", "ctime_ns", "inode"}
BY_THE_CLOCK = ("metrics.csv", ".ckpt", ".ckpt.json", "cost.json", "fit.json")  # files that contain wall times
TIMED_TABLE = re.compile(r"(.*/)?table\d\.tsv")  # of a benchmark: with columns of seconds and memory
PAGES = (".html", ".md")  # may contain a date


@dataclass(frozen=True)
class Case:
    """A command (verb) and its arguments. The argument OUT represents the output. base is a folder that it updates."""

    verb: str
    words: Sequence[str]
    again: Sequence[str] = ()  # further arguments of a run that resumes
    base: Path | None = None
    has_workers: bool = False
    inputs: dict[str, Path] = field(default_factory=dict)

    def begin(self, folder: Path) -> Path:
        """The output folder of a trial, with the content of `base`."""
        out = folder / "out"
        if self.base is not None:
            shutil.copytree(self.base, out)
        return out

    def arguments(self, out: Path, again: bool = False) -> list[str]:
        """The arguments of the command line."""
        words = [str(out) if word == "OUT" else word for word in self.words]
        return [self.verb, *words, *(self.again if again else ())]

    def content(self, out: Path) -> dict[str, str]:
        """Digests of all files by path: of manifests without times, and empty for files that contain wall times."""
        found = {}
        for path in sorted(p for p in out.rglob("*") if p.is_file()):
            name = path.relative_to(out).as_posix()
            if name.endswith(BY_THE_CLOCK) or name.endswith(PAGES):
                found[name] = ""
            elif TIMED_TABLE.fullmatch(name):
                found[name] = _digest(_timeless(pd.read_csv(path, sep="\t", dtype=str).to_dict("list")))
            elif path.suffix == ".json" or path.name == manifest.NAME:
                found[name] = _digest(_timeless(json.loads(path.read_text())))
            else:
                found[name] = sha256(path)
        return found


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _timeless(content: Any) -> Any:
    """JSON content without times, without the digests of files that contain times, and without repeated additions."""
    if isinstance(content, dict):
        if isinstance(content.get("added"), list):
            content = content | {"added": sorted({json.dumps(_timeless(each)) for each in content["added"]})}
        return {
            k: _timeless(v)
            for k, v in content.items()
            if k not in TIMES
            and "seconds" not in k
            and not TIMED_TABLE.fullmatch(k)
            and not k.endswith((*PAGES, *BY_THE_CLOCK, ".json"))
        }
    return [_timeless(each) for each in content] if isinstance(content, list) else content


def prepare_inputs(folder: Path, verbs: set[str]) -> dict[str, Path]:
    """Create the cohorts, prepared folders, models and results that the commands need, unless they exist."""
    names = ("bids", "prepared", "run", "results", "others-bids", "small-bids", "pds")
    names += ("many-bids", "many", "many-results", "others")
    paths = {name: folder / name for name in names}
    if not verbs <= {"simulate"} and not paths["others"].exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        quick, ridge = ["--quick", "--grid-mm", "8"], paths["run"] / "model"
        for words in (
            ["simulate", paths["bids"], "--subjects", "12", *quick, "--missing-dmri", "0.17"],
            ["prepare", paths["bids"], paths["prepared"], "--grid-mm", "8", "--split", "0.4,0,0.6"],
            ["simulate", paths["small-bids"], "--subjects", "3", *quick, "--missing-dmri", "0.34"],
            ["train", paths["prepared"], paths["pds"], "--recipe", "pds", "--steps", "2"],
            ["train", paths["prepared"], paths["run"], "--recipe", "local-ridge"],
            ["evaluate", paths["prepared"], "--model", ridge, "--no-controls", "--out", paths["results"]],
            # `diagnose` needs at least five people per class
            ["simulate", paths["many-bids"], "--subjects", "24", *quick, "--seed", "11"],
            ["prepare", paths["many-bids"], paths["many"], "--grid-mm", "8", "--split", "0.1,0,0.9"],
            ["evaluate", paths["many"], "--model", ridge, "--no-controls", "--out", paths["many-results"]],
            ["simulate", paths["others-bids"], "--subjects", "10", *quick, "--seed", "7"],
            ["prepare", paths["others-bids"], paths["others"], "--grid-mm", "8", "--split", "0,1,0"],
        ):
            subprocess.run([sys.executable, "-m", "pdsynth", *map(str, words)], check=True, stdout=subprocess.DEVNULL)
    return paths


def cases(inputs: dict[str, Path]) -> list[Case]:
    """Every command that writes, each as small as possible."""
    bids, small, prepared, model = (str(inputs[name]) for name in ("bids", "small-bids", "prepared", "run"))
    model = f"{model}/model"
    results = inputs["results"]
    quick = ["--model", model, "--no-controls", "--out", "OUT"]
    common: dict[str, Any] = {"inputs": inputs}
    train = [prepared, "OUT", "--recipe", "voxel-mlp", "--set", "width=16", "--steps", "40"]
    return [
        Case(
            "simulate",
            ["OUT", "--subjects", "2", "--quick", "--grid-mm", "8", "--jobs", "1"],
            has_workers=True,
            **common,
        ),
        Case("prepare", [small, "OUT", "--grid-mm", "8", "--jobs", "1"], has_workers=True, **common),
        Case("train", train, ["--resume"], **common),
        Case("calibrate", [str(inputs["pds"] / "model"), str(inputs["others"]), "OUT"], **common),
        Case("adapt", [str(inputs["pds"] / "model"), str(inputs["others"]), "OUT"], **common),
        Case("synthesize", [model, bids, "OUT", "--jobs", "1"], has_workers=True, **common),
        Case("evaluate", [prepared, *quick], **common),
        Case("evidence", [prepared, *quick, "--jobs", "1"], **common),
        Case("effects", [prepared, "--out", "OUT", "--folds", "2", "--groups", "AD,NC"], **common),
        Case(
            "benchmark",
            [prepared, "OUT", "--recipes", "zeros,population-mean", "--steps", "1", "--jobs", "1"],
            **common,
        ),
        Case("roi", ["OUT"], base=results, **common),
        Case("diagnose", ["OUT"], base=inputs["many-results"], **common),
        Case("report", ["OUT"], base=results, **common),
        Case("demo", ["--out", "OUT", "--jobs", "1"], **common),
    ]
