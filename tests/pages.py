"""A results folder with malicious names for the tests of the report, and a parser of its page."""

from __future__ import annotations

import base64
import io
import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

from fixture_trees import write_volume
from pdsynth import folders, manifest
from pdsynth.evaluation.evaluate import evaluate
from pdsynth.imaging.nifti import SyntheticMark, Volume, write_synthetic
from pdsynth.methods.base import Method, MethodConfig
from pdsynth.methods.controls import CopySource, PopulationMean
from pdsynth.outcomes import COLUMNS, TABLE, write_outcomes
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


def write_synthesised(folder, round_trips, model="0" * 64):
    """A folder of `synthesize` with a dMRI of each of some people, and the dataset of their fMRI: both paths.

    round_trips: their values in dB by person, as text; a person without one has a doubtful source scan. model: the
    digest of the weights.
    """
    out, dataset = folder / "synthesised", folder / "dataset"
    signal = np.pad(np.linspace(0.1, 0.9, 512, dtype=np.float32).reshape(8, 8, 8), 2)
    volume = Volume(signal, np.diag([8.0, 8, 8, 1]))
    rows = []
    with folders.making(out) as work, manifest.recorded(work.folder, "synthesize"):
        for person, round_trip in round_trips.items():
            source = f"sub-{person}/func/sub-{person}_task-rest_bold.nii.gz"
            image = work.folder / f"sub-{person}/dwi/sub-{person}_desc-synthetic_dwiref.nii.gz"
            for path in (dataset / source, image):
                path.parent.mkdir(parents=True)
            write_volume(volume, dataset / source)
            write_synthetic(volume, image, SyntheticMark(Direction.FMRI_TO_DMRI, [Path(source).name], model, 0, "1.0"))
            sidecar = image.with_name(image.name.replace(".nii.gz", ".json"))
            measured = {"RoundTripPSNR": float(round_trip)} if round_trip else {}
            sidecar.write_text(json.dumps(json.loads(sidecar.read_text()) | measured))
            about = {"participant_id": f"sub-{person}", "session_id": "", "source": source, "target": "dmri"}
            about |= {"status": "made", "file": image.relative_to(work.folder).as_posix()}
            rows.append(about | {"round_trip_db": round_trip, "reason": "" if round_trip else "b = 2500 <i>"})
        write_outcomes(work.folder / TABLE, [dict.fromkeys(COLUMNS, "") | row for row in rows])
        (work.folder / "dataset_description.json").write_text('{"Simulated": true}')
    return out, dataset
