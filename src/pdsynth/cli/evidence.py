"""Verbs beyond image quality: roi, diagnose, evidence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from pdsynth import manifest
from pdsynth.cli.console import done
from pdsynth.cli.options import JOBS, Budget, Device, DeviceOption, Jobs, Out, Overwrite, PreparedFolder, Seed
from pdsynth.cli.results import AtlasFile, Controls, Models, Samples, Split, Steps, print_scores, scored
from pdsynth.resources import seconds

ResultsFolder = Annotated[Path, typer.Argument(help="A folder written by evaluate.", metavar="DIR")]
MethodNames = Annotated[
    list[str] | None,
    typer.Option("--method", help="A method whose scans are used; may be repeated (default: the one under test).",
                 metavar="NAME"),
]  # fmt: skip


def roi(results: ResultsFolder, seed: Seed = 0) -> None:
    """Region patterns, real against synthesised, and the groups' effects; writes tables and Figs. 5 and 6."""
    from pdsynth.evidence import write_roi

    with manifest.added(results, "roi", seed=seed):
        write_roi(results, seed)
    done(f"Effects, agreement and Figs. 5 and 6 are in {results}", "report", results)


def diagnose(results: ResultsFolder, method: MethodNames = None, seed: Seed = 0) -> None:
    """Diagnosis with real and synthesised scans and with all controls; writes Tables V and IX and Fig. 7."""
    from pdsynth.evidence import write_diagnosis

    with manifest.added(results, "diagnose", seed=seed, method=method):
        write_diagnosis(results, method, seed)
    done(f"Tables V and IX and Fig. 7 are in {results}", "report", results)


def evidence(
    prepared: PreparedFolder,
    model: Models,
    out: Out,
    split: Split = "test",
    controls: Controls = True,
    samples: Samples = 0,  # draws take longer than all the rest, and the model states its uncertainty
    steps: Steps = 8,
    atlas: AtlasFile = None,
    leave_site_out: Annotated[
        bool,
        typer.Option("--leave-site-out", help="Train anew without each site, --budget each; two trainings a site."),
    ] = False,
    budget: Budget = None,
    seed: Seed = 0,
    jobs: Jobs = JOBS,
    device: DeviceOption = Device.auto,
    overwrite: Overwrite = False,
) -> None:
    """Everything at once: evaluate, roi, diagnose, probes of the first model, checklists, cards and the report."""
    from pdsynth.data.pairs import Pairs
    from pdsynth.evidence import sites_to_leave_out, write_diagnosis, write_probes, write_roi, write_sites
    from pdsynth.report import write_cards, write_report

    limit = seconds(budget) if budget else None
    if split == "train":
        raise ValueError("--split train holds the people whom models are trained on. Take val or test.")
    if leave_site_out:
        sites_to_leave_out(Pairs.open(prepared))  # before hours are spent
    with scored(
        "evidence", prepared, model, out, split, controls, samples, steps, atlas, seed, device, overwrite
    ) as made:
        tested = next(iter(made.models.values()))
        parts: dict[str, Callable[[], object]] = {
            "Effects and patterns": lambda: write_roi(made.folder, seed),
            "Diagnosis": lambda: write_diagnosis(made.folder, None, seed),
            "Probes": lambda: write_probes(made.folder, tested, made.pairs, split, seed, jobs),
        }
        if leave_site_out:
            parts["A site left out"] = lambda: write_sites(made.folder, tested, made.pairs, limit, seed, device.value)
        for name, write in parts.items():
            try:
                write()
            except ValueError as error:  # a class too small for the folds, say: the other parts stand
                made.notes.append(f"{name}: not done. {error}")
    write_cards(out)  # from a manifest that says it is finished
    print_scores(out)
    done(f"Open {write_report(out)} in a browser; checklists and cards are beside it")
