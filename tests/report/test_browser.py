"""The report in headless Chromium: opens from disk, moves, sorts, downloads, loads nothing, and can be read by all."""

from __future__ import annotations

import json
import shutil
import time

import numpy as np
import pandas as pd
import pytest

from browsing import FOUND, LOOKS, browser, changed, fetch_axe, look, panes, press, serious_faults, settled, slide, text
from pages import write_synthesised
from pdsynth.evidence.claims import write_report
from pdsynth.report.volumes import write_volumes
from pdsynth.results.archive import image_name
from pdsynth.types import Direction

GRID, PEOPLE, SAVED, METHODS = (48, 56, 48), 60, 24, 8  # of the large page
MOST_BYTES, MOST_SECONDS = 30e6, 3.0
pytestmark = pytest.mark.skipif(not FOUND, reason="no chromium and chromedriver here")


@pytest.fixture(scope="module")
def page(many_results, tmp_path_factory):
    """A copy of the report, apart from its folder."""
    path = tmp_path_factory.mktemp("page") / "report.html"
    shutil.copy(write_report(many_results), path)
    return path


@pytest.fixture(scope="module")
def shared_page(many_results, tmp_path_factory):
    path = tmp_path_factory.mktemp("shared") / "report.html"
    shutil.copy(write_report(many_results, for_sharing=True), path)
    return path


@pytest.fixture(scope="module")
def volumes_page(tmp_path_factory):
    root, dataset = write_synthesised(tmp_path_factory.mktemp("volumes"), {"01": "21.50", "02": ""})
    return write_volumes(root, dataset)


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("downloads")) as found:
        yield found


@pytest.fixture
def opened(driver, page):
    from selenium.webdriver.support.wait import WebDriverWait

    look(driver, "light")
    driver.get(page.as_uri())
    # the viewer fills this text when it has decoded the volumes
    WebDriverWait(driver, 30).until(lambda d: " mm" in text(d, "[name=position]"))
    return driver


def test_tables_of_scores_show_all_their_columns_at_1400_pixels(opened):
    metrics = {"width": 1400, "height": 1000, "deviceScaleFactor": 1, "mobile": False}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    script = (
        "return [...document.querySelectorAll('table.scores')].map((t) => [t.scrollWidth, t.parentNode.clientWidth])"
    )
    widths = opened.execute_script(script)
    assert len(widths) == 4 and all(table <= room for table, room in widths), widths


def test_the_list_of_participants_is_as_wide_as_its_longest_name(opened):
    metrics = {"width": 1400, "height": 1000, "deviceScaleFactor": 1, "mobile": False}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    room = opened.execute_script("""return document.querySelector("#viewer [name=person]").clientWidth""")
    assert room > 400  # the longest name of this page; at 340 pixels it was cut
    assert " rank 1 of 12 " in opened.find_element("css selector", "#viewer [name=person] option").text


def test_a_button_copies_the_text_for_a_paper(opened):
    for name, beginning in (("methods-text", "SIMULATED: the scans of this run"), ("methods-references", "@")):
        button = opened.find_element("css selector", f"[data-copies={name}]")
        button.send_keys("\n")
        assert button.text == "Copied"
        chosen = opened.execute_script("return getSelection().toString()")
        assert chosen.startswith(beginning) and "efron1987" in chosen


@pytest.mark.parametrize("kind", ["page", "volumes_page"])
def test_it_opens_from_disk_with_no_error_and_no_request(driver, kind, request):
    page = request.getfixturevalue(kind)
    driver.get_log("browser"), driver.get_log("performance")
    look(driver, "light")
    driver.get(page.as_uri())
    press(driver, "v", "d", "n")
    settled(driver)
    events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    assert asked.count(page.as_uri()) == 1
    assert [url for url in asked if url != page.as_uri() and not url.startswith("data:")] == []
    assert driver.get_log("browser") == []


def test_synthesised_volumes_have_panes_of_source_volume_and_no_real_scan(driver, volumes_page):
    look(driver, "light")
    driver.get(volumes_page.as_uri())
    settled(driver)
    assert panes(driver).keys() == {f"{layer} {plane}" for layer in ("source", "synthesised") for plane in range(3)}
    assert "round trip 21.50 dB" in text(driver, "[name=scores]")
    press(driver, "n")
    settled(driver)
    assert "round trip" not in text(driver, "[name=scores]")


def test_there_is_a_pane_per_volume_and_plane_and_each_shows_something(opened):
    layers = ("source", "real", "synthesised", "difference", "deviation")
    assert panes(opened).keys() == {f"{layer} {plane}" for layer in layers for plane in range(3)}
    script = """return [...document.querySelectorAll(".panes canvas")].map((c) => {
        const {data} = c.getContext("2d").getImageData(0, 0, c.width, c.height);
        return Math.max(...data.filter((_, i) => i % 4 < 3)) })"""
    assert min(opened.execute_script(script)) > 100
    labels = opened.execute_script("return [...document.querySelectorAll('.panes canvas')].map((c) => c.ariaLabel)")
    assert len(set(labels)) == 15 and all("slice, " in label and "mm" in label for label in labels)


def test_the_crosshair_moves_all_panes(opened):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.by import By

    before, place = panes(opened), text(opened, "[name=position]")
    canvas = opened.find_element(By.CSS_SELECTOR, "canvas[data-layer=real][data-plane='2']")
    ActionChains(opened).move_to_element_with_offset(canvas, 30, 25).click().perform()
    assert changed(before, panes(opened)) == set(before)
    moved = text(opened, "[name=position]")
    assert moved.split("z")[0] != place.split("z")[0] and moved.split("z")[1] == place.split("z")[1]
    press(opened, "0")
    assert text(opened, "[name=position]") == place and panes(opened) == before


def test_keys_move_by_one_voxel_of_8_mm_and_stay_inside(opened):
    from selenium.webdriver import Keys

    def at():
        found = text(opened, "[name=position]").replace("\N{MINUS SIGN}", "-").split(" mm")[:3]
        return np.array([float(part.split("=")[1]) for part in found])

    start = at()
    for key, step in (
        (Keys.ARROW_RIGHT, (8, 0, 0)), (Keys.PAGE_UP, (0, 8, 0)), (Keys.ARROW_UP, (0, 0, 8)),
        (Keys.ARROW_LEFT, (0, 8, 8)), (Keys.PAGE_DOWN, (0, 0, 8)), (Keys.ARROW_DOWN, (0, 0, 0)),
    ):  # fmt: skip
        press(opened, key)
        if step.count(0) == 2 and key in (Keys.ARROW_RIGHT, Keys.PAGE_UP, Keys.ARROW_UP):
            start_of_axis = start[np.argmax(step)]
            assert at()[np.argmax(step)] - start_of_axis == 8
        else:
            assert (at() - start).tolist() == list(step)
    press(opened, *[Keys.ARROW_UP] * 40)
    size = json.loads(text(opened, "#volumes"))["grids"][0]["size"]
    assert opened.execute_script("return document.querySelector('#viewer [name=z]').value") == str(size[2] - 1)


def test_each_slider_changes_what_it_names(opened):
    grey = {f"{layer} {plane}" for layer in ("source", "real", "synthesised") for plane in range(3)}
    colour = {f"{layer} {plane}" for layer in ("difference", "deviation") for plane in range(3)}
    made = {f"synthesised {plane}" for plane in range(3)}
    for name, value, expected in (
        ("black", 0.3, grey), ("white", 0.5, grey), ("colours", 0.5, colour),
        ("opacity", 0.9, set()), ("overlay", "difference", made), ("opacity", 0.2, made),
        ("overlay", "deviation", made), ("z", 12, grey | colour), ("smooth", None, grey | colour),
    ):  # fmt: skip
        before = panes(opened)
        if name == "smooth":
            opened.execute_script("document.querySelector('#viewer [name=smooth]').click()")
        else:
            slide(opened, name, value)
        assert changed(before, panes(opened)) == expected, name
    assert text(opened, ".bar.grey .end") == "0.30"
    slide(opened, "black", 0.9)  # it stays below white
    assert text(opened, ".bar.grey .end") == "0.49"


def pixels(driver, layer, plane):
    """The grey levels of a pane, (rows, columns), without its marks: crosshair and scale bar are off."""
    settled(driver)
    script = """const c = document.querySelector(`canvas[data-layer="${arguments[0]}"][data-plane="${arguments[1]}"]`);
        return [c.height, c.width, [...c.getContext("2d").getImageData(0, 0, c.width, c.height).data]]"""
    height, width, data = driver.execute_script(script, layer, plane)
    return np.array(data).reshape(height, width, 4)[..., 0]


def test_radiological_turns_left_and_right_of_the_planes_across(opened):
    from selenium.webdriver import Keys

    press(opened, "c", "m")  # no crosshair, no scale bar
    before = {plane: pixels(opened, "real", plane) for plane in range(3)}
    place = text(opened, "[name=position]")
    press(opened, "r")
    after = {plane: pixels(opened, "real", plane) for plane in range(3)}
    assert (before[0] == after[0]).all()
    rows = slice(before[2].shape[0] // 5, before[2].shape[0] * 2 // 5)  # between the letters
    for plane in (1, 2):
        turned = np.abs(before[plane][:, ::-1][rows] - after[plane][rows])[:, 12:-12]
        assert np.median(turned) <= 2 and (before[plane] != after[plane]).mean() > 0.2
    press(opened, Keys.ARROW_RIGHT)  # to the right of the picture, the participant's left
    before_x, after_x = (
        float(each.split(" mm")[0].split("=")[1].replace("\N{MINUS SIGN}", "-"))
        for each in (place, text(opened, "[name=position]"))
    )
    assert after_x - before_x == -8


def test_the_scale_bar_is_5_cm_long_and_can_be_taken_away(opened):
    press(opened, "c")
    with_bar = pixels(opened, "source", 2)
    press(opened, "m")
    rows, columns = np.nonzero(with_bar != pixels(opened, "source", 2))
    grid = json.loads(text(opened, "#volumes"))["grids"][0]
    millimetres = with_bar.shape[1] / (grid["size"][0] * abs(grid["affine"][0][0]))  # pixels of one
    line = columns[(rows >= 21) & (rows <= 23)]
    assert line.max() - line.min() == pytest.approx(50 * millimetres, abs=4)


def test_the_window_is_also_told_as_width_and_level_and_a_key_shows_the_keys(opened):
    slide(opened, "white", 0.8)
    slide(opened, "black", 0.2)
    assert text(opened, "[name=window]") == "W 0.60, L 0.50"
    press(opened, "?")
    assert opened.execute_script("return document.getElementById('viewer-keys').open")


def test_a_missing_scan_is_shown_without_a_real_one_and_one_can_go_back(opened):
    before, place = panes(opened), text(opened, "[name=position]")
    opened.execute_script("document.querySelector('[data-shows]').click()")
    found = panes(opened)
    layers = ("source", "synthesised", "deviation")
    assert found.keys() == {f"{layer} {plane}" for layer in layers for plane in range(3)}
    assert text(opened, "[name=scores]") == "no real scan to compare with"
    assert text(opened, "[name=position]").endswith("(scanner)") and place.endswith("(MNI)")
    script = "return [...document.querySelectorAll(arguments[0])].map((each) => each.disabled)"
    assert opened.execute_script(script, "#viewer [name=direction]") == [False, True]
    assert opened.execute_script(script, "#viewer [name=overlay] option") == [False, True, False]
    assert opened.execute_script("return document.querySelector('#viewer .bar.difference').offsetWidth") == 0
    size = json.loads(text(opened, "#volumes"))["grids"][1]["size"]
    assert opened.execute_script("return document.querySelector('#viewer [name=z]').max") == str(size[2] - 1)
    press(opened, "d")  # there is no other direction
    assert panes(opened) == found
    press(opened, "v")
    assert panes(opened).keys() == {f"swipe {plane}" for plane in range(3)}
    press(opened, "v", "n")  # the first participant again
    assert panes(opened) == before and text(opened, "[name=position]") == place


def test_the_swipe_shows_the_source_left_of_the_line_and_the_synthesised_scan_right_of_it(opened):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.by import By

    opened.execute_script("document.querySelector('#viewer [name=crosshair]').click()")
    press(opened, "v")
    slide(opened, "swipe", 0.5)
    assert panes(opened).keys() == {"swipe 0", "swipe 1", "swipe 2"}
    half = """const c = document.querySelector("canvas[data-plane='2']"), w = c.width, h = c.height;
        const part = (from) => [...c.getContext("2d").getImageData(from, 0, w / 2 - 12, h * 0.9).data].join();
        return [part(0), part(w / 2 + 12)]"""
    settled(opened)
    left, right = opened.execute_script(half)
    slide(opened, "against", "real")
    settled(opened)
    other_left, same_right = opened.execute_script(half)
    assert other_left != left and same_right == right
    canvas = opened.find_element(By.CSS_SELECTOR, "canvas[data-plane='2']")
    ActionChains(opened).move_to_element(canvas).click_and_hold().move_by_offset(80, 0).release().perform()
    swiped = float(opened.execute_script("return document.querySelector('#viewer [name=swipe]').value"))
    assert swiped == pytest.approx(0.5 + 80 / canvas.size["width"], abs=0.02)
    press(opened, "[")
    value = opened.execute_script("return document.querySelector('#viewer [name=swipe]').value")
    assert float(value) == pytest.approx(swiped - 0.05, abs=0.011)


def test_a_table_is_sorted_and_restored_by_its_headings(opened):
    from selenium.webdriver.common.by import By

    frame = opened.find_element(By.CSS_SELECTOR, ".scroll[aria-label^='Image quality, fMRI']")
    read = """return [...arguments[0].querySelectorAll("tbody tr")].map((r) => r.cells[1]
        ? parseFloat(r.cells[1].firstChild.textContent) : r.textContent.trim())"""
    before = opened.execute_script(read, frame)
    heading = frame.find_element(By.XPATH, ".//th[2]/button")
    values = [value for value in before if not isinstance(value, str)]
    for way, expected in (
        ("descending", sorted(values, reverse=True)), ("ascending", sorted(values)), ("none", before),
    ):  # fmt: skip
        opened.execute_script("arguments[0].click()", heading)
        assert opened.execute_script("return arguments[0].parentElement.ariaSort", heading) == way
        assert opened.execute_script(read, frame) == expected
    assert len(values) >= 4 and len(before) > len(values)


def test_a_table_is_downloaded_with_its_numbers_and_the_mark(opened, many_results):
    title = "Image quality, fMRI \N{RIGHTWARDS ARROW} dMRI"
    label = f"Download as TSV: {title}"
    opened.execute_script("document.querySelector(`[aria-label='${arguments[0]}']`).click()", label)
    path = opened.downloads / "SIMULATED_image-quality-fmri-dmri.tsv"
    for _ in range(100):
        if path.exists():
            break
        time.sleep(0.1)
    table = pd.read_csv(path, sep="\t", keep_default_na=False)
    metrics = json.loads((many_results / "metrics.json").read_text())["methods"]
    assert table["Method"].tolist()[0] == next(iter(metrics)) and set(table["Method"]) == set(metrics)
    for row in table.to_dict("records"):
        score = metrics[row["Method"]]["fmri_to_dmri"]["psnr_brain"]
        assert row["PSNR, dB"] == pytest.approx(score["mean"], abs=0.051)
        assert row["PSNR, dB, 95 % interval"] == f"{score['ci95'][0]:.1f} to {score['ci95'][1]:.1f}"
    assert "Under test" in set(table["Group"])
    assert "\N{MINUS SIGN}" not in path.read_text()


@pytest.fixture(scope="module")
def axe(tmp_path_factory):
    return fetch_axe(tmp_path_factory.mktemp("axe"))


@pytest.mark.slow
@pytest.mark.parametrize("name", LOOKS)
@pytest.mark.parametrize("kind", ["page", "shared_page", "volumes_page"])
def test_axe_finds_no_serious_fault(driver, axe, kind, name, request):
    look(driver, name)
    driver.get(request.getfixturevalue(kind).as_uri())
    driver.execute_script("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    assert serious_faults(driver, axe) == []


@pytest.mark.parametrize("kind", ["page", "shared_page", "volumes_page"])
def test_a_phone_has_no_sideways_scrolling(driver, kind, request):
    look(driver, "phone")
    driver.get(request.getfixturevalue(kind).as_uri())
    assert driver.execute_script("return document.documentElement.scrollWidth") <= LOOKS["phone"][0]
    if kind == "page":
        assert panes(driver).keys() == {f"{x} 2" for x in ("source", "real", "synthesised", "difference", "deviation")}
        driver.execute_script("document.querySelector('#viewer [name=plane][value=\"0\"]').click()")
        assert {name[-1] for name in panes(driver)} == {"0"}


@pytest.fixture(scope="module")
def large(many_results, tmp_path_factory):
    """The report of 60 participants on the 4 mm grid with eight methods, of smooth noise in a sphere."""
    from scipy import ndimage

    out = tmp_path_factory.mktemp("large")
    metrics = json.loads((many_results / "metrics.json").read_text())
    table = pd.read_csv(many_results / "metrics.tsv", sep="\t")
    tested = next(iter(metrics["methods"]))
    names = [tested, *(f"method-{i}" for i in range(1, METHODS))]
    metrics["methods"] = dict.fromkeys(names, metrics["methods"][tested])
    metrics |= {"n_participants": PEOPLE, "n_scans": PEOPLE, "times": {}, "comparisons": []}
    rows = table[table["method"] == tested].groupby("direction").head(1)
    ids = [f"sub-{i:02d}" for i in range(PEOPLE)]
    of_person = [rows.assign(method=name, participant_id=one) for name in names for one in ids]
    pd.concat(of_person).to_csv(out / "metrics.tsv", sep="\t", index=False)
    (out / "metrics.json").write_text(json.dumps(metrics))
    generator, axes = np.random.default_rng(0), np.meshgrid(*[np.linspace(-1, 1, n) for n in GRID], indexing="ij")
    brain = np.broadcast_to(sum(np.square(axis) for axis in axes) < 0.8, (SAVED, *GRID))
    (out / "predictions").mkdir()

    def save(name, array):
        np.save(out / "predictions" / f"{name}.npy", array)

    def volumes():
        noise = ndimage.gaussian_filter(generator.standard_normal((SAVED, *GRID)), (0, 1, 1, 1))
        return (np.clip(0.5 + 0.5 * noise, 0, 1) * brain).astype(np.float16)

    for direction in Direction:
        save(direction.target.value, volumes())
        save(f"{direction.target.value}_brain", brain)
        for name in names:
            save(image_name(name, direction), volumes())
        save(f"{image_name(tested, direction)}_std", volumes())
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    affine[:3, 3] = (-94, -130, -78)
    (out / "predictions" / "grid.json").write_text(json.dumps({"affine": affine.tolist()}))
    saved = {"participant_id": ids[:SAVED], "session_id": "", "site": "a", "diagnosis": "NC"}
    pd.DataFrame(saved).to_csv(out / "predictions" / "participants.tsv", sep="\t", index=False)
    return write_report(out)


@pytest.mark.slow
def test_a_page_of_60_participants_is_below_30_mb_and_opens_within_3_seconds(driver, large):
    assert 5e6 < large.stat().st_size < MOST_BYTES
    look(driver, "light")
    seconds = []
    for _ in range(3):  # the best of three, as other programs run at the same time
        driver.get(large.as_uri())
        settled(driver)  # the end of the load is recorded after the event itself
        times = "const [t] = performance.getEntriesByType('navigation'); return t.loadEventEnd / 1000"
        seconds.append(driver.execute_script(times))
        assert not driver.execute_script("return document.getElementById('viewer').hidden")
    assert 0 < min(seconds) < MOST_SECONDS, seconds
