"""`--samples K`: the K draws as files, marked, beside the calibrated SD; never ignored in silence."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch

from pdsynth.cli import main
from pdsynth.cohorts.scans import single_scan
from pdsynth.data.preprocessing import Preprocessing
from pdsynth.data.standardise import standardise
from pdsynth.imaging.nifti import Volume, read_header
from pdsynth.imaging.spatial import Grid, mni_grid, resample
from pdsynth.imaging.template import epi_template
from pdsynth.methods import checkpoint, create
from pdsynth.methods.base import Method, registry
from pdsynth.missing import synthesise_path
from pdsynth.outcomes import TABLE
from pdsynth.synthesis import Model
from pdsynth.types import InputError

STANDARD = Preprocessing(grid=mni_grid(8))
NATIVE = Grid((30, 34, 28), np.array([[-6, 0, 0, 88], [0, 6, 0, -118], [0, 0, 6, -70], [0, 0, 0, 1]], float))
NAMES = [f"sub-01_desc-{what}_dwiref" for what in ("synthetic", *(f"syntheticdraw00{k}" for k in (1, 2, 3)))]


class Noisy(Method):
    """Copies the source; a draw adds white noise of SD 0.05; states an SD of 0.1."""

    name, generative = "noisy", True

    def predict(self, batch, direction):
        return batch.sources[direction].volume

    def predict_with_sd(self, batch, direction):
        mean = self.predict(batch, direction)
        return mean, torch.full_like(mean, 0.1)

    def draw(self, batch, direction, generator, steps):
        mean = self.predict(batch, direction)
        return mean + 0.05 * torch.randn(mean.shape, generator=generator)


class Unsure(Noisy):
    """The same, but it states no SD."""

    name = "unsure"

    def predict_with_sd(self, batch, direction):
        return self.predict(batch, direction), None


@pytest.fixture(autouse=True)
def methods(monkeypatch) -> None:
    for method in (Noisy, Unsure):
        monkeypatch.setitem(registry(), method.name, method)


@pytest.fixture
def saved(tmp_path):
    """A model of a method by name, whose SD is doubled by calibration in the direction of these tests."""

    def save(name: str) -> Path:
        method = create(name, {"grid_shape": list(STANDARD.grid.shape)})
        method.sd_scale[:] = torch.tensor([2.0, 3.0])
        told = {"n_participants": 20, "simulated": True, "cohort": "x", "coverage_90": {}}
        told["coverage_90"] = {"fmri_to_dmri": 0.9, "dmri_to_fmri": 0.9}
        return checkpoint.save(method, tmp_path / name, STANDARD.entries() | {"calibration": told})

    return save


@pytest.fixture(scope="module")
def scan(tmp_path_factory) -> Path:
    """One participant without dMRI, whose fMRI is the template's contrast."""
    path = tmp_path_factory.mktemp("bids") / "sub-01" / "func" / "sub-01_task-rest_bold.nii.gz"
    path.parent.mkdir(parents=True)
    data = resample(epi_template(mni_grid(4)), NATIVE)
    image = nib.Nifti1Image((np.stack([data] * 4, -1) * 100).astype(np.float32), NATIVE.affine)
    image.header.set_zooms((6, 6, 6, 2.0))
    nib.save(image, path)
    return path


def said(path: Path) -> dict:
    return json.loads(path.with_name(path.name.replace(".nii.gz", ".json")).read_text())


def run(*words: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    return int(stop.value.code or 0)


def test_draws_are_volumes_of_their_own_and_the_sd_stays_the_calibrated_one(saved, scan):
    model = Model.load(saved("noisy"), "cpu")
    none, one, three = (model.synthesize(scan, samples=k, seed=4) for k in (0, 1, 3))
    assert [len(s.samples) for s in (none, one, three)] == [0, 1, 3]
    inside = none.volume.data > 0.3
    source = standardise(single_scan(scan), STANDARD)
    field = Volume(source.scales[0].field, STANDARD.grid.affine)  # it is put back
    stated = 0.2 * resample(field, NATIVE, source.transform.inverse().matrix)[inside]  # .1 as stated, times 2
    for synthesis in (none, one, three):
        np.testing.assert_array_equal(synthesis.volume.data, none.volume.data)
        np.testing.assert_allclose(synthesis.uncertainty.data[inside], stated, rtol=1e-5)
        assert synthesis.uncertainty_mark.statistic["Statistic"] == "standard deviation"
        assert synthesis.uncertainty_mark.statistic["Calibration"].startswith("on 20 SIMULATED participants of x")
    np.testing.assert_array_equal(one.samples[0].data, three.samples[0].data)  # a draw does not depend on how many
    noise = np.stack([draw.data - none.volume.data for draw in three.samples])
    for k in range(3):
        assert 0.01 < noise[k][inside].std() < 0.05 and abs(noise[k][inside].mean()) < 0.005
        assert abs(np.corrcoef(noise[k][inside], noise[(k + 1) % 3][inside])[0, 1]) < 0.1
        np.testing.assert_array_equal(three.samples[k].affine, NATIVE.affine)


def test_a_method_that_states_no_sd_has_that_of_its_draws(saved, scan):
    model = Model.load(saved("unsure"), "cpu")
    assert model.synthesize(scan, samples=1).uncertainty is None
    several = model.synthesize(scan, samples=8)
    inside = several.volume.data > 0.3
    assert 0.02 < np.median(several.uncertainty.data[inside]) < 0.05
    assert several.uncertainty_mark.statistic == {"Statistic": "standard deviation of 8 draws", "Calibration": "none"}


def test_each_draw_is_a_marked_file_and_the_same_command_goes_on(saved, scan, tmp_path, capsys):
    out, root = tmp_path / "out", scan.parents[2]
    words = ("synthesize", saved("noisy"), root, out, "--device", "cpu", "--jobs", 1, "--samples")
    assert run(*words, 3) == 0
    folder = out / "sub-01" / "dwi"
    files = {p.name for p in folder.glob("*.nii.gz")}
    assert files == {f"{name}.nii.gz" for name in (*NAMES, "sub-01_desc-syntheticstd_dwiref")}
    assert {p.name for p in folder.glob("*.json")} == {name.replace(".nii.gz", ".json") for name in files}
    for number, name in enumerate(NAMES):
        path = folder / f"{name}.nii.gz"
        assert read_header(path).synthetic and said(path)["Synthetic"] is True and said(path)["Samples"] == 3
        assert said(path)["Statistic"] == (f"draw {number} of 3" if number else "best estimate")
    rows = pd.read_csv(out / TABLE, sep="\t")
    assert rows["draws"].tolist() == [3] and rows["status"].tolist() == ["made"]
    assert rows["round_trip_db"].tolist() == [said(folder / f"{NAMES[0]}.nii.gz")["RoundTripPSNR"]]
    listed = json.loads((out / "manifest.json").read_text())["files"]
    assert {f"sub-01/dwi/{name}" for name in files} <= listed.keys()

    lost = folder / f"{NAMES[2]}.nii.gz"
    content, kept = lost.read_bytes(), {p.name: p.read_bytes() for p in folder.glob("*.nii.gz")}
    assert run(*words, 3) == 0
    lost.unlink()
    assert run(*words, 3) == 0  # what is missing is made again, with the same bytes
    assert lost.read_bytes() == content and {p.name: p.read_bytes() for p in folder.glob("*.nii.gz")} == kept
    assert run(*words, 2) == 2
    assert "made with samples 3, not 2" in " ".join(capsys.readouterr().err.split())


def test_fewer_draws_leave_none_of_an_earlier_run(saved, scan, tmp_path):
    model = Model.load(saved("noisy"), "cpu")
    model.synthesize(scan, samples=3).save(tmp_path / "out")
    strange = tmp_path / "out" / "sub-01" / "dwi" / "sub-01_desc-syntheticdraw003_note.txt"
    strange.write_text("mine")
    written = model.synthesize(scan, samples=1).save(tmp_path / "out")
    assert [path.name for path in written] == [
        f"{name}.nii.gz" for name in (NAMES[0], "sub-01_desc-syntheticstd_dwiref", NAMES[1])
    ]
    assert {p for p in strange.parent.iterdir() if p.suffix == ".gz"} == set(written)
    assert len(list(strange.parent.glob("*.json"))) == 3 and strange.exists()


def test_where_nothing_can_be_drawn_samples_are_an_error(saved, scan, tmp_path, capsys):
    model, out = saved("copy-source"), tmp_path / "out"
    assert run("synthesize", model, scan.parents[2], out, "--device", "cpu", "--samples", 1) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert "is a copy-source model, which gives no draws" in error and "leave out --samples" in error
    assert not out.exists() and not (tmp_path / "out.partial").exists()
    with pytest.raises(InputError, match="gives no draws"):
        synthesise_path(model, scan, out, samples=4, device="cpu")
    with pytest.raises(ValueError, match=r"copy-source gives no draws.*Leave out samples"):
        Model.load(model, "cpu").synthesize(scan, samples=1)


def test_volumes_of_another_preprocessing_are_not_gone_on_with(saved, scan, tmp_path, capsys):
    """The weights of both models are the same: only what their cards say of the preprocessing differs."""
    words = ("synthesize", saved("copy-source"), scan.parents[2], tmp_path / "out", "--device", "cpu", "--jobs", 1)
    assert run(*words) == 0
    config = tmp_path / "copy-source" / "config.json"
    config.write_text(config.read_text().replace('"margin_mm": 8.0', '"margin_mm": 4.0'))
    assert run(*words) == 2
    assert "volumes that were made with another preprocessing" in " ".join(capsys.readouterr().err.split())
