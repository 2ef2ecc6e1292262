"""The text for the methods section of a paper, with its references, from the facts that a run recorded.

The sentences are in `templates/methods.yaml`. A sentence is part of the text only if all facts in it are recorded.
This module imports no torch, so that `synthesize` can write the text at once.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from statistics import median
from string import Formatter
from typing import Any

import yaml

from pdsynth.data.standardise import BY_B0, TO_MNI
from pdsynth.files import read_json, write_text
from pdsynth.imaging.nifti import NAMES, sidecar_path
from pdsynth.outcomes import TABLE, read_outcomes
from pdsynth.types import Modality, Space, counted

TEXT, REFERENCES = "methods.md", "references.bib"
CITED, ENTRY = re.compile(r"@([a-z]+\d*)"), re.compile(r"@\w+\{(\w+),")  # keys in a text, and in BibTeX
PDS = ("pds", "pds-paper")  # methods that implement the paper
UNITS = {  # of prepared volumes, by `Preprocessing.intensity`
    "flat-median": "2.5 times the median in the brain, after division by the slow signal variation (receive field)",
    "percentile": "the 99.5th percentile in the brain",
}
MOST_SHELLS = 3  # b-values that are named one by one
MASKS = {"given": "those of the dataset, or computed where it had none", "computed": "computed"}
REGISTERED = {  # the fact of methods.yaml, by the last step of a registration
    BY_B0: "registered_b0",
    TO_MNI: "registered_affine",
    "FLIRT to MNI": "registered_fsl",
    "already in": "registered_before",
}
AFFINE = {"affine-b0": "fMRI", "affine": "Scans"}  # scans that are registered to the template, by `Preprocessing.alone`
SIMULATED = "**SIMULATED: the scans of this run are of simulated people. A paper must state this.**"
Facts = Mapping[str, str]


@dataclass(frozen=True)
class Boilerplate:
    """A text for a methods section, as paragraphs of complete sentences, and the references that it cites.

    paragraphs: with citations by key, such as [@roche1998], as pandoc reads them. references: in BibTeX.
    """

    paragraphs: tuple[str, ...]
    references: str

    def write(self, folder: Path, simulated: bool) -> list[Path]:
        """Write methods.md and references.bib into a folder; returns the paths.

        simulated: whether the scans are of simulated people, which the text then states first.
        """
        head = f"# Text for a methods section{' (SIMULATED)' if simulated else ''}"
        about = f"Every number is from the records of the run. The keys in brackets are entries of `{REFERENCES}`."
        parts = [head, about, *([SIMULATED] if simulated else []), *self.paragraphs]
        write_text(folder / TEXT, "\n\n".join(parts) + "\n")
        write_text(folder / REFERENCES, self.references)
        return [folder / TEXT, folder / REFERENCES]


def complete(sentences: Iterable[str], known: Facts) -> list[str]:
    """The sentences whose facts are all known, filled in. known: the facts, as text by name.

    sentences: texts with the names of facts in braces. A fact may be "", which permits a sentence without a text of it.

    >>> complete(["{people} were scored.", "Funded by {funder}."], {"people": "12"})
    ['12 were scored.']
    """
    needed = ((text, {name for _, name, _, _ in Formatter().parse(text) if name}) for text in sentences)
    return [text.format_map(known) for text, names in needed if names <= known.keys()]


def compose(paragraphs: Iterable[tuple[Iterable[str], Iterable[Facts]]], version: str) -> Boilerplate:
    """The text whose paragraphs are sections of methods.yaml, each filled with facts.

    paragraphs: for each, names of its sections and the sets of facts; a section is repeated with each set. A paragraph
    without a complete sentence is left out. version: of pdsynth, for its reference.
    """
    sections = yaml.safe_load(_template("methods.yaml"))
    texts = (
        " ".join(sentence for name in names for known in facts for sentence in complete(sections[name], known))
        for names, facts in ((tuple(names), tuple(facts)) for names, facts in paragraphs)
    )
    found = tuple(filter(None, texts))
    cited = {key for text in found for key in CITED.findall(text)}
    entries = _template("references.bib").replace("VERSION", version).split("\n\n")
    chosen = [entry.strip() for entry in entries if ENTRY.findall(entry)[0] in cited]
    return Boilerplate(found, "\n\n".join(chosen) + "\n")


def _template(name: str) -> str:
    return files("pdsynth.report").joinpath("templates", name).read_text("utf-8")


def of_synthesis(folder: Path, entries: Mapping[str, Any]) -> Boilerplate:
    """The text on a folder of synthesised scans, from its manifest, its table and the sidecars of its volumes.

    entries: the content of the manifest, with `made_as` among its parameters, and `model`, the record of the model.
    """
    table = read_outcomes(folder / TABLE)
    table = table[table["status"] == "made"]
    sidecars = [read_json(sidecar_path(folder / file)) for file in table["file"]]
    made_as = entries.get("parameters", {}).get("made_as", {})
    kind = "SIMULATED participant" if entries.get("simulated") else "participant"
    ways = [
        {
            "source": NAMES[Modality(str(target)).other],
            "target": NAMES[Modality(str(target))],
            "people": counted(rows["participant_id"].nunique(), kind),
            "scans": counted(len(rows), "scan"),
        }
        for target, rows in table.groupby("target")
    ]
    preprocessing = made_as.get("preprocessing") or {}
    grid = entries.get("model", {}).get("card", {}).get("grid_affine")
    parameters = preprocessing | ({"grid_mm": abs(grid[0][0])} if grid else {})
    read = {Modality(str(target)).other for target in table["target"]}
    known = software(entries) | model(entries.get("model", {})) | preparation(parameters, read)
    known.pop("through_fmri", None)  # the session of a synthesised scan has no other scan
    known |= (
        dict(_masks(sidecars))
        | dict(_registered(sidecars))
        | dict(_shells(sidecars))
        | dict(_output(folder, table, made_as, sidecars))
    )
    paragraphs = ((("software",), (known,)), (("synthesis",), ways), (("model",), (known,)))
    return compose((*paragraphs, (("preparation",), (known,)), (("output",), (known,))), entries["version"])


def of_evaluation(entries: Mapping[str, Any], record: Mapping[str, Any], known: Facts) -> Boilerplate:
    """The text on an evaluation, from its manifest, the record of the model under test in it, and facts by name.

    known: the facts of `report.facts`. Names of cohorts, participants and folders are not part of the text.
    """
    settings = (entries.get("data", {}).get("prepared") or {}).get("parameters") or {}
    others = {"n_others": counted(len(known["others"].split(", ")), "other method")} if "others" in known else {}
    scored = {**known, **others, **software(entries), **model(record), **preparation(settings)}
    if settings.get("alone") in AFFINE:
        scored["registered_affine"] = f"{AFFINE[settings['alone']]} that no tool had registered were registered"
    parts = ("software", "model", "preparation", "evaluation")
    return compose((((part,), (scored,)) for part in parts), entries.get("version", ""))


def software(entries: Mapping[str, Any]) -> dict[str, str]:
    """The facts about software: versions of pdsynth, Python and libraries, from the content of a manifest."""
    found = {"version": entries.get("version"), "python": entries.get("python"), **entries.get("libraries", {})}
    return _known(found)


def model(record: Mapping[str, Any]) -> dict[str, str]:
    """The facts about a model, from its record in a manifest: sha256, card, and the name of its method if recorded."""
    card = record.get("card", {})
    kind = {True: "SIMULATED participants", False: "participants", None: None}[card.get("simulated")]
    found = {
        "weights": record.get("sha256", "")[:12],
        "recipe": card.get("recipe"),
        "model_version": card.get("version"),
        "trained_people": card.get("n_participants"),
        "trained_kind": kind,
        "trained_steps": card.get("steps_done"),
        "trained_seed": card.get("seed"),
        "method": record.get("method"),
    }
    return (
        _known(found)
        | ({"pds": ""} if record.get("method") in PDS else {})
        | ({"conformal": ""} if "calibration" in card else {})
    )


def preparation(settings: Mapping[str, Any], read: Collection[Modality] = tuple(Modality)) -> dict[str, str]:
    """The facts about the steps from a scan to a volume, by the settings of `Preprocessing` and the grid's grid_mm.

    read: the modalities of the scans that were read; the steps of another modality are left out.
    """
    numbers = {name: settings.get(name) for name in ("unsteady_seconds", "shell", "grid_mm")}
    found = {name: None if value is None else f"{value:g}" for name, value in numbers.items()}
    share = settings.get("unsteady_share")
    found["unsteady_percent"] = None if share is None else f"{100 * share:g}"
    dmri = Modality.DMRI in read
    steps = {
        "of_fmri": Modality.FMRI in read,
        "of_dmri": dmri,
        "denoised_by": dmri and settings.get("denoise"),
        "realigned_by": settings.get("realign"),
        "through_fmri": settings.get("paired_dmri") == "through-fmri",
    }
    unit = UNITS[settings.get("intensity", "percentile")] if settings else None
    return _known({**found, "unit": unit, "masks": MASKS.get(settings.get("mask", ""))}) | {
        name: "" for name, done in steps.items() if done
    }


def _registered(sidecars: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """Yield a fact per way of registration: the number of scans, in words; none if a sidecar does not record it."""
    steps = [sidecar.get("Registration") for sidecar in sidecars]
    if not all(steps):
        return
    for start, number in Counter(_way(each[-1]) for each in steps if each).items():
        verb = "were" if start == "already in" else "were registered"
        scans = "All scans" if number == len(steps) else f"Of the scans, {number}"
        yield REGISTERED[start], f"{scans} {verb}"


def _masks(sidecars: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """Yield where the brain masks of the sources are from; nothing if a sidecar does not record it."""
    if not sidecars or not all("BrainMask" in sidecar for sidecar in sidecars):
        return
    computed = sum(sidecar["BrainMask"] == "computed" for sidecar in sidecars)
    given = len(sidecars) - computed
    if computed and given:
        yield "masks", f"those of the dataset for {counted(given, 'scan')}, and computed for {computed}"
    else:
        yield "masks", "computed" if computed else "those of the dataset"


def _shells(sidecars: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """Yield the b-values of the dMRI sources, and of the synthesised dMRI; none of those that a sidecar lacks."""
    for entry, role in (("SourceShell", "SourceModality"), ("Shell", "TargetModality")):
        of_dmri = [sidecar for sidecar in sidecars if sidecar.get(role) == NAMES[Modality.DMRI]]
        if of_dmri and all(entry in sidecar for sidecar in of_dmri):
            yield entry, _b_values(Counter(sidecar[entry] for sidecar in of_dmri))


def _b_values(scans: Mapping[float, int]) -> str:
    """The number of scans by b-value (s/mm^2) as text; of more than MOST_SHELLS b-values, their range.

    >>> _b_values({2500.0: 1, 1000.0: 3}), _b_values({900: 1, 950: 2, 1000: 1, 1150: 1})
    ('1000 s/mm2 (3 scans) and 2500 s/mm2 (1 scan)', '900 to 1150 s/mm2 (5 scans)')
    """
    if len(scans) > MOST_SHELLS:
        return f"{min(scans):g} to {max(scans):g} s/mm2 ({counted(sum(scans.values()), 'scan')})"
    texts = [f"{b:g} s/mm2 ({counted(scans[b], 'scan')})" for b in sorted(scans)]
    return " and ".join(filter(None, [", ".join(texts[:-1]), texts[-1]]))


def _way(step: str) -> str:
    return next(start for start in REGISTERED if step.startswith(start))


def _output(
    folder: Path, table: Any, made_as: Mapping[str, Any], sidecars: list[dict[str, Any]]
) -> Iterator[tuple[str, str]]:
    yield "estimate", ""
    if sidecars and all(sidecar.get("Detail") == "of the source" for sidecar in sidecars):
        yield "of_source", ""
    if made_as.get("space", Space.NATIVE) != Space.NATIVE and any(folder.rglob(f"*_space-{made_as['space']}_res-2_*")):
        yield "space", made_as["space"]
    if made_as.get("samples"):
        yield from {"samples": str(made_as["samples"]), "steps": str(made_as["steps"])}.items()
        yield "draw_seed", str(made_as["seed"])
    spreads = (file.replace("_desc-synthetic_", "_desc-syntheticstd_") for file in table["file"])
    calibrations = {read_json(sidecar_path(folder / file)).get("Calibration") for file in spreads}
    if len(calibrations) == 1 and (calibration := calibrations.pop()):
        yield ("uncalibrated", "") if calibration == "none" else ("calibration", calibration)
    scores = [float(score) for score in table["round_trip_db"] if score]
    if len(scores) == 1:
        yield "round_trip", f"{scores[0]:.1f} dB"
    elif scores:
        yield "round_trip", f"median {median(scores):.1f} dB, range {min(scores):.1f} to {max(scores):.1f} dB"


def _known(facts: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in facts.items() if value not in (None, "")}
