"""Facts about a run for the checklists and cards: text by name, from tables and manifest of a results folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from pdsynth.evaluation.metrics import PRIMARY
from pdsynth.report import words
from pdsynth.report.sections import Claim
from pdsynth.results.folder import Results, scores_and_times
from pdsynth.statistics.inference import SIGNIFICANT
from pdsynth.types import NA, Diagnosis, Direction, Split

WORST = 3  # participants per direction who are listed as failures
GROUPS = ("site", "diagnosis")
COUNTED = {"sites": "site", "diagnoses": "diagnosis", "sexes": "sex", "splits": "split"}
ORDER = (*Split, *Diagnosis)
YES = {True: "yes", False: "no", None: None}


@dataclass(frozen=True)
class Group:
    """The participants of one site or of one diagnosis, with their mean PSNR in the brain (dB).

    by: "site" or "diagnosis". name: of the site or diagnosis. n: number of participants. mean: over participants.
    worst: whether it has the lowest mean among the sites, or among the diagnoses, with two participants or more.
    """

    by: str
    name: str
    n: int
    mean: float
    worst: bool


def participants_of(results: Results, direction: Direction) -> pd.DataFrame:
    """PSNR in the brain (dB) of the method under test for each participant, in one direction, lowest first.

    Returns a table with one row per participant: participant_id, site, diagnosis and psnr_brain, the mean over
    sessions.
    """
    rows = results.scan_scores(results.tested, direction)
    people = rows.groupby("participant_id", sort=True).agg({**dict.fromkeys(GROUPS, "first"), PRIMARY: "mean"})
    return people.reset_index().sort_values([PRIMARY, "participant_id"], ignore_index=True)


def groups_of(results: Results, direction: Direction) -> Iterator[Group]:
    """Mean PSNR in the brain (dB) of the method under test, for each known site and then for each known diagnosis.

    direction: of synthesis.
    """
    people = participants_of(results, direction)
    for by in GROUPS:
        scores = people[people[by].fillna("").astype(str) != ""].groupby(by)[PRIMARY].agg(["mean", "count"])
        several = scores.loc[scores["count"] > 1, "mean"]  # a group needs two participants
        for name, row in scores.iterrows():
            worst = len(several) > 1 and row["count"] > 1 and row["mean"] == several.min()
            yield Group(by, str(name), int(row["count"]), float(row["mean"]), bool(worst))


def facts(results: Results, claims: Iterable[Claim]) -> dict[str, str]:
    """All facts about a run, as text by name, for the sentences of the checklists and cards; an unknown fact is absent.

    claims: modules, each of which reads its own result files of the folder and returns facts.
    """
    every = _scored(results) | _recorded(results.manifest) | _trained(results.model) | _prepared(results.data)
    for claim in claims:
        every |= claim.facts(results)
    return {name: str(value) for name, value in every.items() if value not in (None, "")}


def _scored(results: Results) -> dict[str, Any]:
    metrics = results.metrics
    others = [name for name in metrics["methods"] if name not in (results.tested, words.CEILING)]
    tests = metrics.get("comparisons", [])
    return {
        "tested": results.tested,
        "kind": "SIMULATED participants" if results.simulated else "participants",
        "simulated": "SIMULATED" if results.simulated else None,
        "split": metrics.get("split"),
        "people": metrics["n_participants"],
        "scans": metrics.get("n_scans"),
        "seed": metrics.get("seed"),
        "others": ", ".join(others),
        "psnr": both_directions(results, results.tested, PRIMARY, 2, " dB"),
        "ssim": both_directions(results, results.tested, "ssim_brain", 3),
        "mae": both_directions(results, results.tested, "mae", 4),
        "psnr_full": both_directions(results, results.tested, "psnr_full", 2, " dB"),
        "shuffled": both_directions(results, results.tested, "shuffled_source_psnr_brain", 2, " dB"),
        "identified": both_directions(results, results.tested, "identification_rate", 2),
        "slope": both_directions(results, results.tested, "within_site_slope", 2),
        "seconds": both_directions(results, results.tested, "seconds_per_volume", 3, " s"),
        "average": both_directions(results, words.AVERAGE, PRIMARY, 2, " dB"),
        "ceiling": both_directions(results, words.CEILING, PRIMARY, 2, " dB"),
        "comparisons": _comparisons(tests),
        "worst": _each(lambda d: ", ".join(participants_of(results, d)["participant_id"].head(WORST))),
        "scored_sites": _scored_sites(results),
        "worst_groups": _each(lambda d: _worst_groups(results, d)),
    }


def _comparisons(tests: Sequence[Mapping[str, Any]]) -> str:
    """Numbers of tests of the primary endpoint in which the method under test is significantly higher or lower."""
    differences = [test["psnr_brain_difference"] for test in tests if test["p_holm"] < SIGNIFICANT]
    higher = sum(difference > 0 for difference in differences)
    return f"higher in {higher} and lower in {len(differences) - higher} of {len(tests)} tests" if tests else ""


def _worst_groups(results: Results, direction: Direction) -> str:
    worst = (group for group in groups_of(results, direction) if group.worst)
    return ", ".join(f"{g.by} {g.name} ({words.number(g.mean, 2)} dB, n = {g.n})" for g in worst)


def _scored_sites(results: Results) -> str:
    """The number of scored participants of each site, in the direction with more of them."""
    most: dict[str, int] = {}
    for group in (each for direction in Direction for each in groups_of(results, direction) if each.by == "site"):
        most[group.name] = max(group.n, most.get(group.name, 0))
    return ", ".join(f"{name}: {n}" for name, n in sorted(most.items()))


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
        "trained_steps": card.get("steps_done", card.get("steps")),
        "trained_budget": None if budget is None else f"{budget:g}",
        "trained_on": card.get("made_on"),
        "training_data": card.get("training_data"),
        "initial_model": card.get("init"),
        "loss_features": card.get("loss_features"),
        "validated": ", ".join(f"{words.DIRECTIONS[Direction(d)]} {words.number(v, 2)} dB" for d, v in scores.items()),
    }


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
        "ages": "; ".join(f"{s} {_age(ages[s])}" for s in sorted(ages, key=sort_key) if ages[s]["known"]),
        "refused": None if rejected is None else sum(rejected.values()),
        "judged": flagged.get("scans"),
        "flagged": flagged.get("flagged"),
        "prepared_version": prepared.get("version"),
        "prepared_started": prepared.get("started"),
        "grid_mm": f"{settings['grid_mm']:g}" if "grid_mm" in settings else None,
        "unit": words.unit(settings) if settings else None,
        "segments": settings.get("segments"),
        "fractions": ", ".join(f"{part:g}" for part in settings.get("split", [])),
        "split_seed": prepared.get("seed"),
        "denoised": YES[settings.get("denoise")],
        "realigned": YES[settings.get("realign")],
        "tables": _listed(prepared.get("outputs") or {}),
    }


def counted(data: Mapping[str, Any], column: str) -> dict[str, int]:
    """Number of participants of the prepared folder by site, diagnosis, sex or split; {} if no value is known.

    data: the part `data` of the manifest of a results folder. column: "split", "site", "diagnosis" or "sex".
    """
    counts: dict[str, int] = {}
    for group in data.get("groups", []):
        counts[group[column]] = counts.get(group[column], 0) + group["participants"]
    return {name: counts[name] for name in sorted(counts, key=sort_key)} if set(counts) != {NA} else {}


def sort_key(name: str) -> tuple[int, str]:
    """Sort key of a name: train, val, test, NC, MCI, AD in this order, then all other names by letters."""
    return (ORDER.index(name) if name in ORDER else len(ORDER)), name


def both_directions(results: Results, method: str, metric: str, decimals: int, unit: str = "") -> str:
    """A score of a method in both directions of synthesis, with its 95 % interval, as text; "" if it was not measured.

    metric: name of the score in metrics.json. decimals: of all numbers. unit: text after the score, such as " dB".
    """

    def value(direction: Direction) -> str:
        mean, low, high = words.value_of(scores_and_times(results.metrics, method, direction), metric)
        if mean is None:
            return ""
        interval = words.interval(low, high, decimals)
        return f"{words.number(mean, decimals)}{unit}" + (f" ({interval})" if interval else "")

    return _each(value)


def _each(describe: Callable[[Direction], str]) -> str:
    """The texts of both directions of synthesis, each after the direction's name, joined by ";"; "" is left out."""
    texts = ((words.DIRECTIONS[direction], describe(direction)) for direction in Direction)
    return "; ".join(f"{name} {text}" for name, text in texts if text)


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}: {value}" for name, value in values.items())


def _age(spread: Mapping[str, Any]) -> str:
    deviation = "" if spread["sd"] is None else f" (SD {spread['sd']:g})"
    return f"{spread['mean']:g}{deviation}, {spread['min']:g} to {spread['max']:g}, of {spread['known']} participants"
