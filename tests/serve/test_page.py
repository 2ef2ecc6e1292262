"""The page in headless Chromium: drop a scan, watch the progress, move the viewer, download; no fault, no request."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import time
import zipfile

import nibabel as nib
import numpy as np
import pytest

from browsing import FOUND, LOOKS, browser, changed, fetch_axe, look, panes, press, serious_faults, slide, text
from serving import start

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not FOUND, reason="no chromium and chromedriver here"),
]


@pytest.fixture(scope="module")
def address(model, tmp_path_factory):
    process, found = start(model, tmp_path_factory.mktemp("temporary"))
    yield found
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=60)


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("downloads")) as found:
        yield found


@pytest.fixture(scope="module")
def axe(tmp_path_factory):
    return fetch_axe(tmp_path_factory.mktemp("axe"))


def drop(driver, *paths):
    """Drop files on the page as a person does."""
    data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        driver.execute_cdp_cmd("Input.dispatchDragEvent", {"type": kind, "x": 300, "y": 300, "data": data})


def until(driver, condition, seconds=300):
    from selenium.webdriver.support.wait import WebDriverWait

    return WebDriverWait(driver, seconds, poll_frequency=0.1).until(condition)


def viewer_is_open(driver):
    return driver.execute_script("return !!document.querySelector('#viewer:not([hidden]) canvas')")


def requests(driver):
    events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    return [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]


@pytest.fixture(scope="module")
def done(driver, address, scan):
    """The address of the page with the viewer, after a scan was dropped; steps that the page showed before."""
    driver.get_log("browser"), driver.get_log("performance")
    look(driver, "light")
    driver.get(address)
    drop(driver, scan, scan.with_suffix("").with_suffix(".json"))
    shown = []

    def ended(driver):
        now = driver.execute_script("return (document.querySelector('.now') || {}).textContent")
        if now and now not in shown:
            shown.append(now)
        return viewer_is_open(driver)

    until(driver, ended)
    return driver.current_url, shown, requests(driver), driver.get_log("browser")


def test_a_dropped_scan_leads_to_the_viewer_without_a_fault_or_a_foreign_request(done, address):
    url, shown, asked, log = done
    assert re.fullmatch(re.escape(address) + r"jobs/\d+", url)
    steps = {
        "Reading the scan",
        "Checking the pose of the head",
        "Finding the brain",
        "Aligning the scan with the template",
    }
    assert steps & set(shown)  # the page asks every half second, and a fast machine is done with some in between
    assert [each for each in asked if not each.startswith((address, "data:"))] == []
    assert log == []


def test_the_panes_show_source_and_synthesised_volume_and_move_together(driver, done):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.by import By

    look(driver, "light")
    driver.get(done[0])
    until(driver, viewer_is_open)
    before, place = panes(driver), text(driver, "[name=position]")
    assert before.keys() == {f"{layer} {plane}" for layer in ("source", "synthesised") for plane in range(3)}
    canvas = driver.find_element(By.CSS_SELECTOR, "canvas[data-layer=source][data-plane='2']")
    ActionChains(driver).move_to_element_with_offset(canvas, 30, 25).click().perform()
    assert changed(before, panes(driver)) == set(before)
    press(driver, "0")
    assert text(driver, "[name=position]") == place
    slide(driver, "white", 0.4)
    assert changed(before, panes(driver)) == set(before)
    press(driver, "d", "n", "p", "v")  # one direction and one scan: the first three change nothing
    assert panes(driver).keys() == {"swipe 0", "swipe 1", "swipe 2"}
    assert driver.get_log("browser") == []


def test_the_download_holds_the_marked_volume(driver, done):
    driver.get(done[0])
    driver.execute_script("document.querySelector('a[download]').click()")
    path = driver.downloads / "sub-a_desc-synthetic_dwiref.zip"
    for _ in range(100):
        if path.exists():
            break
        time.sleep(0.1)
    packed = zipfile.ZipFile(io.BytesIO(path.read_bytes()))
    assert packed.testzip() is None
    (name,) = (name for name in packed.namelist() if name.endswith(".nii.gz"))
    (driver.downloads / "volume.nii.gz").write_bytes(packed.read(name))
    image = nib.load(driver.downloads / "volume.nii.gz")
    assert image.header["intent_name"] == b"SYNTHETIC" and image.shape == (30, 34, 28)
    assert np.isfinite(image.get_fdata()).all() and image.get_fdata().max() > 0.3


def test_a_wrong_file_gets_a_clear_message_and_nothing_is_kept(driver, address, tmp_path):
    driver.get(address)
    for name, content, message in (
        ("notes.txt", b"x", "notes.txt is not a NIfTI scan. Drop a file that ends in .nii or .nii.gz; convert DICOM"),
        ("IM0001.dcm", b"x", "IM0001.dcm is not a NIfTI scan. Drop a file that ends in .nii or .nii.gz; convert DICOM"),
    ):
        (tmp_path / name).write_bytes(content)
        drop(driver, tmp_path / name)
        until(driver, lambda d, message=message: message in text(d, "#problem"))
    (tmp_path / "sub-b_bold.nii.gz").write_bytes(b"no image")
    drop(driver, tmp_path / "sub-b_bold.nii.gz")
    until(driver, lambda d: "sub-b_bold.nii.gz: is not gzip data" in text(d, "#found"))
    assert text(driver, "#found h2") == "No scan can be used" and text(driver, "#problem") == ""


def test_a_folder_with_two_scans_asks_which_one_and_its_direction(driver, address, scan, tmp_path):
    from selenium.webdriver.common.by import By

    folder = tmp_path / "converted"
    (folder / "inner").mkdir(parents=True)
    (folder / "inner" / "resting.nii.gz").write_bytes(scan.read_bytes())
    (folder / "sub-a_task-rest_bold.nii.gz").write_bytes(scan.read_bytes())
    (folder / "readme.txt").write_text("x")
    driver.get(address)
    drop(driver, folder)
    until(driver, lambda d: d.find_elements(By.CSS_SELECTOR, "#found li"))
    first, second = driver.find_elements(By.CSS_SELECTOR, "#found li")
    assert "Neither its name nor a .bval file says" in first.text and "fMRI, by its name" in second.text
    assert text(driver, "#found .skipped") == "One other file was not needed, and not sent."
    labels = [button.text for button in first.find_elements(By.TAG_NAME, "button")]
    assert labels == ["It is fMRI: synthesise dMRI", "It is dMRI: synthesise fMRI"]
    first.find_elements(By.TAG_NAME, "button")[0].click()
    until(driver, viewer_is_open)
    assert text(driver, "h1") == "dMRI synthesised from resting.nii.gz"
    driver.execute_script("document.querySelector('[name=remove]').click()")
    until(driver, lambda d: d.current_url == address)
    assert "resting.nii.gz" not in text(driver, "main")


@pytest.mark.parametrize("name", LOOKS)
def test_axe_finds_no_serious_fault_and_a_phone_needs_no_sideways_scrolling(driver, axe, address, done, tmp_path, name):
    look(driver, name)
    wrong = tmp_path / "sub-c_bold.nii.gz"
    wrong.write_bytes(b"no image")
    for url in (address, done[0]):
        driver.get(url)
        if url == address:
            drop(driver, wrong)
            until(driver, lambda d: "is not gzip data" in text(d, "#found"))
        else:
            until(driver, viewer_is_open)
            driver.execute_script("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
        assert serious_faults(driver, axe) == []
        assert driver.execute_script("return document.documentElement.scrollWidth") <= LOOKS[name][0]
