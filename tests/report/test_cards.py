"""The cards say what the files of a run hold, figure by figure, and "not addressed" where they hold nothing."""

import json
import re
import shutil
from importlib.resources import files

import pandas as pd
import pytest

from pdsynth import api, manifest
from pdsynth.cli import main
from pdsynth.data.rows import QUALITY_COLUMNS
from pdsynth.evaluation.provenance import provenance
from pdsynth.evidence.claims import claims, write_cards
from pdsynth.evidence.completion.files import ARMS, Arm
from pdsynth.evidence.diagnosis.files import POWER, SCHEME_SCORES, Power, SchemeScores
from pdsynth.evidence.effects.files import EFFECTS, Effect
from pdsynth.evidence.group_effects.files import COMPLETED, CompletedEffect
from pdsynth.evidence.probes.files import (
    Change,
    Counterfactual,
    Lesion,
    Lesions,
    Memorisation,
    Memory,
    Probes,
)
from pdsynth.evidence.sites.files import SITES, SiteScores
from pdsynth.files import sha256, write_json
from pdsynth.report import words
from pdsynth.report.cards import NOT_ADDRESSED, Checklist, answer, plain
from pdsynth.report.facts import facts
from pdsynth.results.folder import Results
from pdsynth.statistics.resampling import Estimate
from pdsynth.types import Direction, InputError
from rows import filled

PAGES = ("claim.md", "tripod_ai.md", "model_card.md", "data_card.md")
TEMPLATES = files("pdsynth.report") / "templates"
RECIPE = "voxelwise-ridge"
TESTED = f"trained ({RECIPE})"  # its name in tables
PARAMETERS = {"grid_mm": 8.0, "segments": 2, "denoise": False, "realign": True, "split": [0.6, 0.0, 0.4]}
REASONS = ["is a slab of 30 mm", "is a slab of 42 mm", "holds a|b <i>"]


def cells(text):
    """Rows of every table of a page, as lists of cells."""
    rows = (re.split(r"(?<!\\)\|", line)[1:-1] for line in text.splitlines() if line.startswith("| "))
    return [[cell.strip() for cell in row] for row in rows]


def said(text):
    """What a page says, by the first cell of the row."""
    return {row[0]: row[-1] for row in cells(text)}


def figures(text):
    """(mean, low, high) by direction from a cell as the cards write it."""
    number = r"(\N{MINUS SIGN}?[\d.]+)"
    found = {}
    for direction in Direction:
        match = re.search(rf"{words.DIRECTIONS[direction]} {number}(?: dB)? \({number} to {number}\)", text)
        found[direction.value] = [float(n.replace("\N{MINUS SIGN}", "-")) for n in match.groups()]
    return found


@pytest.fixture(scope="module")
def results(make_prepared, tmp_path_factory):
    """A results folder that the command line wrote, of a fitted model on a folder with refusals and settings."""
    root = make_prepared(10).root
    table = pd.read_csv(root / "pairs.tsv", sep="\t", keep_default_na=False)
    table.assign(age=range(60, 70), sex=["F", "M", "n/a", "F", "F"] * 2).to_csv(
        root / "pairs.tsv", sep="\t", index=False
    )
    refused = pd.DataFrame({"path": ["x", "y", "z"], "reason": REASONS, "remedy": "none"})
    refused.loc[3] = ["t.tsv", "has rows of participants that are not on disk: 'a' (line 2)", "nothing is needed if so"]
    refused.to_csv(root / "rejected.tsv", sep="\t", index=False)
    quality = pd.DataFrame({"path": ["x", "y"], "flag": ["", "motion"], "modality": "fmri"})
    quality.reindex(columns=list(QUALITY_COLUMNS), fill_value="").to_csv(root / "quality.tsv", sep="\t", index=False)
    write_json(root / "manifest.json", manifest.read(root) | {"parameters": PARAMETERS, "seed": 5})
    out = tmp_path_factory.mktemp("run") / "trained"
    pairs = api.Pairs.open(root)
    api.fit(RECIPE, pairs.train, run=out, device="cpu", seed=3)
    words_of_command = ["evaluate", root, "--model", out / "model", "--out", out / "results", "--device", "cpu"]
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words_of_command])
    assert not stop.value.code
    return out / "results"


@pytest.fixture(scope="module")
def pages(results):
    paths = write_cards(results)
    assert [path.name for path in paths] == [*PAGES, "methods.md", "references.bib"]
    return {path.name: path.read_text(encoding="utf-8") for path in paths}


@pytest.fixture
def bare(results, tmp_path):
    """Only metrics.json and metrics.tsv."""
    for name in ("metrics.json", "metrics.tsv"):
        shutil.copy(results / name, tmp_path / name)
    return tmp_path


FORWARD, BACKWARD = Direction
CONFUSION = '{"NC": {"NC": 9, "AD": 1}, "AD": {"NC": 2, "AD": 8}}'
EVIDENCE = {
    EFFECTS: [
        filled(Effect, method=TESTED, direction=FORWARD, n_AD=19, n_NC=21, slope=Estimate(0.614, 0.27, 0.91),
               reliability=0.78),
        filled(Effect, method="zeros", direction=FORWARD, n_AD=19, n_NC=21, slope=Estimate(0.0, 0.0, 0.0)),
    ],
    COMPLETED: [
        filled(CompletedEffect, method=TESTED, direction=BACKWARD, arm=arm, worth=Estimate(worth, 0.18, 0.34))
        for arm, worth in (("as if real", float("nan")), ("rectified", 0.254))
    ],
    SCHEME_SCORES: [
        filled(SchemeScores, method=method, scheme=scheme, balanced_accuracy=Estimate(score, 0.1, 0.9),
               confusion=CONFUSION)
        for method, scheme, score in (("", "real both", 0.52), (TESTED, "S6", 0.55), ("zeros", "S6", 0.31),
                                      ("", "permuted labels", 0.334))
    ],
    ARMS: [
        filled(Arm, method=method, arm="synthesised", over_mean=Estimate(0.09, 0.03, 0.15), over_mean_p_holm=0.02)
        for method in (TESTED, "zeros")
    ],
    POWER: [
        Power(difference, needed, needed // 2, 0.1, 0.2) for difference, needed in ((0.02, 8809), (0.04, 2204))
    ],
    SITES: [filled(SiteScores, site="adni", direction=FORWARD, difference=Estimate(-0.31, -0.4, -0.2))],
}  # fmt: skip
PROBES = Probes(
    TESTED,
    Memorisation(9, 9, 9, 9, 9, [Memory(FORWARD, 0.89, 0.9, 0.9, Estimate(0.71, 0.59, 0.81))]),
    Lesions(4, 8, 8.0, 1.5, 0.02, [Lesion(True, FORWARD, 0.88, 0.02, 9.0)]),
    Counterfactual(9, [0.0, 1.0], [Change(FORWARD, Estimate(0.13, 0.09, 0.17), Estimate(0.61, 0.5, 0.7), 60)]),
    {},
)


@pytest.fixture
def evidence(results, tmp_path):
    """The results folder with the tables of roi, diagnose and the probes in it."""
    root = tmp_path / "evidence"
    shutil.copytree(results, root)
    for file, rows in EVIDENCE.items():
        file.write(root, rows)
    PROBES.write(root)
    return root


def test_the_findings_are_those_of_the_tables(evidence):
    write_cards(evidence)
    claim, tripod, card = (said((evidence / name).read_text(encoding="utf-8")) for name in PAGES[:3])
    assert claim["38"] == (
        "Balanced accuracy for NC and AD in nested cross-validation: real scans, real both 0.52 (0.10 to 0.90); scans "
        f"synthesised by {TESTED}, in schemes S1 to S9 (choices of training and test scans, see report.html), S6 0.55 "
        "(0.10 to 0.90); diagnoses exchanged at random, 0.33 (0.10 to 0.90)."
    )
    assert "2204 if the errors of two classifiers are independent, 1102 if half" in claim["21"]
    assert "2204" in tripod["10"]
    assert "fMRI → dMRI 0.88 in the source" in claim["30"]
    assert "fMRI → dMRI at adni \N{MINUS SIGN}0.31 (\N{MINUS SIGN}0.40 to \N{MINUS SIGN}0.20) dB" in claim["33"]
    assert "between 19 AD and 21 NC" in claim["40"] and "fMRI → dMRI 0.61 (0.27 to 0.91)." in claim["40"]
    assert claim["40"].endswith("the reliability of the real differences, instead of 1: fMRI → dMRI 0.78.")
    assert "dMRI → fMRI 0.25 (0.18 to 0.34)" in claim["41"]
    assert "better than filling in the mean (+9.0 points" in tripod["25"] and "zeros" not in tripod["25"]
    assert card["slope of synthesised on real changes of a SIMULATED person from healthy to ill"].startswith(
        "fMRI → dMRI 0.13"
    )
    assert "training set (0.5: chance): fMRI → dMRI 0.71 (0.59 to 0.81)." in (evidence / "model_card.md").read_text()


def test_the_figures_are_those_of_the_metrics(pages, results):
    metrics = json.loads((results / "metrics.json").read_text())
    scores, rows = metrics["methods"][TESTED], said(pages["model_card.md"])
    claim, tripod = said(pages["claim.md"]), said(pages["tripod_ai.md"])
    for cell in (rows["PSNR in the brain (95 % interval)"], claim["37"], tripod["23a"]):
        found = figures(cell)
        for direction in Direction:
            score = scores[direction.value]["psnr_brain"]
            assert found[direction.value] == pytest.approx([score["mean"], *score["ci95"]], abs=0.005)
    assert figures(rows["SSIM in the brain"])["fmri_to_dmri"][0] == pytest.approx(
        scores["fmri_to_dmri"]["ssim_brain"]["mean"], abs=0.0005
    )
    label = "slope of synthesised on real differences between participants of a site (1: kept in full)"
    slope = float(re.search(r"dMRI → fMRI ([\d.]+)", rows[label])[1])
    assert slope == pytest.approx(scores["dmri_to_fmri"]["within_site_slope"], abs=0.005)
    told = [test["psnr_brain_difference"] for test in metrics["comparisons"] if test["p_holm"] < 0.05]
    counted = f"higher in {sum(d > 0 for d in told)} and lower in {sum(d < 0 for d in told)}"
    assert f"PSNR in the brain is {counted} of {len(metrics['comparisons'])} tests." in claim["29"]
    assert f"{metrics['n_participants']} participants, {metrics['n_scans']} scans" in claim["35"]
    scored = pd.read_csv(results / "metrics.tsv", sep="\t").query("method == @TESTED").groupby("site")["participant_id"]
    sizes = ", ".join(f"{site}: {n}" for site, n in scored.nunique().items())
    assert f"Scores are reported by site ({sizes})." in tripod["12d"]


def test_groups_and_failures_are_those_of_the_table(pages, results):
    table = pd.read_csv(results / "metrics.tsv", sep="\t")
    table = table[table["method"] == TESTED]
    rows = cells(pages["model_card.md"])
    seen = 0
    for direction in Direction:
        own = table[table["direction"] == direction.value]
        for by in ("site", "diagnosis"):
            for name, scores in own.groupby(by)["psnr_brain"]:
                groups = own.groupby(by)["psnr_brain"].agg(["mean", "count"])
                several = groups.loc[groups["count"] > 1, "mean"]  # the lowest of one is no group
                lowest = len(scores) > 1 and len(several) > 1 and scores.mean() == several.min()
                row = [words.DIRECTIONS[direction], by, name, str(len(scores)), f"{scores.mean():.2f}"]
                assert [*row, "lowest" if lowest else ""] in rows
                seen += 1
        for case in own.nsmallest(3, "psnr_brain").to_dict("records"):
            names = [case["participant_id"], case["site"], case["diagnosis"]]
            assert [words.DIRECTIONS[direction], *names, f"{case['psnr_brain']:.2f}"] in rows
    assert seen == sum(len(row) == 6 for row in rows) - 1  # but for the heading


def test_the_model_card_names_the_training(pages, results):
    config = json.loads((results.parent / "model" / "config.json").read_text())["card"]
    rows = said(pages["model_card.md"])
    assert rows["ids of the training participants, sha256"] == config["participants_sha256"]
    assert rows["weights, sha256"] == sha256(results.parent / "model" / "model.safetensors")
    assert f"{config['n_participants']} SIMULATED participants (cohort {config['cohort']})" in rows["trained on"]
    assert rows["training"] == "Seed 3."
    assert "scans_sha256" not in json.dumps(manifest.read(results)["models"])


def test_the_model_card_names_the_facts_for_sharing(pages, evidence):
    config = manifest.read(evidence)["models"][TESTED]["card"]
    rows = said(pages["model_card.md"])
    people = f"{config['n_participants']} SIMULATED participants (cohort {config['cohort']})."
    assert rows["whose scans it was trained on"] == people
    assert rows["whose scans it was calibrated on"] == NOT_ADDRESSED
    test = "can a training participant be recognised by the error (AUC; 0.5: no)"
    assert rows[test] == "not measured; `pdsynth evidence` measures it"
    assert "Check the terms of the images from which they were simulated." in pages["model_card.md"]
    assert pages["model_card.md"].count("- [ ] ") == 6
    write_cards(evidence)
    assert said((evidence / "model_card.md").read_text())[test] == "fMRI → dMRI 0.71 (0.59 to 0.81)."
    content = manifest.read(evidence)
    content["models"][TESTED]["card"]["simulated"] = False
    write_json(evidence / "manifest.json", content)
    write_cards(evidence)
    real = (evidence / "model_card.md").read_text()
    assert said(real)["whose scans it was trained on"] == people.replace("SIMULATED ", "")
    assert "Check the terms of the images" not in real


def test_the_data_card_counts_the_folder(pages, results):
    root = results.parents[2] / next(name for name in manifest.read(results)["inputs"] if "prepared" in name)
    people = pd.read_csv(f"{root}/pairs.tsv", sep="\t", keep_default_na=False).merge(
        pd.read_csv(f"{root}/splits.tsv", sep="\t", keep_default_na=False)[["participant_id", "split"]]
    )
    rows = said(pages["data_card.md"])
    for label, column in (("by site", "site"), ("by diagnosis", "diagnosis"), ("by sex", "sex")):
        told = dict(part.split(": ") for part in rows[label].split(", "))
        assert {name: int(n) for name, n in told.items()} == people[column].value_counts().to_dict()
    assert list(part.split(": ")[0] for part in rows["by diagnosis"].split(", ")) == ["NC", "MCI", "AD"]
    counted = [row for row in cells(pages["data_card.md"]) if len(row) == 5][1:]
    expected = people.groupby(["split", "site", "diagnosis", "sex"]).size()
    assert {tuple(row[:4]): int(row[4]) for row in counted} == expected.to_dict()
    train = people.loc[people["split"] == "train", "age"]
    ages = rows["age, years: mean (SD), range"]
    assert f"train {train.mean():g} (SD {train.std():.2f}), 60 to 65, of 6 participants" in ages
    assert rows["participants"] == "10" and rows["refused files"] == "3"
    assert rows["is a slab of # mm"] == "2" and rows[r"holds a\|b \<i>"] == "1"
    assert rows["scans flagged as outliers, still in the data (quality.tsv)"] == "1 of 2"
    assert rows["grid"] == "8 mm, MNI"
    assert (rows["dMRI denoised"], rows["volumes realigned"], rows["segments per scan"]) == ("no", "yes", "2")
    assert "Requested fractions: 0.6, 0, 0.4 (train, val, test), seed 5." in pages["data_card.md"]


def test_what_a_prepared_folder_lost_is_unknown_and_not_zero(prepared, bare):
    data = provenance({}, prepared)["data"]
    assert data["rejected"] is data["flagged"] is data["prepared"]["parameters"] is None
    assert data["ages"]["train"] == {"known": 6, "mean": 70.0, "sd": 0.0, "min": 70.0, "max": 70.0}
    assert sum(group["participants"] for group in data["groups"]) == data["n_sessions"] == 10
    write_json(bare / "manifest.json", {"data": data})
    write_cards(bare)
    rows = said((bare / "data_card.md").read_text())
    assert (rows["participants"], rows["by sex"]) == ("10", "F: 10")
    assert rows["refused files"] == rows["grid"] == rows["dMRI denoised"] == NOT_ADDRESSED


def test_the_items_are_complete(pages):
    for name, count, parts in (("claim", 44, 44), ("tripod_ai", 27, 52)):
        numbers = [row[0] for row in cells(pages[f"{name}.md"]) if row[0] != "item"]
        assert len(numbers) == parts == len(set(numbers))
        assert list(dict.fromkeys(int(re.match(r"\d+", n)[0]) for n in numbers)) == list(range(1, count + 1))
        letters = {n: [m[-1] for m in numbers if re.fullmatch(rf"{n}[a-g]", m)] for n in range(1, count + 1)}
        assert all(found == [chr(ord("a") + i) for i in range(len(found))] for found in letters.values())
        answered = sum(row[-1] != NOT_ADDRESSED for row in cells(pages[f"{name}.md"]) if row[0] != "item")
        assert f"\n{answered} of {parts} items are addressed" in pages[f"{name}.md"]


def test_each_fact_of_a_sentence_is_one_that_exists(evidence):
    run = Results.read(evidence)
    for scores in run.metrics["methods"][TESTED].values():
        scores |= {"coverage_50": {"mean": 0.5}, "coverage_90": {"mean": 0.9}}
    told = {"steps_done": 9, "budget_seconds": 60.0, "init": "m", "loss_features": "VGG", "made_on": "a CPU"}
    told |= {"training_data": "invented", "validation_psnr_brain": {"fmri_to_dmri": 20.0}}
    told["calibration"] = {"n_participants": 30, "cohort": "mine", "simulated": True, "scale": {"fmri_to_dmri": 1.2}}
    run.model["card"].update(told)
    run.data["prepared"].update(version="1", started="then", outputs={"pairs.tsv": "0"})
    sentences = [s for name in ("claim", "tripod_ai") for item in Checklist.read(name).items for s in item.says]
    cards = [(TEMPLATES / f"{name}.md.j2").read_text() for name in ("model_card", "data_card")]
    named = {fact for text in (*sentences, *cards) for fact in re.findall(r"(?<!{){(\w+)}", text)}
    assert named == facts(run, claims()).keys()
    expected = "on 30 SIMULATED participants of cohort mine; calibration factors: fmri_to_dmri 1.2"
    assert facts(run, claims())["calibrated"] == expected


def test_what_is_absent_is_not_addressed(pages, bare):
    write_cards(bare)
    full, less = said(pages["claim.md"]), said((bare / "claim.md").read_text())
    for item in ("5", "13", "27", "34", "38", "44"):
        assert full[item] == less[item] == NOT_ADDRESSED
    for item in ("7", "8", "9", "19", "20", "22", "23", "24", "25", "36", "42"):
        assert full[item] != NOT_ADDRESSED
    lost = {item for item in less if less[item] == NOT_ADDRESSED} - {i for i in full if full[i] == NOT_ADDRESSED}
    assert lost == {"3", "8", "9", "12", "19", "20", "22", "23", "24", "25", "36", "41", "42", "43"}
    model, data = ((bare / name).read_text() for name in PAGES[2:])
    assert said(model)["trained on"] == said(model)["weights, sha256"] == NOT_ADDRESSED
    assert said(data)["by site"] == said(data)["refused files"] == NOT_ADDRESSED
    assert figures(said(model)["PSNR in the brain (95 % interval)"])  # what is known is still told
    assert not re.search(r"\bNone\b|\bnan\b|{|}", "".join(p.read_text() for p in bare.glob("*.md")))


def test_simulated_stands_in_the_first_line_only_where_it_is_so(pages, bare):
    for name in PAGES:
        first = pages[name].splitlines()[0]
        assert "SIMULATED" in first and "research only" in first
    metrics = json.loads((bare / "metrics.json").read_text()) | {"simulated": False}
    (bare / "metrics.json").write_text(json.dumps(metrics))
    for path in write_cards(bare)[: len(PAGES)]:
        first = path.read_text().splitlines()[0]
        assert "SIMULATED" not in first and "research only" in first
    assert said((bare / "claim.md").read_text())["11"] == NOT_ADDRESSED
    assert said((bare / "data_card.md").read_text())["SIMULATED"] == "no"


def test_the_same_files_give_the_same_bytes(pages, results):
    assert {path.name: path.read_text(encoding="utf-8") for path in write_cards(results)} == pages


def test_names_cannot_break_the_tables(bare):
    evil = "mine | <img src=x> `x` [y](z)\nnew"
    text = (bare / "metrics.json").read_text().replace(f'"{TESTED}"', json.dumps(evil))
    (bare / "metrics.json").write_text(text)
    table = pd.read_csv(bare / "metrics.tsv", sep="\t", keep_default_na=False).replace({"method": {TESTED: evil}})
    table.to_csv(bare / "metrics.tsv", sep="\t", index=False)
    write_cards(bare)
    rows = [row for row in cells((bare / "claim.md").read_text()) if row[0] != "item"]
    assert len(rows) == 44 and {len(row) for row in rows} == {4}
    assert r"mine \| \<img src=x> \`x\` \[y](z) new" in rows[0][-1]
    assert plain("a\nb") == "a b"


def test_a_sentence_without_its_fact_is_left_out():
    assert answer("{a} and {b}.", "{a}.", known={"a": "1"}) == "1."
    assert answer(known={"a": "1"}) == NOT_ADDRESSED


def test_a_folder_without_metrics_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"metrics\.json.*is missing"):
        write_cards(tmp_path)
    (tmp_path / "metrics.json").write_text("{")
    with pytest.raises(InputError, match=r"metrics\.json: is damaged"):
        write_cards(tmp_path)
