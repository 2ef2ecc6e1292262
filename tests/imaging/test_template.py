import subprocess
import sys
import time

import numpy as np
import pytest
from nilearn.datasets import load_mni152_brain_mask, load_mni152_gm_template

from pdsynth.imaging.nifti import Volume
from pdsynth.imaging.spatial import mni_grid, resample
from pdsynth.imaging.template import b0_template, epi_template, tissue_template


@pytest.mark.parametrize("spacing", [4.0, 8.0])
def test_tissues_are_probabilities_that_sum_to_the_brain(spacing):
    maps = tissue_template(mni_grid(spacing))
    assert set(maps) == {"gm", "wm", "csf", "brain"}
    for array in maps.values():
        assert array.dtype == np.float32
        assert array.min() >= 0
        assert array.max() <= 1
    np.testing.assert_allclose(maps["gm"] + maps["wm"] + maps["csf"], maps["brain"], atol=1e-5)


def test_volumes_are_those_of_nilearns_templates():
    maps, grid = tissue_template(mni_grid(4)), mni_grid(4)
    mask = load_mni152_brain_mask(resolution=1)
    litres = np.asanyarray(mask.dataobj).sum() / 1e6
    np.testing.assert_allclose(maps["brain"].sum() * 64 / 1e6, litres, rtol=0.03)
    gm = load_mni152_gm_template(resolution=2)
    theirs = resample(Volume(np.asanyarray(gm.dataobj), gm.affine), grid)
    assert np.corrcoef(theirs.ravel(), maps["gm"].ravel())[0, 1] > 0.98


def test_landmarks_are_where_mni_has_them():
    grid, maps = mni_grid(4), tissue_template(mni_grid(4))

    def at(name, *mm):
        voxel = np.round(np.linalg.inv(grid.affine)[:3] @ [*mm, 1]).astype(int)
        return maps[name][tuple(voxel)]

    assert at("wm", 0, 24, 6) > 0.5  # genu of the corpus callosum
    assert at("wm", 26, -10, 34) > 0.8  # centrum semiovale
    assert at("csf", 6, 10, 14) > 0.4  # lateral ventricle
    assert at("gm", 12, 14, 4) > 0.5  # caudate
    assert at("brain", 0, 88, 0) == 0
    # The template is symmetric left-right, and so must be what is made of it.
    np.testing.assert_allclose(maps["gm"], maps["gm"][::-1], atol=0.05)


def test_epi_template_has_bright_csf_and_dark_white_matter():
    grid = mni_grid(4)
    maps, epi = tissue_template(grid), epi_template(grid).data
    means = {name: epi[maps[name] > 0.8].mean() for name in ("gm", "wm", "csf")}
    assert means["wm"] < means["gm"] < means["csf"]
    assert (epi[maps["brain"] == 0] == 0).all()


@pytest.mark.parametrize("spacing", [2.0, 4.0])
def test_the_mean_b0_is_a_brain_in_mni_that_lies_lower_than_the_template(spacing):
    grid = mni_grid(spacing)
    maps, b0 = tissue_template(grid), b0_template(grid).data
    inside = maps["brain"] > 0.5
    assert 2 * (inside & (b0 > 0)).sum() / (inside.sum() + (b0 > 0).sum()) > 0.95
    means = {name: b0[maps[name] > 0.8].mean() for name in ("gm", "wm", "csf")}
    assert means["wm"] < means["gm"] < means["csf"]
    height = [np.argwhere(mask).mean(0)[2] * spacing for mask in (b0 > 0, inside)]
    assert -1.5 < height[0] - height[1] < -0.1


def test_shared_maps_cannot_be_changed():
    with pytest.raises(ValueError, match="read-only"):
        tissue_template(mni_grid(4))["gm"][0] = 1


def test_fresh_process_has_the_template_in_a_second_and_a_half():
    code = (
        "import time; t = time.process_time()\n"
        "from pdsynth.imaging.spatial import mni_grid\n"
        "from pdsynth.imaging.template import tissue_template\n"
        "tissue_template(mni_grid(4)); print(time.process_time() - t)\n"
        "import sys; assert 'nilearn' not in sys.modules and 'torch' not in sys.modules"
    )
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment())
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) <= 1.5, f"{time.perf_counter() - start:.2f} s by the clock"


def environment():
    import os
    from pathlib import Path

    import pdsynth

    return {**os.environ, "PYTHONPATH": str(Path(pdsynth.__file__).parents[1])}
