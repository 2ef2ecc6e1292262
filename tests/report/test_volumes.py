"""The page of synthesised volumes: their sources if these are named, verdicts, doubts, and refusals."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from pages import Page, write_synthesised
from pdsynth import folders, manifest
from pdsynth.cli import main
from pdsynth.outcomes import REPAIR
from pdsynth.report.volumes import write_volumes
from pdsynth.types import InputError
from pdsynth.weights import weights_sha256


def embedded(page: Path) -> dict:
    return json.loads(re.search(r'id="volumes">(.*?)</script>', page.read_text(), re.S)[1])


def words(page: Path) -> str:
    return " ".join(re.sub(r"<(style|script).*?</\1>|<[^>]*>", " ", page.read_text(), flags=re.S).split())


def test_volumes_are_shown_beside_their_sources_if_these_are_named(tmp_path: Path) -> None:
    root, dataset = write_synthesised(tmp_path, {"01": "21.50"})
    (alone,) = embedded(write_volumes(root))["people"]
    assert alone["scans"] == {} and "name their dataset by --sources" in words(root / "report.html")
    scan = next(dataset.rglob("*.nii.gz"))
    for sources in (dataset, scan):
        page = write_volumes(root, sources)
        (beside,) = embedded(page)["people"]
        assert beside["scans"].keys() == {"fmri"} and beside["directions"].keys() == {"fmri_to_dmri"}
        assert beside["name"] == "sub-01 \N{MIDDLE DOT} missing dMRI"
        assert np.shape(embedded(page)["grids"][0]["affine"]) == (4, 4)
    read = Page(page.read_text())
    assert not read.open and not read.wrong and all(address.startswith(("data:", "#")) for address in read.addresses)
    assert "SIMULATED No person was scanned" in words(page)


def test_each_volume_has_its_verdict_and_its_doubt(tmp_path: Path) -> None:
    root, dataset = write_synthesised(tmp_path, {"01": "21.50", "02": "25.00", "03": ""}, weights_sha256("default"))
    text = words(write_volumes(root, dataset))
    assert f"_dwiref.nii.gz : Check the source scan: its round trip has 21.50 dB, below 23 dB. {REPAIR}" in text
    assert "has 25.00 dB, and the limit is 23 dB. This does not prove that it is right." in text
    assert ": No round trip was measured. The source scan is doubtful: b = 2500 <i>." not in text
    assert "The source scan is doubtful: b = 2500 &lt;i&gt;." in text and text.count("is doubtful:") == 1


def test_the_lowest_three_are_shown_or_those_who_are_named(tmp_path: Path) -> None:
    root, dataset = write_synthesised(tmp_path, {"01": "24.00", "02": "22.00", "03": "26.00", "04": "23.00"})
    shown = [each["name"][:6] for each in embedded(write_volumes(root, dataset))["people"]]
    assert shown == ["sub-02", "sub-04", "sub-01"] and "Shown: 3, of each modality" in words(root / "report.html")
    shown = [each["name"][:6] for each in embedded(write_volumes(root, dataset, ["sub-03", "sub-01"]))["people"]]
    assert shown == ["sub-01", "sub-03"]
    with pytest.raises(InputError, match=r"holds no volumes of sub-9.*choose among sub-01, sub-02, sub-03, sub-04"):
        write_volumes(root, dataset, ["sub-9"])


def test_the_command_refuses_what_does_not_fit_and_keeps_the_inventory(
    tmp_path: Path, many_results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, dataset = write_synthesised(tmp_path, {"01": "24.00"})

    def ended(*words: object) -> tuple[int, str]:
        with pytest.raises(SystemExit) as stop:
            main(["report", *map(str, words)])
        said = capsys.readouterr()
        return int(stop.value.code or 0), said.out + said.err

    for asked, problem in (
        ((root, "--for-sharing"), "holds volumes alone"),
        ((many_results, "--sources", dataset), "is for a folder of `pdsynth synthesize` only"),
        ((root, "--sources", tmp_path / "nowhere"), "does not exist"),
        ((root, "--participants", "sub-7"), "holds no volumes of sub-7"),
    ):
        status, said = ended(*asked)
        assert status == 2 and problem in said
        assert not (root / "report.html").exists()
    status, said = ended(root, "--sources", dataset)
    assert status == 0 and f"Open {root / 'report.html'}" in said and f"pdsynth doctor --privacy {root}" in said
    assert "report.html" in folders.refuse_foreign(root) and manifest.read(root)["command"] == "synthesize"
