"""Headless Chromium for the tests of pages: looks, keys, sliders, the pixels of the viewer, and axe-core."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import contextmanager

import pytest

AXE = "axe-core@4.14.1"
SERIOUS = ("serious", "critical")
LOOKS = {"light": (1360, 1000, "light"), "dark": (1360, 1000, "dark"), "phone": (390, 844, "light")}
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
FOUND = bool(CHROMIUM and DRIVER)


@contextmanager
def browser(downloads):
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for word in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-background-networking"):
        options.add_argument(word)
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=DRIVER))
    driver.downloads = downloads
    look(driver, "light")  # the window of a test does not depend on the tests before it
    try:
        yield driver
    finally:
        driver.quit()


def look(driver, name):
    width, height, theme = LOOKS[name]
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": name == "phone"}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    features = [{"name": "prefers-color-scheme", "value": theme}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def settled(driver):
    """Wait until the frame that the last event asked for is drawn."""
    driver.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")


def panes(driver):
    """The pixels of every visible pane as a text, by layer and plane."""
    settled(driver)
    script = """return Object.fromEntries([...document.querySelectorAll(".panes canvas")].filter((c) => c.clientWidth)
        .map((c) => [`${c.dataset.layer} ${c.dataset.plane}`, c.toDataURL()]))"""
    return driver.execute_script(script)


def changed(before, after):
    assert before.keys() == after.keys()
    return {name for name in before if before[name] != after[name]}


def press(driver, *keys):
    driver.execute_script("document.querySelector('.panes').focus()")
    for key in keys:
        driver.switch_to.active_element.send_keys(key)


def slide(driver, name, value):
    """Set a control to a value, as a person would: with the event that the page listens to."""
    script = """const [name, value] = arguments, each = document.querySelector(`#viewer [name="${name}"]`);
        each.value = value; each.dispatchEvent(new Event("input", { bubbles: true }))"""
    driver.execute_script(script, name, value)


def text(driver, selector):
    return driver.execute_script("return document.querySelector(arguments[0]).textContent", selector)


def fetch_axe(folder):
    """The text of axe-core: of the file $PDSYNTH_AXE, or fetched with npm. Skips without it."""
    if given := os.environ.get("PDSYNTH_AXE"):
        with open(given, encoding="utf-8") as file:
            return file.read()
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("no npm here; set PDSYNTH_AXE to the file axe.min.js")
    words = [npm, "install", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", str(folder), AXE]
    try:
        subprocess.run(words, capture_output=True, timeout=120, check=True)
    except subprocess.SubprocessError as error:
        pytest.skip(f"axe-core could not be fetched: {error}")
    return (folder / "node_modules" / "axe-core" / "axe.min.js").read_text(encoding="utf-8")


def serious_faults(driver, axe):
    """The serious faults that axe-core finds on the page, each with its elements. axe: its text, of `fetch_axe`."""
    driver.execute_script(axe)
    found = driver.execute_async_script("axe.run().then(arguments[0])")
    assert len(found["passes"]) > 10
    return [(f["id"], [n["target"] for n in f["nodes"]]) for f in found["violations"] if f["impact"] in SERIOUS]
