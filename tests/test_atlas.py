import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nilearn.datasets import fetch_coords_dosenbach_2010

from fixture_trees import write_volume
from pdsynth.atlas import NETWORKS, Atlas, network_spheres, read_atlas, region_means
from pdsynth.imaging.nifti import Volume
from pdsynth.imaging.spatial import mni_grid
from pdsynth.types import InputError


@pytest.mark.parametrize("spacing", [3.0, 4.0, 6.0, 8.0])
def test_every_region_has_a_voxel_near_its_centre(spacing):
    grid = mni_grid(spacing)
    atlas = network_spheres(grid)
    table = fetch_coords_dosenbach_2010(ordered_regions=False)
    centres = table.rois[np.isin(table.networks, NETWORKS)][["x", "y", "z"]].to_numpy(float)
    assert len(atlas) == len(centres) == 87
    assert atlas.labels.dtype == np.int16
    for region, centre in enumerate(centres):
        voxels = np.argwhere(atlas.labels == region + 1)
        assert len(voxels) >= 1
        distance = np.linalg.norm(voxels @ grid.affine[:3, :3].T + grid.affine[:3, 3] - centre, axis=1)
        assert distance.max() <= max(5.0, 1.5 * spacing)


def test_networks_are_chosen_by_name():
    atlas = network_spheres(mni_grid(4), ("default",))
    assert len(atlas) == 34
    assert set(atlas.networks) == {"default"}
    assert len(set(atlas.names)) == 34
    everything = network_spheres(mni_grid(4))
    assert {n: everything.networks.count(n) for n in NETWORKS} == {
        "default": 34,
        "fronto-parietal": 21,
        "cingulo-opercular": 32,
    }
    with pytest.raises(ValueError, match=r"'limbic'.*choose among.*default"):
        network_spheres(mni_grid(4), ("limbic",))


def test_shared_voxels_go_to_the_nearer_centre():
    # With wide spheres every region still holds its centre's voxel, and none but the nearest regions hold others.
    grid = mni_grid(2)
    narrow, wide = network_spheres(grid, radius_mm=3), network_spheres(grid, radius_mm=12)
    kept = wide.labels[narrow.labels > 0] == narrow.labels[narrow.labels > 0]
    assert kept.all()
    assert (wide.labels > 0).sum() > 5 * (narrow.labels > 0).sum()


@given(st.integers(0, 999), st.sampled_from([(), (3,), (2, 3), (0,)]))
def test_region_means_are_plain_means(seed, leading):
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 5, (4, 5, 6)).astype(np.int16)
    labels.flat[:4] = [1, 2, 3, 4]
    volumes = generator.standard_normal((*leading, 4, 5, 6))
    means = region_means(volumes, Atlas(labels, list("abcd"), [""] * 4))
    assert means.shape == (*leading, 4)
    for region in range(4):
        np.testing.assert_allclose(means[..., region], volumes[..., labels == region + 1].mean(-1))


def test_region_means_need_the_atlas_grid():
    with pytest.raises(ValueError, match="do not fit"):
        region_means(np.zeros((2, 2, 2)), network_spheres(mni_grid(8)))


def test_label_image_is_renumbered_and_named(tmp_path):
    grid = mni_grid(4)
    labels = np.zeros(grid.shape, np.float32)
    labels[5:9, 5:9, 5:9], labels[20:24, 20:24, 20:24] = 1003, 7
    write_volume(Volume(labels, grid.affine), tmp_path / "My_space-MNI.nii.gz")
    atlas = read_atlas(tmp_path / "My_space-MNI.nii.gz", grid)
    assert atlas.names == ["region 7", "region 1003"]
    assert (atlas.labels == np.where(labels == 1003, 2, labels == 7)).all()
    (tmp_path / "My.csv").write_text("index,name\n7,Thalamus,sub-cortical\n1003,Cuneus\n9,none\n")
    named = read_atlas(tmp_path / "My_space-MNI.nii.gz", grid)
    assert (named.names, named.networks) == (["Thalamus", "Cuneus"], ["sub-cortical", ""])


@pytest.mark.parametrize(("fill", "words"), [(0.5, "fractions"), (0, "no region")])
def test_images_without_labels_are_refused(tmp_path, fill, words):
    grid = mni_grid(8)
    write_volume(Volume(np.full(grid.shape, fill), grid.affine), tmp_path / "a.nii.gz")
    with pytest.raises(InputError, match=words):
        read_atlas(tmp_path / "a.nii.gz", grid)


def test_real_atlases_keep_sides_and_regions(real_data):
    grid = mni_grid(4)
    for name, count in (("AAL", 116), ("JHU", 48), ("Schaefer200", 200), ("Desikan", 70)):
        atlas = read_atlas(real_data / f"atlases/{name}_space-MNI152NLin6_res-2x2x2.nii.gz", grid)
        assert len(atlas) == count
        assert set(np.unique(atlas.labels)) == set(range(count + 1))
        x = np.broadcast_to((grid.affine[0, 0] * np.arange(48) + grid.affine[0, 3])[:, None, None], grid.shape)
        centres = region_means(x, atlas)
        if name == "AAL":
            assert max(c for c, n in zip(centres, atlas.names, strict=True) if n.startswith("L_")) < 1
            assert min(c for c, n in zip(centres, atlas.names, strict=True) if n.startswith("R_")) > -1
