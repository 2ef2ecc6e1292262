"""The demonstration: simulate a cohort with missing scans, synthesise these, evaluate the model and report."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from pdsynth import api, manifest
from pdsynth.cohorts.bids import bids
from pdsynth.cohorts.simulated.cohort import simulate_cohort
from pdsynth.data.prepare import prepare_cohort
from pdsynth.evaluation.provenance import provenance
from pdsynth.evidence.claims import write_report
from pdsynth.missing import synthesise_path
from pdsynth.options import PrepareOptions, SimulateOptions
from pdsynth.progress import Update, progress
from pdsynth.report.quality import write_quality
from pdsynth.resources import resolve_device
from pdsynth.results.entries import DEFAULT, label
from pdsynth.workers import Workers

SUBJECTS = 28
SITES = ("oasis", "adni", "hospital")
MISSING = 0.15  # fraction of the participants without fMRI, and fraction of the participants without dMRI
SPLIT = (0.5, 0.0, 0.5)  # one half fits the controls, the other is scored
TRAIN_BUDGET = 90.0  # seconds, for --train

SHIPPED = (
    "The shipped model was trained on another, larger simulated cohort, which shares no participant with this one; "
    "the simple methods for comparison that need a fit (controls) were fitted to this cohort's own training split."
)
TRAINED = (
    "The model was trained for a short time, and the simple methods for comparison that need a fit (controls) were "
    "fitted, on this cohort's own training split."
)


def run(out: Path, *, train: bool, seed: int, jobs: int, device: str) -> Path:
    """Simulate, prepare, synthesise the missing scans with the shipped model or one trained here, evaluate, report.

    out: a folder that is empty or does not exist; it receives bids/, prepared/, synthesised/, metrics.json and
    report.html, and model/ if a model is trained. train: whether to train a model for 90 seconds in place of the
    shipped one. seed: of all random numbers. jobs: number of processes that simulate, prepare and evaluate. device:
    "auto", "cpu" or "cuda". Returns the path of report.html. Prints each step with its duration in seconds.
    """
    console, device = Console(), resolve_device(device)
    out.mkdir(parents=True, exist_ok=True)
    dataset, prepared = out / "bids", out / "prepared"
    with manifest.recorded(out, "demo", seed=seed, subjects=SUBJECTS, missing=MISSING, train=train) as entries:
        entries["notes"] = [TRAINED if train else SHIPPED]
        simulated_people = f"Simulated {SUBJECTS} participants at {len(SITES)} simulated sites, some lack a scan"
        with _step(console, "Simulating participants", simulated_people) as update:
            simulated = SimulateOptions(
                subjects=SUBJECTS, seed=seed, sites=SITES, missing_fmri=MISSING, missing_dmri=MISSING, quick=True
            )
            simulate_cohort(dataset, simulated, jobs, update)
        preprocessing = None
        if not train:
            with _step(console, "Loading the model", "Loaded the shipped model"):
                model = api.load("default", device)
            preprocessing = model.preprocessing  # it may be older than that of `prepare`
        with _step(console, "Preparing pairs", "Prepared pairs on one grid, split by participant") as update:
            pairs = prepare_cohort(
                bids(dataset),
                prepared,
                PrepareOptions(split=SPLIT, seed=seed),
                Workers(jobs),
                preprocessing=preprocessing,
                progress=update,
                page=write_quality,
            )
        if train:
            with _step(console, "Training pds", "Trained pds"):
                model = api.fit("pds", pairs.train, run=out, budget=TRAIN_BUDGET, seed=seed, device=device)
        with _step(console, "Fitting controls", "Fitted the controls on the training participants") as update:
            methods = api.fit_controls(pairs.train, seed=seed, progress=update)
        with _step(console, "Synthesising", "Synthesised the missing scans") as update:
            written, _ = synthesise_path(
                out / "model" if train else "default",
                dataset,
                out / "synthesised",
                seed=seed,
                device=device,
                progress=update,
            )
        with _step(console, "Evaluating the methods", "Evaluated on the held-out participants"):
            name = f"model ({model.card['recipe']})" if train else label(DEFAULT, model.card["recipe"])
            scored: dict[str, api.Model | api.Method] = {name: model, **methods}
            api.evaluate(scored, pairs.test, out, seed=seed, jobs=jobs)
        entries |= provenance({name: model}, pairs)
        entries["synthesised_files"] = len(written)
    with _step(console, "Writing the report", "Wrote the report"):
        return write_report(out)


@contextmanager
def _step(console: Console, doing: str, done: str) -> Iterator[Update]:
    """Time a step and print its line at its end; yields a function that shows how much of the step is done.

    doing, done: the step in words, while it goes on and in its line.
    """
    start = time.monotonic()
    with progress(doing) as update:
        yield update
    console.print(f"{done}  [dim]{time.monotonic() - start:.1f} s[/dim]", highlight=False)
