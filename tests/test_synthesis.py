"""From a scan on disk to a marked volume in the scan's own space."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from scipy import ndimage

from fixture_trees import copy_source_model, write_volume
from pdsynth.cohorts.scans import single_scan
from pdsynth.data.preprocessing import Preprocessing
from pdsynth.data.standardise import standardise
from pdsynth.imaging.nifti import Volume, read_header, read_volume
from pdsynth.imaging.spatial import Grid, mni_grid, resample
from pdsynth.imaging.template import epi_template
from pdsynth.methods import checkpoint, create
from pdsynth.missing import synthesise_path
from pdsynth.synthesis import Model
from pdsynth.types import Direction, InputError, Modality
from pdsynth.weights import weights_sha256

GRID = mni_grid(8)
NATIVE = Grid((30, 34, 28), np.array([[-6, 0, 0, 88], [0, 6, 0, -118], [0, 0, 6, -70], [0, 0, 0, 1]], float))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Copies the source, so that what comes back in native space can be told from the scan itself."""
    return copy_source_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """One participant without dMRI, whose fMRI is the template's contrast on a left-handed 6 mm grid."""
    root = tmp_path_factory.mktemp("bids")
    (root / "dataset_description.json").write_text(json.dumps({"Name": "x", "BIDSVersion": "1.9.0"}))
    folder = root / "sub-01" / "func"
    folder.mkdir(parents=True)
    data = resample(epi_template(mni_grid(4)), NATIVE)
    steps = np.stack([data * (1 + 0.01 * k) for k in range(6)], -1).astype(np.float32)
    image = nib.Nifti1Image(steps * 100, NATIVE.affine)
    image.header.set_zooms((6, 6, 6, 2.0))
    nib.save(image, folder / "sub-01_task-rest_bold.nii.gz")
    return root


def scan_of(dataset):
    return dataset / "sub-01" / "func" / "sub-01_task-rest_bold.nii.gz"


def test_volume_lies_on_the_scan_with_its_contrast(model, dataset):
    synthesis = Model.load(model, "cpu").synthesize(scan_of(dataset), to="dmri")
    np.testing.assert_array_equal(synthesis.volume.affine, NATIVE.affine)
    assert synthesis.volume.data.shape == NATIVE.shape
    assert synthesis.uncertainty is None
    scan = np.asarray(nib.load(scan_of(dataset)).dataobj).mean(-1)
    inside = synthesis.volume.data > 0.1
    assert inside.mean() > 0.15
    assert np.corrcoef(synthesis.volume.data[inside], scan[inside])[0, 1] > 0.5


def stub_model(folder, **settings):
    """A saved model that copies its source, of some preprocessing."""
    method = create("copy-source", {"grid_shape": list(GRID.shape)})
    return Model.load(checkpoint.save(method, folder, Preprocessing(grid=GRID, **settings).entries()), "cpu")


def test_the_receive_field_of_the_source_is_put_back(dataset, tmp_path):
    """A model that returns its source gives back the scan itself, in units of 2.5 times its median, and its field."""
    image = nib.load(scan_of(dataset))
    coil = np.exp(np.linspace(-0.5, 0.5, NATIVE.shape[0]))[:, None, None, None]
    path = tmp_path / "sub-01_task-rest_bold.nii.gz"
    nib.save(nib.Nifti1Image((image.get_fdata() * coil).astype(np.float32), image.affine, image.header), path)
    scan = nib.load(path).get_fdata().mean(-1)
    fields, errors, medians = {}, {}, {}
    for intensity in ("flat-median", "percentile"):
        model = stub_model(tmp_path / intensity, intensity=intensity)
        found = model.synthesize(path, to="dmri", samples=0)
        source = standardise(single_scan(path), model.preprocessing)
        brain = source.native_brain
        grid_and_back = resample(
            Volume(resample(source.reference, GRID, source.transform.matrix), GRID.affine),
            NATIVE,
            source.transform.inverse().matrix,
        )
        inside = ndimage.binary_erosion(brain, iterations=3)  # where nothing is cut off by the region's edge
        values = found.volume.data[inside] * source.scales[0].unit / grid_and_back[inside]
        errors[intensity] = np.abs(values - 1).mean()
        medians[intensity] = np.median(found.volume.data[brain])
        fields[intensity] = found.mark.sidecar().get("ReceiveField")
        assert np.isfinite(found.volume.data).all()
        assert np.corrcoef(found.volume.data[brain], scan[brain])[0, 1] > 0.9
    assert errors["flat-median"] < 0.01 and errors["percentile"] < 0.01
    assert medians["flat-median"] == pytest.approx(0.4, abs=0.02)
    assert fields == {"flat-median": "of the source", "percentile": None}


def test_detail_that_the_grid_cannot_hold_comes_from_the_source(dataset, tmp_path):
    """A model that returns its source on an 8 mm grid, and a scan with stripes of 12 mm, which that grid blurs."""
    image = nib.load(scan_of(dataset))
    stripes = 1 + 0.4 * (-1.0) ** np.arange(NATIVE.shape[1])[None, :, None, None]
    path = tmp_path / "sub-01_task-rest_bold.nii.gz"
    nib.save(nib.Nifti1Image((image.get_fdata() * stripes).astype(np.float32), image.affine, image.header), path)
    scan = nib.load(path).get_fdata().mean(-1)
    correlation = {}
    for intensity in ("flat-median", "percentile"):
        model = stub_model(tmp_path / intensity, intensity=intensity)
        found = model.synthesize(path, to="dmri")
        inside = ndimage.binary_erosion(standardise(single_scan(path), model.preprocessing).native_brain, iterations=3)
        correlation[intensity] = np.corrcoef(found.volume.data[inside], scan[inside])[0, 1]
        assert "Detail" not in found.uncertainty_mark.sidecar()
        assert found.mark.sidecar().get("Detail") == {"flat-median": "of the source", "percentile": None}[intensity]
    assert correlation["flat-median"] > correlation["percentile"] + 0.15, correlation


def test_estimate_sd_and_draws_get_the_same_field(dataset, tmp_path):
    model = stub_model(tmp_path / "model")
    ones = torch.ones((1, 1, *GRID.shape))
    model.method.generative = True
    model.method.estimate = lambda batch, direction: (ones, 0.1 * ones)
    model.method.sample = lambda batch, direction, generator, steps: 0.5 * ones
    found = model.synthesize(scan_of(dataset), to="dmri", samples=1)
    source = standardise(single_scan(scan_of(dataset)), model.preprocessing)
    field = source.scales[0].field
    assert field[source.brain].std() > 0.01
    expected = resample(Volume(field, GRID.affine), NATIVE, source.transform.inverse().matrix)
    np.testing.assert_allclose(found.volume.data, expected, rtol=1e-6)
    np.testing.assert_allclose(found.uncertainty.data, 0.1 * expected, rtol=1e-5)
    np.testing.assert_allclose(found.samples[0].data, 0.5 * expected, rtol=1e-6)


def test_an_sd_of_an_earlier_synthesis_does_not_stay(dataset, tmp_path):
    model, ones = stub_model(tmp_path / "model"), torch.ones((1, 1, *GRID.shape))
    names = []
    for sd in (0.1 * ones, None):
        model.method.estimate = lambda batch, direction, sd=sd: (ones, sd)
        model.synthesize(scan_of(dataset), to="dmri").save(tmp_path / "out")
        names.append({path.name for path in (tmp_path / "out").rglob("*.*")})
    assert len(names[0]) == 4 and len(names[1]) == 2
    assert {name for name in names[0] if "syntheticstd" in name} == names[0] - names[1]


def test_the_round_trip_compares_the_source_with_what_comes_back(dataset, tmp_path):
    """A copy comes back whole. An output of 0.5 everywhere comes back as itself, in all of the source's brain."""
    model = stub_model(tmp_path / "model")
    assert model.synthesize(scan_of(dataset), to="dmri").round_trip_db == 100
    half = torch.full((1, 1, *GRID.shape), 0.5)
    asked = []
    model.method.estimate = lambda batch, direction: (asked.append(direction) or half, None)
    found = model.synthesize(scan_of(dataset), to="dmri")
    source = standardise(single_scan(scan_of(dataset)), model.preprocessing)
    expected = -10 * np.log10(np.square(source.volume[source.brain] - 0.5).mean())
    assert found.round_trip_db == pytest.approx(expected, abs=1e-4) and 5 < expected < 40
    assert found.mark.sidecar()["RoundTripPSNR"] == round(expected, 2)
    assert asked == [Direction.FMRI_TO_DMRI, Direction.DMRI_TO_FMRI]


def test_a_method_that_ignores_its_source_has_no_round_trip(dataset, tmp_path):
    model = stub_model(tmp_path / "model")
    type(model.method).blind, before = True, type(model.method).blind
    try:
        found = model.synthesize(scan_of(dataset), to="dmri")
    finally:
        type(model.method).blind = before
    assert found.round_trip_db is None and "RoundTripPSNR" not in found.mark.sidecar()


def test_dataset_is_completed_and_every_file_marked(model, dataset, tmp_path):
    written, refused = synthesise_path(model, dataset, tmp_path, device="cpu")
    assert refused == []
    (path,) = written
    assert path == tmp_path / "sub-01" / "dwi" / "sub-01_desc-synthetic_dwiref.nii.gz"
    assert read_header(path).synthetic
    header = nib.load(path).header
    assert header["descrip"].item().decode().startswith("SYNTHETIC pdsynth v")
    assert header["descrip"].item().decode().endswith("fMRI->dMRI NOT ACQUIRED")
    assert header["intent_name"].item() == b"SYNTHETIC"
    sidecar = json.loads(path.with_name(path.name.replace(".nii.gz", ".json")).read_text())
    assert sidecar["Synthetic"] is True
    page = (Path(__file__).parents[1] / "docs" / "reference" / "files.md").read_text()
    assert sidecar["Samples"] == 0 and [name for name in sidecar if f"`{name}`" not in page] == []
    assert sidecar["Sources"] == ["sub-01_task-rest_bold.nii.gz"]
    assert sidecar["ModelSHA256"] == weights_sha256(model)
    assert json.loads((tmp_path / "dataset_description.json").read_text())["Synthetic"] is True


def test_what_comes_from_simulated_scans_says_so(model, dataset, tmp_path):
    copy = shutil.copytree(dataset, tmp_path / "study")
    for told, name in ((False, "SYNTHETIC"), (True, "From SIMULATED scans: SYNTHETIC")):
        entries = {"Name": "x", "BIDSVersion": "1.9.0"} | ({"Simulated": True} if told else {})
        (copy / "dataset_description.json").write_text(json.dumps(entries))
        synthesise_path(model, copy, tmp_path / name, device="cpu")
        described = json.loads((tmp_path / name / "dataset_description.json").read_text())
        assert described["Name"].startswith(name)
        assert described.get("Simulated", False) == told


def test_same_seed_gives_the_same_bytes(model, dataset, tmp_path):
    first, second = (synthesise_path(model, dataset, tmp_path / str(i), device="cpu", seed=3)[0][0] for i in range(2))
    assert first.read_bytes() == second.read_bytes()


def test_three_dimensional_mean_needs_no_gradients(model, dataset, tmp_path):
    mean = tmp_path / "mean_dwi.nii.gz"
    data = np.asarray(nib.load(scan_of(dataset)).dataobj).mean(-1)
    write_volume(Volume(data.astype(np.float32), NATIVE.affine), mean)
    written, _ = synthesise_path(model, mean, tmp_path / "out", to=Modality.FMRI, device="cpu")
    assert written[0].name == "sub-mean_task-rest_desc-synthetic_boldref.nii.gz"
    assert read_volume(written[0]).data.shape == NATIVE.shape


def test_complete_dataset_and_bad_scan_are_refused_by_name(model, dataset, tmp_path):
    with pytest.raises(InputError, match="no session has one scan and lacks the other"):
        synthesise_path(model, dataset, tmp_path / "out", to=Modality.FMRI, device="cpu")
    bad = tmp_path / "sub-01_bold.nii.gz"
    bad.write_bytes(scan_of(dataset).read_bytes()[:2000])
    with pytest.raises(InputError, match=r"sub-01_bold\.nii\.gz"):
        synthesise_path(model, bad, tmp_path / "out", device="cpu")
    assert not (tmp_path / "out").exists()


def test_malicious_pickle_is_not_opened(tmp_path, dataset):
    folder = checkpoint.save(create("zeros", {}), tmp_path / "model", {})
    canary = tmp_path / "canary"

    class Bomb:
        def __reduce__(self):
            return (canary.touch, ())

    torch.save(Bomb(), folder / "model.safetensors")
    with pytest.raises(InputError, match="not a safetensors file"):
        Model.load(folder)
    assert not canary.exists()


def test_missing_config_is_named(tmp_path):
    with pytest.raises(InputError, match=r"model\.safetensors: is missing"):
        Model.load(tmp_path)


@pytest.fixture
def two_scans(dataset, tmp_path):
    """The dataset with a second participant of the same scan."""
    root = tmp_path / "bids"
    shutil.copytree(dataset, root)
    shutil.copytree(root / "sub-01" / "func", root / "sub-02" / "func")
    scan = root / "sub-02" / "func" / "sub-01_task-rest_bold.nii.gz"
    scan.rename(scan.with_name("sub-02_task-rest_bold.nii.gz"))
    return root


def test_one_odd_scan_does_not_stop_the_rest(model, two_scans, tmp_path, monkeypatch):
    whole = Model.synthesize

    def odd(self, scan, **options):
        if "sub-01" in scan.path.name:
            raise IndexError("list index out of range")
        return whole(self, scan, **options)

    monkeypatch.setattr(Model, "synthesize", odd)
    written, refused = synthesise_path(model, two_scans, tmp_path / "out", device="cpu")
    assert [path.name for path in written] == ["sub-02_desc-synthetic_dwiref.nii.gz"]
    assert [(r.path.name, r.reason) for r in refused] == [
        ("sub-01_task-rest_bold.nii.gz", "list index out of range (IndexError)")
    ]
    with pytest.raises(IndexError):  # of a single scan the error itself is told
        synthesise_path(model, scan_of(two_scans), tmp_path / "out", device="cpu")


def test_a_folder_whose_every_scan_is_refused_is_an_error(model, two_scans, tmp_path):
    for path in two_scans.rglob("*_bold.nii.gz"):
        nib.save(nib.Nifti1Image(np.zeros((24, 24, 20, 5), np.float32), np.diag([8.0, 8.0, 8.0, 1.0])), path)
    with pytest.raises(InputError) as error:
        synthesise_path(model, two_scans, tmp_path / "out", device="cpu")
    assert error.value.path == two_scans
    assert "holds no scan that can be used; the first refusal:" in error.value.problem
    assert "sub-01_task-rest_bold.nii.gz" in error.value.problem
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")
def test_a_device_that_is_not_here_is_an_error(model):
    with pytest.raises(ValueError, match="no CUDA device"):
        Model.load(model, "cuda")


def test_scans_of_one_name_are_told_apart_by_whose_they_are(model, dataset, tmp_path):
    for person in ("P1", "P2"):
        place = tmp_path / "hospital" / person / "v1"
        place.mkdir(parents=True)
        shutil.copy(scan_of(dataset), place / "rest.nii.gz")
    (tmp_path / "hospital" / "pdsynth.yaml").write_text('fmri: "{participant}/{session}/rest.nii.gz"\n')
    written, refused = synthesise_path(model, tmp_path / "hospital", tmp_path / "out", device="cpu")
    assert refused == []
    assert [path.relative_to(tmp_path / "out").as_posix() for path in written] == [
        f"sub-{person}/ses-v1/dwi/sub-{person}_ses-v1_desc-synthetic_dwiref.nii.gz" for person in ("P1", "P2")
    ]
