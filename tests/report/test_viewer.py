"""What the viewer contains: the volumes of chosen scans to within a level, the marks, and nothing it could run."""

import base64
import json
import re
import shutil
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pages import EVIL, Page
from pdsynth import folders
from pdsynth.cli import main
from pdsynth.evidence.claims import write_report
from pdsynth.outcomes import REPAIR
from pdsynth.report.filled import filled
from pdsynth.report.shown import chosen, limits, view_of
from pdsynth.report.viewer import contents, encoded
from pdsynth.results.archive import image_name
from pdsynth.results.folder import Results, synthesised_in
from pdsynth.types import Direction, InputError
from pdsynth.weights import weights_sha256


def bytes_of(address):
    return np.frombuffer(base64.b64decode(address.removeprefix("data:;base64,"), validate=True), np.uint8)


def decoded(volume, shape):
    levels = bytes_of(volume["data"]).reshape(shape)
    return volume["low"] + (volume["high"] - volume["low"]) * levels / 255


@pytest.fixture(scope="module")
def run(many_results):
    return Results.read(many_results)


def test_a_missing_scan_is_in_the_viewer_with_its_source_and_sd_and_no_real_scan(run):
    (scan,) = filled(run.synthesised, run.root)
    found = contents(run, [], [scan], limits(run))
    (person,), grid, box = found["people"], found["grids"][1], scan.view.box
    assert person["name"] == "sub-09 \N{MIDDLE DOT} missing dMRI" and person["grid"] == 1
    assert person["scans"].keys() == {"fmri"} and person["directions"].keys() == {"fmri_to_dmri"}
    made = person["directions"]["fmri_to_dmri"]
    assert made["scores"] == ["no real scan to compare with"]
    top = np.percentile(scan.volume[scan.brain], 99.5)  # the source of this folder is the volume itself
    for volume, there in (
        (made["volume"], scan.volume[box]),
        (made["deviation"], (scan.volume * scan.brain)[box]),
        (person["scans"]["fmri"], scan.volume[box] / top),
    ):
        assert np.abs(decoded(volume, grid["size"]) - there).max() <= (volume["high"] - volume["low"]) / 500
    brain = np.unpackbits(bytes_of(made["brain"]))[: np.prod(grid["size"])].reshape(grid["size"])
    assert (brain == scan.brain[box]).all() and 0.1 < brain.mean() < 0.9
    at = np.array(grid["affine"]) @ [*grid["cut"], 1]
    assert grid["space"] == "scanner"
    assert at[:3] == pytest.approx(scan.view.affine[:3, :3] @ scan.view.cuts + scan.view.affine[:3, 3])


def test_a_missing_scan_and_its_source_have_one_unit_and_the_page_says_what_a_low_round_trip_needs(
    many_results, tmp_path
):
    root = shutil.copytree(many_results, tmp_path / "run")
    (sidecar,) = root.rglob("*_desc-synthetic_dwiref.json")
    about = {"Preprocessing": {"intensity": "flat-median"}, "RoundTripPSNR": 18.25}
    sidecar.write_text(json.dumps(json.loads(sidecar.read_text()) | about))
    (scan,) = filled(synthesised_in(root, root), root)
    assert scan.scores == ["no real scan to compare with", "round trip 18.25 dB"]  # no limit is known for its model
    about["ModelSHA256"] = weights_sha256("default")
    sidecar.write_text(json.dumps(json.loads(sidecar.read_text()) | about))
    (scan,) = filled(synthesised_in(root, root), root)
    unit = 2.5 * np.median(scan.volume[scan.brain])  # the source of this folder is the volume itself
    assert scan.source == pytest.approx(scan.volume / unit, rel=1e-5)
    assert scan.scores == ["no real scan to compare with", "round trip 18.25 dB (below 23 dB)"]
    html = write_report(root).read_text(encoding="utf-8")
    rule = f"With the shipped model, check the source scan of each volume below 23 dB, in either direction. {REPAIR}"
    page = Path(__file__).parents[2] / "docs/how-to/synthesise.md"
    assert f"{rule} The limit is rough" in html
    assert f"**{rule}**" in " ".join(page.read_text(encoding="utf-8").split())
    assert "If your value is below 23 dB, or a doubt about the scan is named, first look at the source" in html
    assert "99.5th percentile in the brain" not in html[html.index("The list ends with") : html.index("<noscript>")]


def test_the_missing_scans_with_the_lowest_round_trips_are_shown_first(many_results, tmp_path):
    root = shutil.copytree(many_results, tmp_path / "run")
    (image,) = root.rglob("*_desc-synthetic_dwiref.nii.gz")
    for person, trust in (("07", 21.5), ("08", 19.5), ("10", None), ("11", 30)):
        copy = image.with_name(f"sub-{person}_desc-synthetic_dwiref.nii.gz")
        shutil.copy(image, copy)
        copy.with_name(f"sub-{person}_desc-synthetic_dwiref.json").write_text(json.dumps({"RoundTripPSNR": trust}))
    found = filled(synthesised_in(root, root), root)
    assert [(each.file[-33:-29], each.round_trip) for each in found] == [("b-08", 19.5), ("b-07", 21.5)]
    text = write_report(root).read_text(encoding="utf-8")
    assert "5 scans that the cohort lacks were synthesised from the other modality; 2 are shown: of each" in text
    assert "of each synthesised modality the 2 with the lowest round trip or, without round trips, the first" in text
    assert "For fMRI from dMRI, the tables are too favourable" not in text  # all are dMRI
    image.rename(image.with_name(image.name.replace("dwiref", "boldref")))
    text = write_report(root).read_text(encoding="utf-8")
    assert "; 3 are shown: of" in text
    assert "Of 12 SIMULATED people, the fMRI synthesised by the shipped model had 30.5 dB in a pair and 29.8 dB" in text


def test_a_fine_missing_scan_is_shown_as_means_of_blocks_of_1_to_2_mm(run):
    (scan,) = filled(run.synthesised, run.root)
    fine = replace(scan, view=replace(scan.view, affine=scan.view.affine @ np.diag([0.1, 0.075, 0.25, 1])))  # of 8 mm
    found = contents(run, [], [fine], limits(run))
    grid, box = found["grids"][1], scan.view.box
    x, y, z = grid["size"]
    assert (x, y, z) == tuple((s.stop - s.start) // n for s, n in zip(box, (2, 3, 1), strict=True))
    means = scan.volume[box][: 2 * x, : 3 * y].reshape(x, 2, y, 3, z).mean((1, 3))
    volume = found["people"][0]["directions"]["fmri_to_dmri"]["volume"]
    assert np.abs(decoded(volume, grid["size"]) - means).max() <= (volume["high"] - volume["low"]) / 500
    assert np.abs(np.array(grid["affine"])[:3, :3]).max(0) == pytest.approx([1.6, 1.8, 2.0])
    first = fine.view.affine @ [box[0].start + 0.5, box[1].start + 1, box[2].start, 1]  # the middle of the first block
    assert np.array(grid["affine"])[:3, 3] == pytest.approx(first[:3])


@given(st.floats(-2, 0.5), st.floats(1e-4, 3), st.integers(0, 99))
def test_a_volume_is_decoded_to_within_half_a_level(low, span, seed):
    volume = low + span * np.random.default_rng(seed).random((3, 4, 5))
    found = encoded(volume)
    step = (found["high"] - found["low"]) / 255
    assert found["low"] <= 0 and step < (max(span + low, 1e-3) + max(-low, 0)) / 255 + 1e-12
    assert np.abs(decoded(found, volume.shape) - volume).max() <= step / 2 + 1e-9


def test_the_page_holds_the_volumes_of_the_results(run, many_results):
    html = write_report(many_results).read_text(encoding="utf-8")
    found = json.loads(re.search(r'<script type="application/json" id="volumes">(.*?)</script>', html, re.S)[1])
    scans, box, shape = chosen(run), view_of(run).box, found["grids"][0]["size"]
    assert found == json.loads(json.dumps(contents(run, scans, filled(run.synthesised, run.root), limits(run))))
    assert len(found["people"]) == len(scans) + 1 == 7
    for person, scan in zip(found["people"][:-1], scans, strict=True):
        assert person["name"].startswith(run.imaged["participant_id"][scan.row])
        for direction in Direction:
            made = person["directions"][direction.value]
            brain = np.unpackbits(bytes_of(made["brain"]))[: np.prod(shape)]
            real = run.images(direction.target)[scan.row][box].astype(float)
            name = image_name(run.tested, direction)
            for volume, saved in (
                (person["scans"][made["target"]], real),
                (made["volume"], run.images(name)[scan.row][box].astype(float)),
                (made["deviation"], run.images(f"{name}_std")[scan.row][box].astype(float)),
            ):
                assert np.abs(decoded(volume, shape) - saved).max() <= (volume["high"] - volume["low"]) / 509
            assert (brain.reshape(shape) == run.images(f"{direction.target}_brain")[scan.row][box]).all()


def test_the_crosshair_starts_at_the_cut_of_the_pictures(run):
    found, view = contents(run, chosen(run), [], limits(run)), view_of(run)
    (grid,) = found["grids"]
    at = np.array(grid["affine"]) @ [*grid["cut"], 1]
    assert grid["space"] == "MNI" and at[:3] == pytest.approx(view.affine[:3, :3] @ view.cuts + view.affine[:3, 3])
    assert found["marks"] == {"real": "SIMULATED", "synthesised": "SIMULATED \N{MIDDLE DOT} SYNTHETIC"}


def test_the_shown_scans_go_from_the_best_to_the_worst_unless_they_are_named(run):
    total = sum(run.scan_scores(run.tested, d)["psnr_brain"].to_numpy() for d in Direction)
    scans = chosen(run)
    assert [scan.rank for scan in scans] == [1, 3, 5, 8, 10, 12]
    assert scans[0].row == total.argmax() and scans[-1].row == total.argmin()
    ids = run.imaged["participant_id"].tolist()
    named = chosen(run, [ids[7], ids[2], ids[7]])
    assert [scan.row for scan in named] == [7, 2]
    assert all(scan.rank == 1 + (total > total[scan.row]).sum() for scan in named)
    with pytest.raises(InputError, match=r"sub-99.*choose among"):
        chosen(run, ["sub-99"])
    with pytest.raises(InputError, match="at most 6"):
        chosen(run, ids[:7])


def test_names_in_the_data_cannot_end_the_script(results):
    html = write_report(results).read_text(encoding="utf-8")
    data = html[html.index('id="volumes">') :]
    data = data[: data.index("</script>")]
    assert "<" not in data
    assert EVIL in " ".join(person["name"] for person in json.loads(data.removeprefix('id="volumes">'))["people"])


def test_the_policy_of_the_page_allows_its_own_script_only(results):
    html = write_report(results).read_text(encoding="utf-8")
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', html)[1]
    script = html[html.rindex("<script>") + len("<script>") : html.rindex("</script>")]
    digest = base64.b64encode(sha256(script.encode()).digest()).decode()
    assert policy == (f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'")
    assert not re.search(r"\beval\b|\bFunction\(|fetch\(|XMLHttpRequest|WebSocket|innerHTML", script)


def test_every_picture_has_a_text(results):
    pictures = re.findall(r"<img [^>]*>", write_report(results).read_text(encoding="utf-8"))
    bars = [picture for picture in pictures if 'alt=""' in picture]
    assert len(pictures) > 100 and all("alt=" in picture for picture in pictures)
    assert len(bars) < 10  # colour bars, whose ends are texts


def test_a_page_of_real_participants_says_so_and_who_may_see_it(results, tmp_path):
    metrics = json.loads((results / "metrics.json").read_text()) | {"simulated": False}
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    (tmp_path / "metrics.tsv").write_bytes((results / "metrics.tsv").read_bytes())
    (tmp_path / "predictions").symlink_to(results / "predictions")
    html = write_report(tmp_path).read_text(encoding="utf-8")
    line = "This page holds images of real participants."
    assert html.count(line) == 1 and html.index(line) < html.index("<h1>")
    assert '"synthesised": "SYNTHETIC"' in html and "For research only" in html
    assert line not in write_report(results).read_text(encoding="utf-8")
    assert Page(html).open == []


def test_the_verb_shows_the_named_participants(run, many_results, tmp_path, capsys):
    out, ids = tmp_path / "run", run.imaged["participant_id"].tolist()
    with folders.making(out, overwrite=False) as work:
        for name in ("metrics.json", "metrics.tsv", "manifest.json"):
            shutil.copy(many_results / name, work.folder)
        shutil.copytree(many_results / "predictions", work.folder / "predictions")
    for names, code in ((f"{ids[3]}, {ids[5]}", 0), (f"{ids[3]},sub-99", 2)):
        with pytest.raises(SystemExit) as stop:
            main(["report", str(out), "--participants", names])
        assert (stop.value.code or 0) == code
    assert "holds no volumes of sub-99" in capsys.readouterr().err.replace("\n", " ")
    html = (out / "report.html").read_text(encoding="utf-8")
    assert re.findall(r'<option value="\d">([^ ]+)', html) == [ids[3], ids[5]] and "chosen by name" in html
