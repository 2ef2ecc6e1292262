"""A results folder with malicious names for the tests of the report, and a parser of its page."""

from __future__ import annotations

import base64
import io
import json
from html.parser import HTMLParser

import pandas as pd
import torch
from PIL import Image

from fixture_trees import write_volume
from pdsynth.evaluation.evaluate import evaluate
from pdsynth.imaging.nifti import SyntheticMark, Volume, write_synthetic
from pdsynth.methods.base import Method, MethodConfig
from pdsynth.methods.controls import CopySource, PopulationMean
from pdsynth.types import Direction

EVIL = "sub-<script>alert('1')</script>"
EVIL_METHOD = 'mine <img src="x" onerror="alert(2)">'
VOID = {"meta", "link", "img", "br", "line", "circle", "input"}


class Stating(Method):
    name = "stating"

    def predict(self, batch, direction):
        return 1 - batch.sources[direction].volume

    def estimate(self, batch, direction):
        source = batch.sources[direction].volume
        return self.predict(batch, direction), 0.02 + 0.1 * source


class Page(HTMLParser):
    """Tags that were left open or closed twice, addresses that would be loaded, and the images."""

    def __init__(self, text):
        super().__init__()
        self.open, self.wrong, self.addresses, self.scripts, self.handlers = [], [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.addresses += [found[key] for key in ("src", "href", "srcset", "data", "action") if key in found]
        self.handlers += [key for key in found if key.startswith("on")]
        self.scripts += [found.get("type", "")] * (tag == "script")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        pass

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


def pixels(address):
    return Image.open(io.BytesIO(base64.b64decode(address.removeprefix("data:image/png;base64,"))))


def write_results(prepared, out):
    """Write results of three methods on the test split, with a malicious id, a synthesised missing scan, a refusal."""
    average = PopulationMean(MethodConfig(prepared.grid.shape))
    average.fit(prepared.split("train"), torch.Generator())
    config = MethodConfig(prepared.grid.shape)
    pairs = prepared.split("test")
    pairs.table.loc[0, "participant_id"] = EVIL
    methods = {EVIL_METHOD: Stating(config), "population-mean": average, "copy-source": CopySource(config)}
    evaluate(methods, pairs, out)

    volume = Volume(pairs.volume(Direction.FMRI_TO_DMRI.source, 0), prepared.grid.affine)
    source = out / "bids" / "sub-09" / "func" / "sub-09_task-rest_bold.nii.gz"
    folder = out / "synthesised" / "sub-09" / "dwi"
    for path in (source.parent, folder):
        path.mkdir(parents=True)
    write_volume(volume, source)
    mark = SyntheticMark(Direction.FMRI_TO_DMRI, [source.name], "0" * 64, 0, "1.0")
    for kind in ("synthetic", "syntheticstd"):
        write_synthetic(volume, folder / f"sub-09_task-rest_desc-{kind}_dwiref.nii.gz", mark)
    refused = {"path": ["sub-08/<b>.nii.gz"], "reason": ["is cut short"], "remedy": ["copy it again"]}
    pd.DataFrame(refused).to_csv(out / "rejected.tsv", sep="\t", index=False)
    manifest = {"version": "1.0", "command": "demo", "seed": 7, "notes": ["The shipped model was trained elsewhere."]}
    (out / "manifest.json").write_text(json.dumps(manifest))
    return out
