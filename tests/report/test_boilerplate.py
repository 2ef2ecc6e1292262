"""The text for a methods section: every number is that of a manifest, and an unknown fact leaves its sentence out."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from pathlib import Path

import pytest
import yaml

from pdsynth import manifest
from pdsynth.evidence.claims import write_cards, write_report
from pdsynth.files import write_json
from pdsynth.imaging.nifti import sidecar_path
from pdsynth.outcomes import COLUMNS, TABLE, read_outcomes, write_outcomes
from pdsynth.report.boilerplate import CITED, ENTRY, complete, of_evaluation, of_synthesis
from pdsynth.results.folder import Results

TEMPLATES = files("pdsynth.report") / "templates"
SECTIONS = yaml.safe_load((TEMPLATES / "methods.yaml").read_text("utf-8"))
BIBLIOGRAPHY = (TEMPLATES / "references.bib").read_text("utf-8")


def synthesis(root: Path, **changes: object) -> dict:
    """A folder as `synthesize` leaves it, without images: three fMRI and a dMRI. Returns its manifest."""
    rows, steps = [], [["affine to MNI"], ["affine to MNI"], ["already in MNI152NLin6Asym"], ["FLIRT to MNI"]]
    for number, (person, target, step) in enumerate(zip("aabc", ("dmri", "dmri", "dmri", "fmri"), steps, strict=True)):
        name = f"sub-{person}/{number}_desc-synthetic_ref.nii.gz"
        values = (f"sub-{person}", f"ses-{number}", f"s{number}", target, "made", name, "3", f"{20 + number}", "", "")
        rows.append(dict(zip(COLUMNS, values, strict=True)))
        made = sidecar_path(root / name)
        made.parent.mkdir(exist_ok=True)
        about = {"SourceModality": "dMRI", "TargetModality": "fMRI", "SourceShell": 2500.0}
        if target == "dmri":
            about = {"SourceModality": "fMRI", "TargetModality": "dMRI", "Shell": 1000.0 if person == "a" else 700.0}
        write_json(made, {"Registration": step, "Detail": "of the source"} | about)
        spread = made.with_name(made.name.replace("synthetic_", "syntheticstd_"))
        write_json(spread, {"Calibration": "on 60 participants"})
    skipped = dict.fromkeys(COLUMNS, "") | {"participant_id": "sub-d", "target": "fmri", "status": "skipped"}
    write_outcomes(root / "synthesised.tsv", [*rows, skipped])
    preprocessing = {
        "unsteady_seconds": 7.5,
        "unsteady_share": 0.125,
        "shell": 800.0,
        "denoise": True,
        "realign": False,
        "mask": "given",
    }
    preprocessing |= {"paired_dmri": "through-fmri", "intensity": "flat-median"}
    made_as = {"preprocessing": preprocessing, "samples": 3, "steps": 11, "seed": 41}
    card = {"recipe": "pds-x", "version": "0.0.7", "n_participants": 123, "simulated": True, "seed": 5}
    card |= {"grid_affine": [[3.5, 0, 0, 0], [0, 3.5, 0, 0], [0, 0, 3.5, 0], [0, 0, 0, 1]], "calibration": {}}
    model = {"sha256": "abcdef0123456789", "method": "pds", "card": card}
    return manifest.begin("synthesize", seed=41, made_as=made_as) | {"model": model, "simulated": False} | changes


def test_each_number_of_a_synthesis_is_that_of_its_records(tmp_path: Path) -> None:
    entries = synthesis(tmp_path)
    entries |= {"version": "9.8.7", "python": "3.99.1", "libraries": {"torch": "7.1", "numpy": "7.2"}}
    entries["libraries"] |= {"scipy": "7.3", "nibabel": "7.4"}
    text = " ".join(of_synthesis(tmp_path, entries).paragraphs)
    for phrase in (
        "pdsynth 9.8.7 [@pdsynth] on Python 3.99.1, with PyTorch 7.1 [@paszke2019], NumPy 7.2",
        "A mean dMRI volume was synthesised from the fMRI of 2 participants (3 scans).",
        "A mean fMRI volume was synthesised from the dMRI of 1 participant (1 scan).",
        "(recipe pds-x, pdsynth 0.0.7, SHA-256 of its weights abcdef012345) was trained on 123 SIMULATED participants.",
        "implements pattern-aware diffusion synthesis [@pds2025].",
        "Each fMRI was reduced to the mean of its volumes after the first 7.5 s or after the first 12.5 % of the",
        "Each dMRI was reduced to the mean of its volumes of the shell nearest to 800 s/mm2.",
        "The shell that was used had b = 2500 s/mm2 (1 scan).",
        "The synthesised dMRI volumes are those of b = 700 s/mm2 (1 scan) and 1000 s/mm2 (2 scans).",
        "component analysis [@veraart2016].",
        "Brain masks were those of the dataset, or computed where it had none.",
        "Of the scans, 2 were registered to the MNI152 template",
        "Of the scans, 1 were in MNI152 space already.",
        "Of the scans, 1 were registered to MNI152 space by the matrix of FSL FEAT",
        "on a grid of 3.5 mm",
        "1 is 2.5 times the median in the brain",
        "a map of its standard deviation, calibrated on 60 participants.",
        "[@angelopoulos2024].",
        "3 random samples per scan were drawn, each in 11 sampling steps (seed 41).",
        "PSNR median 21.5 dB, range 20.0 to 23.0 dB.",
        "The seed of its training was 5.",
    ):
        assert phrase in text, phrase
    for spread in tmp_path.rglob("*syntheticstd*"):
        write_json(spread, {"Calibration": "none"})
    without = " ".join(of_synthesis(tmp_path, entries).paragraphs)
    assert "which was not calibrated on other participants." in without and "calibrated on 60" not in without
    assert "Head motion" not in text and "MNI152NLin6Asym" not in text and "{" not in text
    assert "rigid transform" not in text  # the session of a synthesised scan has one scan only


def test_a_dmri_alone_was_registered_to_a_mean_b0(tmp_path: Path) -> None:
    entries = synthesis(tmp_path)
    for path in tmp_path.rglob("*_desc-synthetic_*.json"):
        entry = json.loads(path.read_text())
        if entry["TargetModality"] == "fMRI":
            write_json(path, entry | {"Registration": ["affine to MNI by the mean b0"]})
    text = " ".join(of_synthesis(tmp_path, entries).paragraphs)
    assert "Of the scans, 1 were registered to a mean b0 of SIMULATED participants in MNI152 space by an affine" in text
    assert "Of the scans, 2 were registered to the MNI152 template" in text


def test_a_modality_that_was_not_read_is_not_described_and_masks_are_those_of_the_sources(tmp_path: Path) -> None:
    entries = synthesis(tmp_path)
    table = read_outcomes(tmp_path / TABLE)
    made = table[table["status"] == "made"].sort_values("file")
    for number, file in enumerate(made["file"]):
        path = sidecar_path(tmp_path / file)
        mask = {"BrainMask": "computed" if number else "sub-a_mask.nii.gz"}
        write_json(path, json.loads(path.read_text()) | mask)
    text = " ".join(of_synthesis(tmp_path, entries).paragraphs)
    assert "Brain masks were those of the dataset for 1 scan, and computed for 3." in text
    (tmp_path / TABLE).unlink()
    write_outcomes(tmp_path / TABLE, made[made["target"] == "dmri"][1:].to_dict("records"))  # only fMRI was read
    text = " ".join(of_synthesis(tmp_path, entries).paragraphs)
    assert "Brain masks were computed." in text and "Each fMRI was reduced to the mean" in text
    assert "Each dMRI" not in text and "denoised" not in text


def test_what_is_not_recorded_is_not_written(tmp_path: Path) -> None:
    entries = synthesis(tmp_path, model={}, libraries={})
    entries["parameters"]["made_as"] = {}
    for sidecar in tmp_path.rglob("*.json"):
        sidecar.write_text("{}")
    found = of_synthesis(tmp_path, entries)
    text = " ".join(found.paragraphs)
    assert [
        word
        for word in ("trained", "b = ", "grid of", "registered", "Python", "samples", "Calib", "mask", "reduced")
        if word in text
    ] == []
    assert "fMRI of 2 participants (3 scans)" in text
    assert ENTRY.findall(found.references) == ["zhu2017"]


def test_files_of_simulated_people_say_so(tmp_path: Path) -> None:
    entries = synthesis(tmp_path, simulated=True)
    of_synthesis(tmp_path, entries).write(tmp_path, True)
    text = (tmp_path / "methods.md").read_text()
    assert text.startswith("# Text for a methods section (SIMULATED)\n")
    assert "**SIMULATED: the scans of this run" in text and "fMRI of 2 SIMULATED participants (3 scans)" in text
    of_synthesis(tmp_path, synthesis(tmp_path)).write(tmp_path, False)
    assert "of this run" not in (tmp_path / "methods.md").read_text().partition("\n\n")[2].partition("\n\n")[2]


def test_every_citation_has_its_entry_and_every_entry_is_cited(tmp_path: Path) -> None:
    cited = {key for sentences in SECTIONS.values() for text in sentences for key in CITED.findall(text)}
    entries = BIBLIOGRAPHY.strip().split("\n\n")
    assert sorted(cited) == sorted(ENTRY.findall(BIBLIOGRAPHY)) and len(entries) == len(cited)
    for entry in entries:
        assert entry.count("{") == entry.count("}") and entry.endswith(",\n}")
        assert re.search(r"^  title = \{", entry, re.M) and re.search(r"^  author = \{", entry, re.M)
    entries_of = synthesis(tmp_path, version="9.8.7")
    found = of_synthesis(tmp_path, entries_of)
    assert set(ENTRY.findall(found.references)) == set(CITED.findall(" ".join(found.paragraphs)))
    assert "version = {9.8.7}" in found.references


def test_a_sentence_needs_all_its_facts() -> None:
    sentences = ["{a} and {b}.", "{a} alone.", "Nothing."]
    assert complete(sentences, {"a": "1"}) == ["1 alone.", "Nothing."]


@pytest.fixture(scope="module")
def evaluated(results: Path) -> Path:
    write_cards(results)
    return results


def test_the_text_of_an_evaluation_has_its_scores(evaluated: Path) -> None:
    run = Results.read(evaluated)
    text = (evaluated / "methods.md").read_text()
    scores = run.methods[run.tested]["fmri_to_dmri"]["psnr_brain"]
    assert (
        f"scored on {run.metrics['n_participants']} SIMULATED participants of the {run.metrics['split']} split" in text
    )
    assert f"{scores['mean']:.2f} dB" in text and text.startswith("# Text for a methods section (SIMULATED)")
    assert f"seed of the evaluation was {run.metrics['seed']}" in text
    assert f"compared with {len(run.methods) - 1 - ('oracle' in run.methods)} other" in text
    assert (evaluated / "references.bib").read_text().count("@") == len(set(CITED.findall(text)))


def test_an_evaluation_names_no_cohort_and_no_folder() -> None:
    entries = manifest.begin("evaluate") | {
        "data": {"cohort": "secret", "prepared": {"parameters": {"alone": "affine"}}}
    }
    known = {"others": "a, b", "comparisons": "higher in 1", "people": "7", "cohort": "secret", "tested": "x (secret)"}
    text = json.dumps(of_evaluation(entries, {"card": {"cohort": "secret"}}, known).paragraphs)
    assert "secret" not in text and "with 2 other methods in paired" in text
    one = of_evaluation(entries, {}, known | {"others": "a"}).paragraphs
    assert "compared with 1 other method in paired permutation tests" in one[-1]
    assert "Scans that no tool had registered were registered to the MNI152 template" in text
    entries["data"]["prepared"]["parameters"]["alone"] = "affine-b0"
    text = json.dumps(of_evaluation(entries, {}, known).paragraphs)
    assert "fMRI that no tool had registered were registered to the MNI152 template" in text


def test_the_report_has_the_text_with_buttons(evaluated: Path) -> None:
    html = write_report(evaluated).read_text()
    section = html[html.index('<section id="paper">') : html.index('<section id="provenance">')]
    assert section.count("data-copies=") == 2 and "SIMULATED: the scans of this run" in section
    plain = re.sub(r"\s+", " ", section)
    for paragraph in (evaluated / "methods.md").read_text().split("\n\n")[3:]:
        assert paragraph.strip()[:40] in plain
