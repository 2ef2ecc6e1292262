"""The server: nothing without the token, its limits, names of files, and the volume that `synthesize` writes."""

from __future__ import annotations

import base64
import gzip
import io
import json
import re
import time
import zipfile

import nibabel as nib
import numpy as np
import pytest
from starlette.testclient import TestClient

from pdsynth.missing import synthesise_path
from pdsynth.outcomes import REPAIR
from pdsynth.report.viewer import LEVELS
from pdsynth.serve.app import HEADERS, NO_TOKEN, application
from pdsynth.serve.jobs import State
from pdsynth.serve.result import verdict
from pdsynth.serve.uploads import MOST_FILES, stored_name
from pdsynth.serve.work import STEPS
from pdsynth.types import InputError
from pdsynth.workers import terminate

TIMES = "\N{MULTIPLICATION SIGN}"
TOKEN, MOST = "the-token_of-the_tests", 10**7
HERE = "http://127.0.0.1:8000"


@pytest.fixture(scope="module")
def client(queue):
    """A browser that knows the token, of a server that synthesises."""
    with TestClient(application(queue, TOKEN, ["127.0.0.1", "localhost"], MOST), base_url=f"{HERE}/{TOKEN}/") as found:
        yield found


@pytest.fixture
def job(client, queue):
    number = client.post("jobs").json()["number"]
    yield queue.jobs[number]
    client.delete(f"jobs/{number}")


def put(client, job, name, content):
    return client.put(f"jobs/{job.number}/files", params={"name": name}, content=content)


def synthesise(client, job, name, to):
    return client.post(f"jobs/{job.number}/synthesis", params={"scan": name, "to": to})


def ended(client, job, seconds=300):
    """The state of a job as soon as it is done or has failed."""
    for _ in range(10 * seconds):
        found = client.get(f"jobs/{job.number}/state").json()
        if found["state"] in ("done", "failed"):
            return found
        time.sleep(0.1)
    raise AssertionError(found)


def addresses(queue):
    """Method and path, without the token, of every route."""
    mount = application(queue, TOKEN, ["127.0.0.1"], MOST).routes[0]
    for route in mount.routes:
        path = route.path.replace("{number:int}", "1").replace("{name}", "style.css")
        yield from ((method, path) for method in route.methods)


@pytest.mark.parametrize("token", ["", "wrong/", TOKEN[:-1] + "/", TOKEN + "x/", TOKEN.upper() + "/", "%00/", "../"])
def test_nothing_is_served_without_the_token(queue, token):
    app = application(queue, TOKEN, ["127.0.0.1"], MOST)
    stranger = TestClient(app, base_url=HERE, follow_redirects=False)
    found = list(addresses(queue))
    assert len(found) >= 10 and {path for _, path in found} >= {"/", "/static/style.css", "/jobs"}
    before = list(queue.jobs)
    for method, path in [*found, ("GET", "/nowhere"), ("OPTIONS", "/"), ("TRACE", "/jobs")]:
        answer = stranger.request(method, f"/{token}{path.lstrip('/')}", headers={"X-Token": TOKEN})
        assert answer.status_code == 403, (method, path)
        assert answer.text == ("" if method == "HEAD" else NO_TOKEN)
        assert TOKEN not in str(answer.headers)
    assert list(queue.jobs) == before


def test_every_answer_has_a_strict_policy_and_is_not_kept(client):
    for path in ("", "static/viewer.js", "static/none.js", "jobs/999/state"):
        answer = client.get(path)
        assert {name: answer.headers[name] for name in HEADERS} == HEADERS
    assert "'unsafe" not in HEADERS["Content-Security-Policy"]
    assert HEADERS["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self'; style-src 'self'; ")
    page = client.get("").text
    assert not re.search(r"<script>|<style>|style=|\son\w+=|https?:", page)


@pytest.mark.parametrize(
    ("host", "status"),
    [("127.0.0.1:8000", 200), ("localhost", 200), ("rebound.example", 400), ("127.0.0.1.example:8000", 400), ("", 400)],
)
def test_a_foreign_host_is_refused(client, host, status):
    answer = client.get("", headers={"Host": host})
    assert answer.status_code == status
    assert ("One brain scan" in answer.text) == (status == 200)


def test_a_scan_gives_the_volume_that_synthesize_writes(client, job, model, scan, tmp_path):
    for path in (scan, scan.with_suffix("").with_suffix(".json")):
        assert put(client, job, path.name, path.read_bytes()).status_code == 204
    (found,) = client.get(f"jobs/{job.number}/scans").json()
    assert (found["modality"], found["sign"], found["problem"]) == ("fmri", "by its name", "")
    assert found["about"] == "30 x 34 x 28 voxels of 6 x 6 x 6 mm, 4 volumes".replace(" x ", f" {TIMES} ")
    assert synthesise(client, job, scan.name, "dmri").status_code == 202
    assert put(client, job, "late.nii.gz", b"").status_code == 409
    end = ended(client, job)
    assert (end["state"], end["problem"], end["step"], end["words"]) == ("done", "", STEPS, "Writing the files")

    answer = client.get(f"jobs/{job.number}/download")
    assert 'filename="sub-a_desc-synthetic_dwiref.zip"' in answer.headers["content-disposition"]
    packed = zipfile.ZipFile(io.BytesIO(answer.content))
    (written,), _ = synthesise_path(model, scan, tmp_path / "out", device="cpu")
    name = written.relative_to(tmp_path / "out").as_posix()
    sidecar = name.replace(".nii.gz", ".json")
    assert sorted(packed.namelist()) == ["dataset_description.json", sidecar, name]
    ours = nib.Nifti1Image.from_bytes(gzip.decompress(packed.read(name)))
    theirs = nib.load(written)
    assert ours.get_fdata().tobytes() == theirs.get_fdata().tobytes() and ours.get_fdata().max() > 0.3
    np.testing.assert_array_equal(ours.affine, theirs.affine)
    said, says = json.loads(packed.read(sidecar)), json.loads((tmp_path / "out" / sidecar).read_text())
    assert said.pop("SourcePlace") != says.pop("SourcePlace") and said == says
    _check_page(client.get(f"jobs/{job.number}").text, ours)


def _check_page(html, made):
    """The page shows the volume, in the order right, anterior, superior, to within half a level."""
    page = json.loads(re.search(r'<script type="application/json" id="volumes">(.*?)</script>', html, re.S)[1])
    (person,) = page["people"]
    (grid,) = page["grids"]
    assert list(person["scans"]) == ["fmri"] and person["name"].startswith("sub-a ")
    found = person["directions"]["fmri_to_dmri"]
    volume = found["volume"]
    levels = np.frombuffer(base64.b64decode(volume["data"].split(",")[1]), np.uint8)
    shown = volume["low"] + (volume["high"] - volume["low"]) * levels.reshape(grid["size"]) / LEVELS
    turned = nib.as_closest_canonical(made)
    first = np.rint(np.linalg.solve(turned.affine, grid["affine"])[:3, 3]).astype(int)
    box = tuple(slice(start, start + size) for start, size in zip(first, grid["size"], strict=True))
    expected = turned.get_fdata()[box]
    assert np.abs(shown - expected).max() <= (volume["high"] - volume["low"]) / LEVELS / 2 + 1e-6
    assert expected.sum() == pytest.approx(turned.get_fdata().sum())  # nothing lies outside the box
    assert found["deviation"] is None and "Uncertainty calibrated" not in html
    assert '<p class="verdict"><b>No limit is known for this model: its round trip has ' in html
    assert "<b>SIMULATED</b>" in html and page["marks"]["synthesised"] == "SIMULATED · SYNTHETIC"
    assert not re.search(r"<script>|<style>|style=|\son\w+=|https?:|/tmp", html)


def test_a_dmri_that_was_dropped_alone_asks_for_its_tables(client, job, scan):
    assert put(client, job, "sub-a_dwi.nii.gz", scan.read_bytes()).status_code == 204
    (found,) = client.get(f"jobs/{job.number}/scans").json()
    remedy = "drop its .bval and .bvec files together with the scan"
    assert found["problem"] == f"sub-a_dwi.nii.gz: has no .bval file. Remedy: {remedy}."


def test_what_is_no_scan_gets_the_line_of_synthesize(client, job, model, tmp_path):
    assert put(client, job, "sub-a_bold.nii.gz", b"no image").status_code == 204
    (found,) = client.get(f"jobs/{job.number}/scans").json()
    (tmp_path / "sub-a_bold.nii.gz").write_bytes(b"no image")
    with pytest.raises(InputError) as refusal:
        synthesise_path(model, tmp_path / "sub-a_bold.nii.gz", tmp_path / "out")
    assert found["problem"] == str(refusal.value).replace(f"{tmp_path}/", "")
    assert synthesise(client, job, "sub-a_bold.nii.gz", "dmri").status_code == 202
    assert (end := ended(client, job))["state"] == "failed" and end["problem"] == found["problem"]
    page = client.get(f"jobs/{job.number}").text
    assert "This scan could not be used" in page and "is not gzip data" in page
    assert client.get(f"jobs/{job.number}/download").status_code == 409


def test_the_direction_is_asked_for_where_it_cannot_be_told(client, job, scan):
    put(client, job, "12 resting (1).nii.gz", scan.read_bytes())
    put(client, job, "dwi_mean.nii", nib.load(scan).slicer[..., 0].to_bytes())
    put(client, job, "sub-a_desc-brain_mask.nii.gz", scan.read_bytes())
    unknown, mean = client.get(f"jobs/{job.number}/scans").json()
    assert (unknown["name"], unknown["modality"], unknown["single"]) == ("12_resting__1_.nii.gz", None, False)
    assert (mean["modality"], mean["label"], mean["single"]) == ("dmri", "dMRI", True)
    for name, to in (
        ("dwi_mean.nii", "mri"),
        ("other.nii.gz", "fmri"),
        ("../scans/dwi_mean.nii", "fmri"),
        ("", "fmri"),
    ):
        assert synthesise(client, job, name, to).status_code == 400
    assert job.state is State.NEW


@pytest.mark.parametrize(
    "name",
    [
        "../evil_bold.nii.gz", "/etc/evil_bold.nii.gz", "a/b_bold.nii.gz", "..\\evil_bold.nii.gz", ".hidden.nii.gz",
        "..", "", "null\0_bold.nii.gz", "line\n_bold.nii.gz", "x" * 250 + ".nii.gz", "run.sh", "IM0001.dcm", "a.gz.exe",
    ],
)  # fmt: skip
def test_a_name_that_is_a_path_or_no_scan_is_refused_and_nothing_is_written(client, job, queue, name):
    before = {path for path in queue.folder.rglob("*")}
    answer = put(client, job, name, b"x")
    assert answer.status_code == 400
    assert re.fullmatch(
        r".*(is not a plain file name|is not a file of a NIfTI scan|has a name of more than 200 bytes)"
        r"\. Remedy: .*\.",
        answer.json()["problem"],
    )
    assert {path for path in queue.folder.rglob("*")} == before


def test_unusual_characters_of_a_name_do_not_reach_the_disk():
    assert stored_name("Süd: rest*bold?.nii.gz") == "S_d__rest_bold_.nii.gz"
    assert stored_name("sub-01_ses-2_dir-AP_dwi.bval") == "sub-01_ses-2_dir-AP_dwi.bval"
    assert [stored_name(name) for name in ("bvals", "bvecs")] == ["bvals", "bvecs"]


def pieces(total, size=1000):
    for _ in range(total // size):
        yield bytes(size)


@pytest.mark.parametrize("content", [bytes(6000), lambda: pieces(6000)], ids=["declared", "streamed"])
def test_what_is_too_large_is_refused_and_not_kept(queue, content):
    kept = sum(job.size for job in queue.jobs.values())
    small = TestClient(application(queue, TOKEN, ["127.0.0.1"], kept + 10_000), base_url=f"{HERE}/{TOKEN}/")
    job = queue.add()
    for name, status in (("a_bold.nii.gz", 204), ("b_bold.nii.gz", 413), ("c_bold.nii.gz", 413)):
        answer = put(small, job, name, content() if callable(content) else content)
        assert answer.status_code == status
        if status == 413:
            assert "Remove earlier scans" in answer.json()["problem"]
    assert [path.name for path in job.scans.iterdir()] == ["a_bold.nii.gz"] and job.size == 6000
    assert put(small, job, "d_bold.nii.gz", bytes(3000)).status_code == 204
    queue.remove(job)
    assert not job.folder.exists()


def test_files_of_one_name_and_too_many_files_are_refused(client, job):
    assert put(client, job, "bvals", b"0 1000").status_code == 204
    answer = put(client, job, "bvals", b"0 2000")
    assert (answer.status_code, answer.json()["problem"][:24]) == (400, "bvals: was dropped twice")
    assert (job.scans / "bvals").read_bytes() == b"0 1000"
    job.files = MOST_FILES
    assert put(client, job, "bvecs", b"").status_code == 413


def test_the_files_of_a_removed_scan_are_gone(client, queue, scan):
    job = queue.jobs[client.post("jobs").json()["number"]]
    put(client, job, scan.name, scan.read_bytes())
    assert job.folder.exists()
    assert client.delete(f"jobs/{job.number}").status_code == 204
    assert not job.folder.exists()
    for path in ("state", "scans", "download"):
        assert client.get(f"jobs/{job.number}/{path}").status_code == 404
    assert client.get(f"jobs/{job.number}", follow_redirects=False).headers["location"] == "../"


@pytest.mark.slow
def test_scans_wait_for_their_turn_and_survive_a_killed_process(client, queue, scan):
    jobs = [queue.jobs[client.post("jobs").json()["number"]] for _ in range(4)]
    for job in jobs:
        put(client, job, scan.name, scan.read_bytes())
        assert synthesise(client, job, scan.name, "dmri").status_code == 202
    assert [client.get(f"jobs/{job.number}/state").json()["ahead"] for job in jobs[1:]] == [1, 2, 3]
    first, second, third, fourth = jobs
    client.delete(f"jobs/{third.number}")  # it waits
    client.delete(f"jobs/{first.number}")  # it runs
    while second.state is State.WAITING or not second.steps:
        time.sleep(0.05)
    assert not first.folder.exists() and not third.folder.exists()
    terminate([queue._pool])
    assert re.search(
        r"_bold.nii.gz: was being processed when its process was killed.*Remedy: ", ended(client, second)["problem"]
    )
    assert ended(client, fourth)["state"] == "done" and fourth.archive.exists()
    for job in (second, fourth):
        client.delete(f"jobs/{job.number}")


CHECK = "Check the source scan"


@pytest.mark.parametrize(
    ("round_trip", "least", "doubtful", "said"),
    [
        (22.96, 23, False, f"{CHECK}: its round trip has 22.96 dB, below 23 dB. {REPAIR}"),
        (22.9, 23, True, f"{CHECK}: its round trip has 22.90 dB"),
        (24, 23, True, "Do not use this volume before you have measured the model on such doubtful scans"),
        (24, 23, False, "No fault was found: its round trip has 24.00 dB"),
        (24, None, True, "No limit is known for this model: its round trip has 24.00 dB"),
    ],
)
def test_the_page_begins_with_a_verdict(round_trip, least, doubtful, said):
    assert verdict(round_trip, least, doubtful).startswith(said) and verdict(None, least, doubtful) == ""
