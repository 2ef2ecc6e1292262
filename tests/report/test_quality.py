"""The quality page shows every flag and refusal, names sites, and escapes what it was handed."""

from __future__ import annotations

import base64
import io
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pdsynth.data.quality import quality_table
from pdsynth.report.charts import curves, strips
from pdsynth.report.pictures import EDGE, View
from pdsynth.report.quality import write_quality
from pdsynth.types import InputError

EVIL = "sub-<script>alert('1')</script>_bold.nii.gz"


@pytest.fixture
def folder(prepared, tmp_path) -> Path:
    """Ten pairs; the dMRI of the fourth lies badly, and three files were refused."""
    root = Path(shutil.copytree(prepared.root, tmp_path / "prepared"))
    rows = []
    for i, person in enumerate(prepared.table.to_dict("records")):
        for modality in ("fmri", "dmri"):
            row = {key: person[key] for key in ("participant_id", "session_id", "site")}
            overlap = 0.65 if (i, modality) == (3, "dmri") else 0.9 + 0.004 * i
            measured = {"coverage": 1.0, "overlap": overlap, "mutual_information": 1.05 + 0.001 * i}
            rows.append(
                row | measured | {"modality": modality, "path": f"{person['participant_id']}/{modality}.nii.gz"}
            )
    quality_table(rows).to_csv(root / "quality.tsv", sep="\t", index=False)
    refused = [
        (EVIL, "is a slab of 30 mm", "x"),
        ("b", "is a slab of 42 mm", "x"),
        ("c", "holds the same image as d", "y"),
        (
            "participants.tsv",
            "has rows of participants that are not on disk: 's9' (line 7)",
            "nothing is needed if ...",
        ),
    ]
    pd.DataFrame(refused, columns=["path", "reason", "remedy"]).to_csv(root / "rejected.tsv", sep="\t", index=False)
    return root


def test_what_stands_out_and_what_was_refused_are_on_the_page(folder):
    text = write_quality(folder).read_text()
    words = " ".join(re.sub(r"<(style|svg).*?</\1>|<[^>]*>", " ", text, flags=re.S).split())
    assert "SIMULATED" in words and "10 participants, 10 sessions: 10 with both scans" in words
    assert "Refused: 3 files. Flagged: 1 of 20 scans." in words
    assert "Not refused: 1 note that may need nothing participants.tsv has rows of participants" in words
    assert "sub-03/dmri.nii.gz overlap 0.650 where others of its modality have 0.918" in words
    assert "is a slab of # mm 2 holds the same image as another 1" in words
    assert "Split of all participants, with one scan or both: 6 train, 0 val, 4 test." in words
    assert "<script>alert" not in text and text.count("<script") == 1 and "&lt;script&gt;" in text
    figures = re.findall(r"<figure class=\"flagged\">.*?</figure>", text, flags=re.S)
    assert len(figures) == 1 and figures[0].count("<img") == 3 and "sub-03" in figures[0]
    assert len(re.findall(r'<img src="data:image/png', text)) == 3 * 20
    assert not re.findall(r'(src|href)="(?!data:|#)', text)
    assert text.count("<polyline") == 4 and ">a</title>" in text  # two sites, two modalities
    assert text.count('class="strips"') == 4  # overlap and mutual information; nothing is known of motion


def test_a_folder_without_measures_is_refused(folder):
    (folder / "quality.tsv").unlink()
    with pytest.raises(InputError, match=r"quality\.tsv: is missing.*pdsynth prepare"):
        write_quality(folder)


def test_an_outline_is_the_edge_of_its_mask():
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    mask = np.zeros((20, 20, 20), bool)
    mask[5:15, 5:15, 5:15] = True
    view = View.around(np.ones_like(mask), affine, None)
    address = view.outlined(np.full(mask.shape, 0.5), mask, 2)
    image = np.asarray(Image.open(io.BytesIO(base64.b64decode(address.split(",")[1]))).convert("RGB")).astype(int)
    edge = np.abs(image - EDGE).max(-1) < 30
    assert image.shape == (80, 80, 3)
    assert edge[40, 20] and edge[20, 40] and edge[59, 40]  # voxels 5 to 14 are pixels 20 to 59
    assert not edge[40, 24:56].any() and not edge[:16].any() and not edge[:, 64:].any()
    assert np.abs(image[40, 40] - 127).max() < 8


def test_charts_place_their_values():
    chart = curves({"x": np.array([0.0, 1.0, 0.5])}, 0, 1, "signal")
    points = np.array([p.split(",") for p in re.search(r'points="([^"]*)"', chart)[1].split()], float)
    assert np.allclose(np.diff(points[:, 0]), points[1, 0] - points[0, 0])
    floor, top = points[0, 1], points[1, 1]
    assert points[2, 1] == pytest.approx((floor + top) / 2) and top < floor
    marks = strips({"a<b": np.array([1.0, np.nan, 3.0, 2.0]), "none": np.array([np.nan])}, "mm")
    at = [float(x) for x in re.findall(r'<line x1="([\d.]+)"', marks)]
    median = float(re.search(r'class="median" x1="([\d.]+)"', marks)[1])
    assert len(at) == 3 and median == pytest.approx(np.mean(at[:2])) and "a&lt;b" in marks
    assert strips({"none": np.array([np.nan])}, "mm") == ""
