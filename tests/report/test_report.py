"""The page loads nothing, hides nothing, runs nothing it was handed, and shows left on the left."""

import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest

from pages import EVIL_METHOD, Page, pixels
from pdsynth.evidence.claims import write_report
from pdsynth.report import words
from pdsynth.report.charts import Bar, forest
from pdsynth.report.pictures import View, colour_bar, picture
from pdsynth.types import Direction, InputError


@pytest.fixture(scope="module")
def html(results):
    return write_report(results).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(html):
    return Page(html)


def test_the_page_is_whole_and_loads_nothing(html, page, results):
    assert page.open == page.wrong == []
    assert page.addresses and all(a.startswith(("data:", "#")) for a in page.addresses)
    assert not re.search(r"https?:|url\(|@import|//cdn", html)
    assert page.scripts == ["application/json", ""] and page.handlers == []
    assert (results / "report.html").stat().st_size < 6e6
    assert not list(results.glob(".report*"))


def test_what_it_was_handed_is_text(html):
    assert "<script>alert" not in html and "<img src=x" not in html and "<b>.nii.gz" not in html
    assert "sub-&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;" in html
    assert "mine &lt;img src=&#34;x&#34; onerror=" in html


def test_it_says_simulated_first_and_on_each_synthesised_slice(html):
    body = html[html.index("<body") :]
    assert body.index("SIMULATED") < body.index("<h1>")
    assert html.count("SIMULATED · SYNTHETIC") == 3 * (4 * 2 + 1)  # planes x (participants x directions + missing)


def test_every_method_has_its_scores_intervals_and_audit(html, results):
    metrics = json.loads((results / "metrics.json").read_text())
    for name, entry in metrics["methods"].items():
        shown = name.replace("<", "&lt;").replace('"', "&#34;").replace(">", "&gt;")
        for direction in Direction:
            rows = re.findall(rf'<tr class="\w+"><th scope="row">{re.escape(shown)}.*?</tr>', html, re.S)
            score = entry[direction.value]["psnr_brain"]
            own = f"{score['mean']:.1f}<small>{score['ci95'][0]:.1f} to {score['ci95'][1]:.1f}</small>"
            shuffled = f"<td>{entry[direction.value]['shuffled_source_psnr_brain']['mean']:.1f}<small>"
            assert len(rows) == 4  # quality and audit, both directions
            assert sum(own in row for row in rows) >= 2
            assert any(own in row and shuffled in row for row in rows)
    assert html.count("<h2>fMRI → dMRI</h2>") == html.count("<h2>dMRI → fMRI</h2>") == 1
    assert "SD stated by the method" in html
    assert [f'<li class="{tone}">{meaning}</li>' in html for tone, meaning in words.TONES.items()] == [True] * 3


def test_it_says_what_was_done_and_what_was_refused(html):
    for text in ("The shipped model was trained elsewhere.", "is cut short", "copy it again", "<dd>7</dd>"):
        assert text in html
    assert "synthesised/sub-09/dwi/sub-09_task-rest_desc-synthetic_dwiref.nii.gz" in html
    assert ">Source fMRI<" in html[html.index('id="missing"') :]


def test_every_image_opens_and_shows_something(page):
    images = [a for a in page.addresses if a.startswith("data:image/png")]
    assert len(images) > 4 * 2 * 15
    flat = [a for a in images if np.ptp(np.asarray(pixels(a).convert("L"))) <= 20]
    assert not flat


def test_the_same_results_give_the_same_page(html, results):
    assert write_report(results).read_text(encoding="utf-8") == html


def test_real_results_carry_no_simulated_mark(results, tmp_path):
    metrics = json.loads((results / "metrics.json").read_text()) | {"simulated": False}
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    (tmp_path / "metrics.tsv").write_bytes((results / "metrics.tsv").read_bytes())
    (tmp_path / "predictions").symlink_to(results / "predictions")
    text = write_report(tmp_path).read_text(encoding="utf-8")
    assert "SIMULATED" not in text and "SYNTHETIC" in text
    assert 'id="missing"' not in text and "Refused files" not in text
    assert Page(text).open == []


def test_controls_are_explained_where_they_are_scored(html, results, tmp_path):
    metrics, explained = json.loads((results / "metrics.json").read_text()), "Controls are simple methods"
    controls = {"population-mean", "copy-source"}
    for name in controls:
        del metrics["methods"][name], metrics["times"][name]
    metrics["comparisons"] = [row for row in metrics["comparisons"] if row["against"] not in controls]
    assert metrics["methods"].keys() > {"oracle"}  # the ceiling is no control
    table = pd.read_csv(results / "metrics.tsv", sep="\t", dtype=str, keep_default_na=False)
    table[~table["method"].isin(controls)].to_csv(tmp_path / "metrics.tsv", sep="\t", index=False)
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    (tmp_path / "predictions").symlink_to(results / "predictions")
    assert explained in html
    assert explained not in write_report(tmp_path).read_text(encoding="utf-8")


def test_a_missing_or_damaged_result_is_named(results, tmp_path):
    with pytest.raises(InputError, match=r"metrics\.json"):
        write_report(tmp_path)
    (tmp_path / "metrics.json").write_text("{")
    with pytest.raises(InputError, match=r"metrics\.json: is damaged"):
        write_report(tmp_path)


def test_left_is_left_front_is_up_and_top_is_up():
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    volume = np.zeros((20, 30, 24), np.float32)
    volume[2:5, 24:27, 18:21] = 1  # left, in front, high
    view = View.around(np.ones(volume.shape, bool), affine, (6.0, 50.0, 38.0))
    sagittal, coronal, axial = (np.asarray(pixels(a), float) for a in view.slices(volume, 1))
    assert sagittal.shape == (48, 60) and coronal.shape == (48, 40) and axial.shape == (60, 40)  # 1 pixel a mm
    for plane, (down, right) in ((sagittal, (0.2, 0.85)), (coronal, (0.2, 0.175)), (axial, (0.15, 0.175))):
        found = [np.average(np.arange(n), weights=plane.sum(1 - i)) / n for i, n in enumerate(plane.shape)]
        assert found == pytest.approx([down, right], abs=0.04)
    assert view.labels == ["x = +6 mm", "y = +50 mm", "z = +38 mm"]


def test_scales_are_absolute_and_no_difference_is_black():
    greys = np.asarray(pixels(picture(np.array([[0.0, 0.5, 1.0, 2.0]]), (1, 1), 1.0, "grey")))
    assert greys.tolist() == [[0, 128, 255, 255]]
    plane = np.array([[-0.2, 0.0, 0.2]])
    below, none, above = np.asarray(pixels(picture(plane, (1, 1), 0.2, "difference")).convert("RGB"), int)[0]
    assert none.max() <= 2
    assert below[2] > below[0] and above[0] > above[2]
    bar = np.asarray(pixels(colour_bar("difference")).convert("RGB"))[0]
    assert bar[0].tolist() == below.tolist() and bar[-1].tolist() == above.tolist()


def test_a_chart_places_scores_on_its_axis():
    svg = str(forest([Bar("a<b", "tested", 20.0, 18.0, 22.0, 10.0), Bar("c", "control", 10.0, None, None, None)], "dB"))
    assert "a&lt;b" in svg and "a<b" not in svg
    dots = [float(x) for x in re.findall(r'class="dot" cx="([\d.]+)"', svg)]
    ring = float(re.search(r'class="ring" cx="([\d.]+)"', svg).group(1))
    assert dots[1] == ring < dots[0]


def test_words_follow_the_numbers():
    def entry(own, shuffled, identified, slope):
        scores = {"psnr_brain": {"mean": own, "ci95": [None, None]}, "shuffled_source_psnr_brain": {"mean": shuffled}}
        return {"fmri_to_dmri": scores | {"identification_rate": identified, "within_site_slope": slope}}

    methods = {
        "good": entry(25.0, 18.0, 1.0, 0.9),
        "blind": entry(20.0, 20.0, 0.1, 0.0),
        "population-mean": entry(20.0, 20.0, 0.1, 0.0),
        "oracle": entry(30.0, 15.0, 1.0, 1.0),
    }
    direction = Direction.FMRI_TO_DMRI

    def verdicts(name, differences, p_holm=0.01):
        rows = [
            {"direction": direction.value, "against": other, "psnr_brain_difference": difference, "p_holm": p_holm}
            for other, difference in differences.items()
        ]
        return words.verdicts({"methods": methods, "n_participants": 10, "comparisons": rows}, name, direction)

    good = verdicts("good", {"blind": 5.0, "population-mean": 4.5})
    assert [tone for tone, _ in good] == ["good", "good", "plain", "plain"]
    tests = "other methods in the paired tests"
    assert good[0][1] == f"PSNR is higher than that of all {tests}; the closest is population-mean (by 4.50 dB)."
    best_control = "the best control, population-mean, reaches 10%, but the difference was not tested."
    assert good[2][1].endswith(f"(by chance: 10%); {best_control}")
    assert good[3][1].endswith("; this does not show that they are the right ones, see within-site r.")
    blind = verdicts("blind", {"good": -5.0, "population-mean": 0.5})
    assert [tone for tone, _ in blind] == ["warn", "plain", "warn", "warn", "warn"]
    assert blind[0][1] == "PSNR is lower than that of good (by 5.00 dB)." and "average brain" in blind[2][1]
    some = f"1 of 2 {tests}, not of all; the closest of these is population-mean (by 0.50 dB)"
    assert blind[1][1] == f"PSNR is higher than that of {some}."
    methods["good"][direction.value]["spectrum_high"] = {"mean": 0.31}
    blurred = verdicts("good", {"blind": 5.0, "population-mean": 4.5})
    assert blurred[-1][0] == "warn" and blurred[-1][1].startswith("Fine detail is mostly missing: the outputs have 31%")
    unsure = verdicts("good", {"blind": 5.0, "population-mean": 4.5}, p_holm=0.06)
    level = "PSNR does not differ significantly from that of"
    assert unsure[0] == ("warn", f"{level} population-mean (higher by 4.50 dB), blind (higher by 5.00 dB).")
    assert words.group_of("pds-refiner-only:small", "pds") == "control"
    assert words.group_of("local-ridge", "default (pds)") == "control"
    assert words.group_of("run (local-ridge)", "default (pds)") == "baseline"  # trained by the user
    assert words.skill(methods, "good", direction) == pytest.approx(0.5)
    controls = {"copy-source": methods["good"], "zeros": methods["blind"]}
    for others, reason in ((controls, ", but the control copy-source reaches 100%"), ({}, "; no control was scored")):
        found = words.verdicts(
            {"methods": {"good": methods["good"], **others}, "n_participants": 10}, "good", direction
        )
        assert found[1][0] == "plain" and f"(by chance: 10%){reason}" in found[1][1]
    texts = [words.number(value, 1) for value in (-0.04, -1.25, None)]
    assert texts == ["0.0", "\N{MINUS SIGN}1.2", "\N{EN DASH}"]


def test_the_sentences_on_the_paired_tests_agree():
    tests = {
        "a": (0.54, 0.07),
        "b": (0.92, 0.04),
        "c": (-0.1, 0.6),
        "d": (-2.0, 0.01),
        "e": (-3.0, 0.01),
        "f": (20.6, 0.04),
    }
    rows = [
        {"against": k, "psnr_brain_difference": d, "p_holm": p, "direction": "fmri_to_dmri"}
        for k, (d, p) in tests.items()
    ]
    scores = {"fmri_to_dmri": {"psnr_brain": {"mean": 25.0, "ci95": [24.0, 26.0]}}}
    metrics = {"methods": {"x": scores}, "n_participants": 10, "comparisons": rows}
    assert words.verdicts(metrics, "x", Direction.FMRI_TO_DMRI) == [
        ("warn", "PSNR is lower than that of e (by 3.00 dB), d (by 2.00 dB)."),
        ("warn", "PSNR does not differ significantly from that of c (lower by 0.10 dB), a (higher by 0.54 dB)."),
        (
            "plain",
            "PSNR is higher than that of 2 of 6 other methods in the paired tests, not of all; the closest of these is "
            "b (by 0.92 dB).",
        ),
    ]


def test_a_page_without_controls_says_what_is_missing_and_how_to_get_it(html, results, tmp_path):
    missing, explained = "<b>No control was scored.</b>", "Controls are simple methods"
    assert missing not in html and explained in html and "dB PSNR of oracle" not in html
    metrics = json.loads((results / "metrics.json").read_text())
    methods = metrics["methods"]
    metrics["methods"] = {EVIL_METHOD: methods[EVIL_METHOD], "oracle": methods["population-mean"]}
    (tmp_path / "metrics.json").write_text(json.dumps(metrics | {"comparisons": []}))
    table = (results / "metrics.tsv").read_text().splitlines(keepends=True)
    (tmp_path / "metrics.tsv").write_text("".join(line for line in table if "population-mean" not in line))
    (tmp_path / "predictions").symlink_to(results / "predictions")
    text = write_report(tmp_path).read_text(encoding="utf-8")
    assert missing in text and explained not in text and "<code>--no-controls</code>" in text
    best = methods["population-mean"]["fmri_to_dmri"]["psnr_brain"]["mean"]
    assert f"<strong>{best:.1f}</strong><span>dB PSNR of oracle, the best possible estimate</span>" in text
    assert "The oracle is the best possible estimate" in text and Page(text).open == []


def test_notes_that_need_nothing_are_no_refused_files(results, tmp_path):
    shutil.copytree(results, tmp_path / "run")
    note = (
        "participants.tsv",
        "has rows of participants that are not on disk: 'x' (line 2)",
        "nothing is needed if so",
    )
    with (tmp_path / "run/rejected.tsv").open("a") as file:
        file.write("\t".join(note) + "\n")
    text = write_report(tmp_path / "run").read_text(encoding="utf-8")
    refused = text[text.index("<h3>Refused files</h3>") : text.index("Not refused: 1 note that may need nothing")]
    assert "is cut short" in refused and "participants.tsv" not in refused
    assert "(line 2). Nothing is needed if so.</li>" in text.replace("&#39;", "'")
