"""Synthesised volumes in a standard space: where they lie, and transforms that ITK, ANTs and nilearn read."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nilearn.image import load_img, resample_img
from scipy import ndimage
from scipy.spatial.transform import Rotation

from fixture_trees import copy_source_model
from pdsynth.cli import main
from pdsynth.cohorts.scans import single_scan
from pdsynth.cohorts.simulated.cohort import simulate
from pdsynth.data.standardise import standardise
from pdsynth.imaging.nifti import SyntheticMark, Volume, read_header, read_volume
from pdsynth.imaging.spatial import Grid, Transform, resample
from pdsynth.imaging.standard import RAS_TO_LPS, standard_grid, write_itk
from pdsynth.imaging.template import tissue_template
from pdsynth.outcomes import read_outcomes
from pdsynth.results.folder import Results
from pdsynth.synthesis import Model, Synthesis
from pdsynth.types import Direction, InputError, Space

MNI = Space.MNI152NLIN6ASYM
GRID = standard_grid(MNI)
TILT = Rotation.from_euler("xyz", [4, -3, 5], degrees=True).as_matrix()  # of the scan; ITK reads no sheared grid
NATIVE = Grid((40, 44, 36), np.block([[TILT * [-5, 5, 5], np.array([[95], [-120], [-80]])], [np.eye(4)[3:]]]))
TURNED = np.array([[0.98, -0.1, 0.05, 4], [0.12, 1.02, -0.07, -9], [-0.03, 0.09, 1.05, 6], [0, 0, 0, 1]], float)


def run(*words: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    return int(stop.value.code or 0)


def sidecar(image: Path) -> dict:
    return json.loads(image.with_name(image.name.replace(".nii.gz", ".json")).read_text())


def blobs() -> tuple[Volume, np.ndarray]:
    """A volume of five balls with soft edges on the native grid, and their centres in mm of the scan."""
    indices = np.array([[12, 14, 12], [26, 14, 20], [20, 30, 14], [14, 26, 25], [28, 30, 26]])
    place = np.stack(np.meshgrid(*[np.arange(n) for n in NATIVE.shape], indexing="ij"), -1)
    data = sum(np.exp(-np.square(place - index).sum(-1) / (2 * 1.5**2)) for index in indices)
    return Volume(data, NATIVE.affine), indices @ NATIVE.affine[:3, :3].T + NATIVE.affine[:3, 3]


def centres(volume: Volume, expected: np.ndarray) -> np.ndarray:
    """The centre of mass, in mm, of the values within 12 mm of each expected centre."""
    place = np.stack(np.meshgrid(*[np.arange(n) for n in volume.data.shape], indexing="ij"), -1)
    mm = place @ volume.affine[:3, :3].T + volume.affine[:3, 3]
    weights = [volume.data * (np.linalg.norm(mm - centre, axis=-1) < 12) for centre in expected]
    return np.array([(weight[..., None] * mm).sum((0, 1, 2)) / weight.sum() for weight in weights])


@pytest.fixture
def synthesis(tmp_path: Path) -> Synthesis:
    volume, _ = blobs()
    mark = SyntheticMark(Direction.FMRI_TO_DMRI, ["sub-1_bold.nii.gz"], "0" * 64, 0, "1")
    source, deviation = tmp_path / "sub-1_bold.nii.gz", Volume(0.1 * volume.data, volume.affine)
    return Synthesis(volume, deviation, mark, mark, source, [volume], transform=Transform({"turn": TURNED}))


def test_images_move_to_the_place_that_the_transform_gives_and_back(synthesis: Synthesis) -> None:
    before, native = blobs()
    there = synthesis.in_space(MNI)
    expected = native @ TURNED[:3, :3].T + TURNED[:3, 3]
    assert np.linalg.norm(centres(there.volume, expected) - expected, axis=1).max() < 0.1  # mm
    back = resample(there.volume, NATIVE, np.linalg.inv(TURNED))
    assert np.linalg.norm(centres(Volume(back, NATIVE.affine), native) - native, axis=1).max() < 0.5 * 5  # half a voxel
    assert np.corrcoef(back.ravel(), before.data.ravel())[0, 1] > 0.99
    np.testing.assert_allclose(there.uncertainty.data, 0.1 * there.volume.data, atol=1e-7)
    np.testing.assert_array_equal(there.samples[0].data, there.volume.data)
    for volume in (there.volume, there.uncertainty, there.samples[0]):
        assert Grid.of(volume) == GRID


def test_the_grid_is_that_of_fsl_and_templateflow() -> None:
    """The corner voxels of MNI152_T1_2mm, whose first axis FSL stores from right to left."""
    fsl = np.array([[-2, 0, 0, 90], [0, 2, 0, -126], [0, 0, 2, -72], [0, 0, 0, 1]])
    np.testing.assert_array_equal(GRID.affine @ [90, 0, 0, 1], fsl @ [0, 0, 0, 1])
    np.testing.assert_array_equal(GRID.affine @ [0, 108, 90, 1], fsl @ [90, 108, 90, 1])
    with pytest.raises(ValueError, match="Name a standard space"):
        standard_grid(Space.NATIVE)


def test_the_file_of_itk_maps_fixed_points_to_moving_ones_in_lps(tmp_path: Path) -> None:
    write_itk(TURNED, tmp_path / "xfm.txt")
    lines = (tmp_path / "xfm.txt").read_text().splitlines()
    assert lines[:3] == ["#Insight Transform File V1.0", "#Transform 0", "Transform: AffineTransform_double_3_3"]
    assert lines[4] == "FixedParameters: 0 0 0"
    numbers = np.array(lines[3].removeprefix("Parameters: ").split(), float)
    moving = np.array([10.0, -20.0, 30.0, 1.0])  # RAS
    fixed = TURNED @ moving
    mapped = numbers[:9].reshape(3, 3) @ (RAS_TO_LPS @ fixed)[:3] + numbers[9:]
    np.testing.assert_allclose(mapped, [-10, 20, 30], atol=1e-10)


def test_ants_moves_the_volume_as_we_do(synthesis: Synthesis, tmp_path: Path) -> None:
    ants = pytest.importorskip("ants")
    native, standard = synthesis.save(tmp_path / "out", "sub-1", "", MNI)[0::3]
    folder = native.parent
    there, back = sorted(folder.glob("*_xfm.txt"), key=lambda path: "_from-MNI" in path.name)
    ours, moved = ants.image_read(str(standard)), ants.image_read(str(native))
    found = ants.apply_transforms(ours, moved, [str(there)], interpolator="linear")
    np.testing.assert_allclose(found.numpy(), read_volume(standard).data, atol=2e-5)
    returned = ants.apply_transforms(moved, ours, [str(back)], interpolator="linear")
    expected = resample(read_volume(standard), NATIVE, np.linalg.inv(TURNED))
    inside = ndimage.binary_erosion(np.ones(NATIVE.shape), iterations=4)  # ours smooths before larger voxels
    assert np.corrcoef(returned.numpy()[inside], expected[inside])[0, 1] > 0.99


def test_nilearn_moves_the_volume_by_the_matrix_in_the_sidecar(synthesis: Synthesis, tmp_path: Path) -> None:
    native, standard = synthesis.save(tmp_path / "out", "sub-1", "", MNI)[0::3]
    image = load_img(native)
    moved = nib.Nifti1Image(image.get_fdata(), np.array(sidecar(standard)["NativeToStandard"]) @ image.affine)
    options = {"interpolation": "linear", "force_resample": True, "copy_header": True}
    found = resample_img(moved, GRID.affine, GRID.shape, **options)
    np.testing.assert_allclose(found.get_fdata(), load_img(standard).get_fdata(), atol=1e-6)


def test_names_and_marks_of_all_files(synthesis: Synthesis, tmp_path: Path) -> None:
    written = synthesis.save(tmp_path, "sub-1", "", MNI)
    kinds = ("synthetic", "syntheticstd", "syntheticdraw001")
    native, standard = "sub-1", "sub-1_space-MNI152NLin6Asym_res-2"
    assert [path.name for path in written] == [
        f"{stem}_desc-{kind}_dwiref.nii.gz" for stem in (native, standard) for kind in kinds
    ]
    transforms = {path.name for path in tmp_path.rglob("*_xfm.txt")}
    ends = ("from-dwiref_to-MNI152NLin6Asym", "from-MNI152NLin6Asym_to-dwiref")
    assert transforms == {f"sub-1_{end}_mode-image_xfm.txt" for end in ends}
    assert all(read_header(path).synthetic for path in written)
    for path in written:
        said = sidecar(path)
        assert said["OutputSpace"] == "MNI152NLin6Asym" and said["SourceModality"] == "fMRI"
        assert said.get("Space") == ("MNI152NLin6Asym" if "_space-" in path.name else None)
    assert [sidecar(path)["AlignedTo"][:9] for path in written[3:]] == ["ICBM 2009"] * 3
    feat = replace(synthesis, transform=Transform({"FLIRT to MNI": TURNED})).in_space(MNI)
    assert feat.mark.sidecar()["AlignedTo"] == "the template image of FSL FEAT"
    alone = synthesis.save(tmp_path / "alone", "sub-1")
    assert "OutputSpace" not in sidecar(alone[0]) and list((tmp_path / "alone").rglob("*space*")) == []
    np.testing.assert_array_equal(read_volume(alone[0]).data, read_volume(written[0]).data)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a SIMULATED person who has no dMRI (bids), and a model that copies its source."""
    folder = tmp_path_factory.mktemp("study")
    simulate(folder / "bids", subjects=1, seed=3, quick=True)
    (dwi,) = (folder / "bids").glob("sub-*/dwi")
    shutil.rmtree(dwi)
    copy_source_model(folder / "model")
    return folder


def test_the_brain_of_a_simulated_head_lies_on_that_of_the_template(study: Path) -> None:
    (scan,) = (study / "bids").rglob("sub-*_bold.nii.gz")
    source = standardise(single_scan(scan), Model.load(study / "model", "cpu").preprocessing)
    brain = Volume(source.native_brain, source.reference.affine)
    moved = resample(brain, GRID, source.transform.matrix) > 0.5
    template = tissue_template(GRID)["brain"] > 0.5
    assert 2 * (moved & template).sum() / (moved.sum() + template.sum()) > 0.9
    apart = ndimage.center_of_mass(moved), ndimage.center_of_mass(template)
    assert np.linalg.norm(np.subtract(*apart)) < 2  # voxels of 2 mm


def test_the_command_writes_both_spaces_and_keeps_to_them(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ("synthesize", study / "model", study / "bids", tmp_path / "out")
    assert run(*command, "--space", "MNI152NLin6Asym") == 0
    assert "2 SYNTHETIC files" in capsys.readouterr().out
    native, standard = sorted((tmp_path / "out").rglob("*_desc-synthetic_dwiref.nii.gz"))
    assert "_space-MNI152NLin6Asym_res-2_" in standard.name and Grid.of(read_volume(standard)) == GRID
    matrix = np.array(sidecar(standard)["NativeToStandard"])
    np.testing.assert_array_equal(read_volume(standard).data, resample(read_volume(native), GRID, matrix))
    assert read_outcomes(tmp_path / "out" / "synthesised.tsv")["file"].tolist() == [
        native.relative_to(tmp_path / "out").as_posix()
    ]
    times = [path.stat().st_mtime_ns for path in (native, standard)]
    assert run(*command, "--space", "MNI152NLin6Asym") == 0  # nothing is made again
    assert [path.stat().st_mtime_ns for path in (native, standard)] == times
    assert run(*command) == 2
    assert "space MNI152NLin6Asym, not native" in capsys.readouterr().err
    next((tmp_path / "out").rglob("*_from-dwiref_*_xfm.txt")).unlink()
    assert run(*command, "--space", "MNI152NLin6Asym") == 0  # a lost transform is written again
    assert len(list((tmp_path / "out").rglob("*_xfm.txt"))) == 2


def test_a_scan_in_another_standard_space_is_refused(study: Path, tmp_path: Path) -> None:
    (scan,) = (study / "bids").rglob("sub-*_bold.nii.gz")
    data = nib.load(scan).get_fdata().mean(-1).astype(np.float32)
    model = Model.load(study / "model", "cpu")
    transform = standardise(single_scan(scan), model.preprocessing).transform.matrix
    moved = nib.Nifti1Image(resample(Volume(data, nib.load(scan).affine), GRID, transform), GRID.affine)
    other, same = (tmp_path / f"sub-1_space-{space}_bold.nii.gz" for space in ("MNI152NLin2009cAsym", MNI))
    for path in (other, same):
        nib.save(moved, path)
    with pytest.raises(InputError, match="is in MNI152NLin2009cAsym already, another template") as error:
        model.synthesize(other).save(tmp_path / "out", space=MNI)
    assert "leave out --space" in error.value.remedy
    written = model.synthesize(same).save(tmp_path / "out", space=MNI)  # it is in this space as it is
    assert [path.name for path in written] == ["sub-1_space-MNI152NLin6Asym_desc-synthetic_dwiref.nii.gz"]
    assert not list((tmp_path / "out").rglob("*_xfm.txt"))
    assert run("synthesize", study / "model", other, tmp_path / "lone", "--space", MNI) == 2
    assert not (tmp_path / "lone").exists()


def test_a_report_shows_each_synthesised_scan_once(study: Path, tmp_path: Path) -> None:
    assert run("synthesize", study / "model", study / "bids", tmp_path / "out", "--space", MNI) == 0
    results = Results(tmp_path, {}, None, {})
    assert [scan.image.name.count("_space-") for scan in results.synthesised] == [0]
