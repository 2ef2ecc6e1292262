"""What a run says of itself, in words: facts by name, from the tables and manifest of its results folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from pdsynth import manifest
from pdsynth.evaluation.archive import read_metrics, read_table, scores_and_times
from pdsynth.evaluation.provenance import UNKNOWN
from pdsynth.evaluation.statistics import SIGNIFICANT
from pdsynth.report import words
from pdsynth.report.findings import findings
from pdsynth.report.results import REMEDY, TEXT_COLUMNS
from pdsynth.types import Diagnosis, Direction, InputError

WORST = 3  # participants of a direction who are named as failures
PRIMARY = "psnr_brain"
GROUPS = ("site", "diagnosis")
COUNTED = {"sites": "site", "diagnoses": "diagnosis", "sexes": "sex", "splits": "split"}
ORDER = ("train", "val", "test", *Diagnosis)
YES = {True: "yes", False: "no", None: None}


@dataclass(frozen=True)
class Run:
    """A results folder without its images. entries is its manifest, empty where there is none."""

    root: Path
    metrics: dict[str, Any]
    table: pd.DataFrame
    entries: dict[str, Any]

    @classmethod
    def read(cls, root: Path) -> Run:
        """Raises InputError where metrics.json or metrics.tsv is missing or cannot be read."""
        try:
            metrics = read_metrics(root)
            table = read_table(root / "metrics.tsv", TEXT_COLUMNS)
        except FileNotFoundError as error:
            raise InputError(error.filename, "is missing, so there is nothing to report", REMEDY) from error
        except ValueError as error:
            raise InputError(root, f"holds a result file that cannot be read ({error})", REMEDY) from error
        return cls(root, metrics, table, manifest.read(root))

    @property
    def simulated(self) -> bool:
        """Whether the participants who were scored are simulated."""
        return bool(self.metrics["simulated"])

    @property
    def tested(self) -> str:
        """The method under test: the first that was evaluated."""
        return next(iter(self.metrics["methods"]))

    @property
    def model(self) -> dict[str, Any]:
        """What the manifest has of the method under test; empty where it has nothing."""
        return self.entries.get("models", {}).get(self.tested, {})

    @property
    def data(self) -> dict[str, Any]:
        """What the manifest has of the prepared folder; empty where it has nothing."""
        return self.entries.get("data", {})

    def people(self, direction: Direction) -> pd.DataFrame:
        """The primary score of the method under test, a row a participant (the mean of the sessions), worst first."""
        rows = self.table[(self.table["method"] == self.tested) & (self.table["direction"] == direction.value)]
        people = rows.groupby("participant_id", sort=True).agg({**dict.fromkeys(GROUPS, "first"), PRIMARY: "mean"})
        return people.reset_index().sort_values([PRIMARY, "participant_id"], ignore_index=True)

    def groups(self, direction: Direction) -> Iterator[dict[str, Any]]:
        """Mean primary score of the method under test in each site and diagnosis that is known."""
        people = self.people(direction)
        for by in GROUPS:
            scores = people[people[by].fillna("") != ""].groupby(by)[PRIMARY].agg(["mean", "count"])
            several = scores.loc[scores["count"] > 1, "mean"]  # one person is no group
            for name, row in scores.iterrows():
                yield {
                    "direction": words.DIRECTIONS[direction],
                    "by": by,
                    "name": str(name),
                    "n": int(row["count"]),
                    "psnr": words.number(row["mean"], 2),
                    "worst": len(several) > 1 and row["count"] > 1 and row["mean"] == several.min(),
                }


def facts(run: Run) -> dict[str, str]:
    """What is known, by the name that the checklists' sentences use; what is not known is not in it."""
    every = _scored(run) | _recorded(run.entries) | _trained(run.model) | _prepared(run.data)
    every |= findings(run.root, run.tested)
    if run.tested in run.metrics.get("uncertainty_from_samples", []):
        every.pop("calibrated", None)  # what is audited is the SD of draws
    return {name: str(value) for name, value in every.items() if value not in (None, "")}


def _scored(run: Run) -> dict[str, Any]:
    metrics = run.metrics
    others = [name for name in metrics["methods"] if name not in (run.tested, words.CEILING)]
    tests = metrics.get("comparisons", [])
    states = "coverage_90" in next(iter(metrics["methods"][run.tested].values()))
    return {
        "tested": run.tested,
        "kind": "SIMULATED participants" if run.simulated else "participants",
        "simulated": "SIMULATED" if run.simulated else None,
        "split": metrics.get("split"),
        "people": metrics["n_participants"],
        "scans": metrics.get("n_scans"),
        "seed": metrics.get("seed"),
        "others": ", ".join(others),
        "psnr": _both(run, run.tested, PRIMARY, 2, " dB"),
        "ssim": _both(run, run.tested, "ssim_brain", 3),
        "mae": _both(run, run.tested, "mae", 4),
        "psnr_full": _both(run, run.tested, "psnr_full", 2, " dB"),
        "shuffled": _both(run, run.tested, "shuffled_source_psnr_brain", 2, " dB"),
        "identified": _both(run, run.tested, "identification_rate", 2),
        "slope": _both(run, run.tested, "within_site_slope", 2),
        "coverage_50": _both(run, run.tested, "coverage_50", 3),
        "coverage_90": _both(run, run.tested, "coverage_90", 3),
        "seconds": _both(run, run.tested, "seconds_per_volume", 3, " s"),
        "average": _both(run, words.AVERAGE, PRIMARY, 2, " dB"),
        "ceiling": _both(run, words.CEILING, PRIMARY, 2, " dB"),
        "spread": words.spread(run.tested, metrics) if states else None,
        "comparisons": _compared(tests),
        "worst": _each(lambda d: ", ".join(run.people(d)["participant_id"].head(WORST))),
        "worst_groups": _each(lambda d: _worst_groups(run, d)),
    }


def _compared(tests: Sequence[Mapping[str, Any]]) -> str:
    """In how many of the tests of the primary endpoint the method under test is told from another, by sign."""
    differences = [test["psnr_brain_difference"] for test in tests if test["p_holm"] < SIGNIFICANT]
    higher = sum(difference > 0 for difference in differences)
    return f"higher in {higher}, lower in {len(differences) - higher}, of {len(tests)}" if tests else ""


def _worst_groups(run: Run, direction: Direction) -> str:
    worst = (group for group in run.groups(direction) if group["worst"])
    return ", ".join("{by} {name} ({psnr} dB, n = {n})".format_map(group) for group in worst)


def _recorded(entries: Mapping[str, Any]) -> dict[str, Any]:
    inputs = (f"{Path(path).name} (sha256 {digest})" for path, digest in entries.get("inputs", {}).items())
    return {
        "version": entries.get("version"),
        "command": entries.get("command"),
        "python": entries.get("python"),
        "started": entries.get("started"),
        "inputs": ", ".join(inputs),
        "notes": " ".join(entries.get("notes", [])),
    }


def _trained(model: Mapping[str, Any]) -> dict[str, Any]:
    card = model.get("card", {})
    budget, scores = card.get("budget_seconds"), card.get("validation_psnr_brain", {})
    kind = {True: "SIMULATED participants", False: "participants", None: None}[card.get("simulated")]
    return {
        "weights": model.get("sha256"),
        "settings": _listed(model.get("settings", {})),
        "recipe": card.get("recipe"),
        "size": card.get("size"),
        "model_version": card.get("version"),
        "intended_use": card.get("intended_use"),
        "trained_kind": kind,
        "trained_people": card.get("n_participants"),
        "trained_digest": card.get("participants_sha256"),
        "trained_cohort": card.get("cohort"),
        "trained_seed": card.get("seed"),
        "trained_steps": card.get("steps"),
        "trained_budget": None if budget is None else f"{budget:g}",
        "trained_on": card.get("made_on"),
        "training_data": card.get("training_data"),
        "begun_with": card.get("init"),
        "loss_features": card.get("loss_features"),
        "calibrated": _calibrated(card.get("calibration")),
        "validated": ", ".join(f"{words.DIRECTIONS[Direction(d)]} {words.number(v, 2)} dB" for d, v in scores.items()),
    }


def _calibrated(told: Mapping[str, Any] | None) -> str:
    if told is None:
        return ""
    kind = "SIMULATED participants" if told["simulated"] else "participants"
    return f"on {told['n_participants']} {kind} of cohort {told['cohort']}, times {_listed(told['scale'])}"


def _prepared(data: Mapping[str, Any]) -> dict[str, Any]:
    prepared = data.get("prepared") or {}
    settings = prepared.get("parameters") or {}
    rejected, flagged, ages = data.get("rejected"), data.get("flagged") or {}, data.get("ages", {})
    return {
        "cohort": data.get("cohort"),
        "data_people": data.get("n_participants"),
        "sessions": data.get("n_sessions"),
        "available": _listed(data.get("available", {})),
        **{name: _listed(counted(data, column)) for name, column in COUNTED.items()},
        "ages": "; ".join(f"{split} {_age(ages[split])}" for split in sorted(ages, key=place) if ages[split]["known"]),
        "refused": None if rejected is None else sum(rejected.values()),
        "judged": flagged.get("scans"),
        "flagged": flagged.get("flagged"),
        "prepared_version": prepared.get("version"),
        "prepared_started": prepared.get("started"),
        "grid_mm": f"{settings['grid_mm']:g}" if "grid_mm" in settings else None,
        "segments": settings.get("segments"),
        "fractions": ", ".join(f"{part:g}" for part in settings.get("split", [])),
        "split_seed": prepared.get("seed"),
        "denoised": YES[settings.get("denoise")],
        "realigned": YES[settings.get("realign")],
        "tables": _listed(prepared.get("outputs") or {}),
    }


def counted(data: Mapping[str, Any], column: str) -> dict[str, int]:
    """Participants of the prepared folder by one of split, site, diagnosis and sex; none where nothing is known."""
    counts: dict[str, int] = {}
    for group in data.get("groups", []):
        counts[group[column]] = counts.get(group[column], 0) + group["participants"]
    return {name: counts[name] for name in sorted(counts, key=place)} if set(counts) != {UNKNOWN} else {}


def place(name: str) -> tuple[int, str]:
    """Splits and diagnoses in their own order, all else after them by name."""
    return (ORDER.index(name) if name in ORDER else len(ORDER)), name


def _both(run: Run, method: str, metric: str, decimals: int, unit: str = "") -> str:
    """A metric in both directions with its interval; empty where it was not measured."""

    def said(direction: Direction) -> str:
        mean, low, high = words.value_of(scores_and_times(run.metrics, method, direction), metric)
        if mean is None:
            return ""
        interval = words.interval(low, high, decimals)
        return f"{words.number(mean, decimals)}{unit}" + (f" ({interval})" if interval else "")

    return _each(said)


def _each(said: Callable[[Direction], str]) -> str:
    """What is said of each direction, those of which nothing is said left out."""
    told = ((words.DIRECTIONS[direction], said(direction)) for direction in Direction)
    return "; ".join(f"{name} {text}" for name, text in told if text)


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}: {value}" for name, value in values.items())


def _age(spread: Mapping[str, Any]) -> str:
    deviation = "" if spread["sd"] is None else f" (SD {spread['sd']:g})"
    return f"{spread['mean']:g}{deviation}, {spread['min']:g} to {spread['max']:g}, of {spread['known']} participants"
