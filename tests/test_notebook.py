"""How objects look in a notebook."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pages import Page
from pdsynth.data.pairs import Pairs
from pdsynth.imaging.nifti import SyntheticMark, Volume
from pdsynth.methods.base import MethodConfig
from pdsynth.methods.controls import PopulationMean
from pdsynth.notebook import html
from pdsynth.synthesis import Model, Synthesis
from pdsynth.types import Direction


def pictures(text: str) -> list[np.ndarray]:
    found = re.findall(r'src="data:image/png;base64,([^"]+)"', text)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(each))).convert("L")) for each in found]


def volume() -> Volume:
    """A volume in LAS order that is bright in the left half of the head."""
    data = np.zeros((10, 12, 8), np.float32)
    data[5:] = 2.0
    return Volume(data, np.diag([-4.0, 4.0, 4.0, 1.0]))


def test_a_volume_shows_three_slices_with_left_on_the_left() -> None:
    text = volume()._repr_html_()
    page, (sagittal, coronal, axial) = Page(text), pictures(text)
    assert page.open == [] and page.wrong == []
    assert "10 x 12 x 8 voxels of 4 x 4 x 4 mm; values 0 to 2, brightest from 2" in text
    assert coronal[:, :10].min() > 240 and coronal[:, -10:].max() < 15
    assert axial[:, :10].min() > 240 and sagittal.shape == (32, 48)


def test_pairs_show_their_numbers_and_the_first_of_them(prepared: Pairs) -> None:
    text = prepared._repr_html_()
    assert "<b>SIMULATED pairs</b>" in text and "6 train, 4 test" in text and "10 both" in text
    assert "SIMULATED sub-00, fMRI" in text and "SIMULATED sub-00, dMRI" in text and len(pictures(text)) == 6
    alone = prepared.where(np.zeros(len(prepared), bool))._repr_html_()
    assert "SIMULATED pairs" in alone and pictures(alone) == []


def test_a_model_shows_what_it_was_trained_on(prepared: Pairs) -> None:
    method = PopulationMean(MethodConfig(prepared.grid.shape))
    card = {"recipe": "population-mean", "simulated": True, "n_participants": 1, "cohort": "<study>"}
    text = Model(method, card | prepared.preprocessing.entries(), "ab" * 32, "cpu")._repr_html_()
    assert "1 SIMULATED participant of &lt;study&gt;" in text and "abababababab" in text and "not calibrated" in text


def test_a_synthesis_is_marked() -> None:
    mark = SyntheticMark(Direction.FMRI_TO_DMRI, ["sub-01_bold.nii.gz"], "ab", 0, "0.1")
    made = Synthesis(volume(), volume(), mark, mark, Path("/secret/sub-01_bold.nii.gz"), round_trip_db=24.25)
    text = made._repr_html_()
    assert "SYNTHETIC dMRI from sub-01_bold.nii.gz" in text and "SYNTHETIC: its SD" in text
    assert "24.2 dB" in text and "secret" not in text and len(pictures(text)) == 6


def test_another_object_has_no_picture() -> None:
    with pytest.raises(TypeError, match="a dict has no picture"):
        html({})
