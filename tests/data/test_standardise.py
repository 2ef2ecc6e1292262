"""One scan on the standard grid: against known transforms, closed forms, and damaged input."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from pdsynth.cohorts.cohort import Scan
from pdsynth.cohorts.scans import single_scan
from pdsynth.data.means import scan_means
from pdsynth.data.preprocessing import Preprocessing
from pdsynth.data.standardise import brain_region, place, refused, standardise
from pdsynth.imaging.intensity import TOP, RobustScale
from pdsynth.imaging.nifti import Volume
from pdsynth.imaging.spatial import resample
from pdsynth.imaging.template import b0_template, tissue_template
from pdsynth.types import InputError, Modality

STANDARD = Preprocessing()
GRID = STANDARD.grid


def bold(root: Path) -> Path:
    return root / "sub-01/func/sub-01_task-rest_bold.nii.gz"


def dwi(root: Path) -> Path:
    return root / "sub-01/dwi/sub-01_dwi.nii.gz"


def spoil(path: Path, change) -> None:
    """Write the scan again as float32 after changing its data in place."""
    image = nib.load(path)
    data = image.get_fdata(dtype=np.float32)
    change(data)
    nib.save(nib.Nifti1Image(data, image.affine), path)


def test_means_are_those_of_steady_volumes_and_of_the_nearest_shell(pristine) -> None:
    data = nib.load(bold(pristine.root)).get_fdata()
    read = scan_means(single_scan(bold(pristine.root)), STANDARD)
    np.testing.assert_allclose(read.means[0].data, data.mean(-1), rtol=1e-5)  # 6 volumes: a tenth is none to drop
    assert read.reference is read.means[0] and read.bval is None
    half = scan_means(single_scan(bold(pristine.root)), Preprocessing(unsteady_seconds=4.0, unsteady_share=0.5))
    np.testing.assert_allclose(half.means[0].data, data[..., 2:].mean(-1), rtol=1e-5)  # a TR of 2 s: two are dropped
    data = nib.load(dwi(pristine.root)).get_fdata()
    read = scan_means(single_scan(dwi(pristine.root)), STANDARD)
    np.testing.assert_allclose(read.means[0].data, data[..., 1:5].mean(-1), rtol=1e-5)
    np.testing.assert_allclose(read.reference.data, data[..., 0], rtol=1e-5)
    assert read.bval == 1000
    other = scan_means(single_scan(dwi(pristine.root)), Preprocessing(shell=2100.0))
    np.testing.assert_allclose(other.means[0].data, data[..., 5], rtol=1e-5)
    assert other.bval == 2000


def test_segments_average_to_the_whole(pristine) -> None:
    for path, n in ((bold(pristine.root), 3), (dwi(pristine.root), 2)):
        means = scan_means(single_scan(path), STANDARD, n).means
        assert len(means) == n + 1
        np.testing.assert_allclose(np.mean([m.data for m in means[1:]], axis=0), means[0].data, rtol=1e-4)
    with pytest.raises(InputError, match=r"4 volumes to average, too few for 5 segments.*lower --segments"):
        scan_means(single_scan(dwi(pristine.root)), STANDARD, 5)


def test_standard_volume_lies_in_mni_in_unit_scale_without_skull(pristine) -> None:
    brain = tissue_template(GRID)["brain"] > 0.5
    points = np.argwhere(brain) @ GRID.affine[:3, :3].T + GRID.affine[:3, 3]
    points = np.c_[points, np.ones(len(points))]
    for modality, path in (("fmri", bold(pristine.root)), ("dmri", dwi(pristine.root))):
        standard = standardise(single_scan(path), STANDARD)
        back_and_forth = standard.transform.matrix @ np.linalg.inv(pristine.truth["sub-01", modality])
        error_mm = np.linalg.norm((points @ back_and_forth.T - points)[:, :3], axis=1)
        assert np.median(error_mm) < 4  # a voxel
        inside = standard.volume[standard.brain]
        assert inside.min() >= 0 and standard.volume.max() <= 1
        assert (standard.volume[~brain_region(GRID, 8.0)] == 0).all()
        assert np.median(inside) == pytest.approx(1 / TOP, abs=5e-4)
        assert np.mean(inside == 1) < 0.001  # above 2.5 times the median
        dice = 2 * (standard.brain & brain).sum() / (standard.brain.sum() + brain.sum())
        assert dice > 0.9
        assert standard.bval == (1000 if modality == "dmri" else None)
        assert standard.native.shape == (44, 50, 42)


def test_the_scale_inverts_and_a_louder_scan_is_the_same(study) -> None:
    quiet = standardise(single_scan(bold(study.root)), STANDARD)
    spoil(bold(study.root), lambda data: np.multiply(data, 2, out=data))
    loud = standardise(single_scan(bold(study.root)), STANDARD)
    np.testing.assert_allclose(loud.volume, quiet.volume, atol=1e-3)
    inside = quiet.brain & (quiet.volume < 1) & (quiet.volume > 0.1)
    native = [s.scales[0].unit * (s.volume * s.scales[0].field)[inside] for s in (loud, quiet)]
    np.testing.assert_allclose(native[0], 2 * native[1], rtol=1e-2)
    assert loud.volume.tobytes() == quiet.volume.tobytes()
    on_grid = resample(quiet.reference, GRID, quiet.transform.matrix)
    np.testing.assert_allclose(native[1], on_grid[inside], rtol=2e-3)


def test_a_scan_in_another_coil_is_nearly_the_same(study) -> None:
    plain = standardise(single_scan(bold(study.root)), STANDARD)
    ramp = np.linspace(0.6, 1.6, 44)[:, None, None, None]
    spoil(bold(study.root), lambda data: np.multiply(data, ramp, out=data))
    coil = standardise(single_scan(bold(study.root)), STANDARD)
    both = plain.brain & coil.brain
    difference = np.abs(coil.volume - plain.volume)[both].mean()
    on_grid = [resample(s.reference, GRID, s.transform.matrix) for s in (coil, plain)]
    earlier = [RobustScale.by_percentile(data, both).apply(data)[both] for data in on_grid]
    assert difference < 0.02 < 0.08 < np.abs(earlier[0] - earlier[1]).mean()


def test_a_dmri_alone_is_registered_to_the_mean_b0_and_an_fmri_to_the_template(pristine) -> None:
    """A head that is the mean b0 itself, moved by a known affine, is found; the template would place it higher."""
    b0 = b0_template(GRID)
    moved = np.array([[1.05, 0.05, 0, 6], [-0.05, 1.02, 0, -9], [0, 0, 0.96, 11], [0, 0, 0, 1.0]])
    scan, brain = Scan(Modality.DMRI, Path("sub-01_dwi.nii.gz")), b0.data > 0
    reference = Volume(b0.data * np.float32(310), moved @ b0.affine)
    before = Preprocessing(alone="affine")
    points = np.argwhere(brain) @ b0.affine[:3, :3].T + b0.affine[:3, 3]
    shift = {}
    for name, preprocessing in (("b0", STANDARD), ("template", before)):
        back = place(scan, reference, brain, preprocessing).matrix @ moved
        shift[name] = (points @ back[:3, :3].T + back[:3, 3] - points).mean(0)
    assert np.abs(shift["b0"]).max() < 0.2 and 0.3 < shift["template"][2] < 2
    fmri = [standardise(single_scan(bold(pristine.root)), each) for each in (STANDARD, before)]
    assert list(fmri[0].transform.steps) == ["affine to MNI"]
    assert fmri[0].volume.tobytes() == fmri[1].volume.tobytes()


def test_margin_and_percentile_are_those_of_the_preprocessing(pristine) -> None:
    scan = single_scan(bold(pristine.root))
    tight = standardise(scan, Preprocessing(margin_mm=0.0, intensity="percentile", percentile=90.0))
    template = tissue_template(GRID)["brain"] > 0.5
    assert not tight.volume[~template].any() and not tight.brain[~template].any()
    assert np.mean(tight.volume[tight.brain] == 1) == pytest.approx(0.1, abs=0.002)
    assert tight.scales[0].field is None


def test_a_mean_volume_is_its_own_mean(study) -> None:
    mean = scan_means(single_scan(bold(study.root)), STANDARD).means[0]
    path = study.root / "x_dwiref.nii.gz"
    nib.save(nib.Nifti1Image(mean.data, mean.affine), path)
    for preprocessing in (STANDARD, Preprocessing(realign=True, denoise=True)):  # there is no series to correct
        again = scan_means(single_scan(path), preprocessing)
        np.testing.assert_array_equal(again.means[0].data, mean.data)
        assert again.reference is again.means[0] and again.bval is None


def test_a_series_of_thousands_of_volumes_is_read_in_little_memory(tmp_path: Path) -> None:
    n = 4315
    generator = np.random.default_rng(0)
    data = generator.integers(100, 200, (12, 12, 10, n)).astype(np.int16)
    path = tmp_path / "sub-1_dwi.nii.gz"
    nib.save(nib.Nifti1Image(data, np.diag([16.0, 16.0, 12.0, 1.0])), path)
    bvals = np.where(np.arange(n) % 20 == 0, 0, np.where(np.arange(n) % 2, 1000, 3000))
    vectors = generator.standard_normal((n, 3))
    np.savetxt(tmp_path / "sub-1_dwi.bval", bvals[None], fmt="%d")
    np.savetxt(tmp_path / "sub-1_dwi.bvec", (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).T)
    tracemalloc.start()
    read = scan_means(single_scan(path), STANDARD, 4)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(read.means) == 5 and read.bval == 1000
    np.testing.assert_allclose(read.means[0].data, data[..., bvals == 1000].mean(-1), rtol=1e-5)
    assert peak < 400e6  # the energies between 2,000 directions, whatever the size of a volume


def cut_short(path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3])


def cut_to_a_slab(path: Path) -> None:
    image = nib.load(path)
    nib.save(image.slicer[:, :, 28:, :], path)


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (cut_short, "truncated"),
        (lambda path: spoil(path, lambda data: data[5, 5, 5].fill(np.nan)), "1 non-finite voxels in volume"),
        (lambda path: spoil(path, lambda data: data.fill(np.nan)), "non-finite"),
        (lambda path: spoil(path, lambda data: data.fill(0)), "no signal"),
        (lambda path: spoil(path, lambda data: data.fill(7)), "no signal"),
        (cut_to_a_slab, "only [0-9]+% of the brain|do not overlap enough"),
    ],
    ids=["truncated", "nan voxels", "nan volume", "zeros", "constant", "slab"],
)
@pytest.mark.parametrize("which", [bold, dwi])
def test_damaged_scans_end_in_a_line_that_names_file_and_remedy(study, which, damage, problem) -> None:
    path = which(study.root)
    modality = Modality.FMRI if which is bold else Modality.DMRI
    tables = {k: path.with_name(f"sub-01_dwi.{k}") for k in ("bval", "bvec")} if which is dwi else {}
    damage(path)
    with pytest.raises(InputError, match=problem) as caught:
        standardise(Scan(modality, path, **tables), STANDARD)
    assert caught.value.path == path and caught.value.remedy
    assert "\n" not in str(caught.value)


def test_any_error_becomes_a_line(tmp_path: Path) -> None:
    scan = Scan(Modality.FMRI, tmp_path / "a.nii.gz")
    assert str(refused(scan, ValueError("the mask is empty; check it."))).endswith("mask is empty. Remedy: check it.")
    assert refused(scan, RuntimeError("two\nlines")).problem == "two lines (RuntimeError)"
    assert refused(scan, MemoryError()).problem == "cannot be used (MemoryError)"
    already = InputError("b", "c", "d")
    assert refused(scan, already) is already


def test_real_odd_scans(real_data: Path) -> None:
    with pytest.raises(InputError, match=r"slab.*only 6.% of the brain"):
        standardise(single_scan(real_data / "odd/dwi_partial-slab_b0-reads-1.25.nii.gz"), STANDARD)
    brain = tissue_template(GRID)["brain"] > 0.5
    for name, shell in (("bold_156vol_task-oneback", None), ("dwi_toshiba", 1500.0)):
        standard = standardise(single_scan(real_data / f"odd/{name}.nii.gz"), STANDARD)
        assert 2 * (standard.brain & brain).sum() / (standard.brain.sum() + brain.sum()) > 0.85
        assert standard.bval == shell
