"""People from label maps of real heads: orientation, size, fluid of sulci and rim, files that cannot be used."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from pdsynth.cohorts.simulated.anatomy import Anatomy, draw_anatomy, draw_person
from pdsynth.cohorts.simulated.cohort import simulate
from pdsynth.cohorts.simulated.heads import BURIED_MM, COARSE, FINE, NAMES, TISSUES, Head, find_heads, read_head
from pdsynth.imaging.spatial import mni_grid
from pdsynth.imaging.template import tissue_template
from pdsynth.types import Diagnosis, InputError

SHRINK = 0.85  # edge of the label map's head relative to the template's


def labels() -> np.ndarray:
    """FreeSurfer's numbers on a 3 mm grid: the template's tissues, and a skin around them."""
    maps = tissue_template(mni_grid(3.0))
    found = np.zeros(maps["gm"].shape, np.int32)
    found[maps["brain"] > 0.5] = 24
    found[maps["gm"] > 0.4] = 3
    found[maps["wm"] > 0.5] = 41
    found[:2], found[-2:] = 511, 511
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two files of one head, smaller than the template: one in RAS order, the other in the order of FreeSurfer, LIA."""
    folder = tmp_path_factory.mktemp("anatomies")
    affine = mni_grid(3.0).affine.copy()
    affine[:3] *= SHRINK
    image = nib.Nifti1Image(labels(), affine)
    nib.save(image, folder / "a.nii.gz")
    to = nib.orientations.axcodes2ornt("LIA")
    turned = image.as_reoriented(nib.orientations.ornt_transform(nib.io_orientation(affine), to))
    nib.save(nib.MGHImage(np.asarray(turned.dataobj), turned.affine), folder / "b.mgz")
    return folder


def test_order_of_axes_and_format_do_not_matter(folder: Path) -> None:
    first, second = (read_head(path) for path in find_heads(folder))
    assert np.array_equal(first.structure, second.structure) and np.array_equal(first.depth, second.depth)
    assert np.allclose(first.to_template, second.to_template, atol=1e-6) and first.has_scalp


def drawn(head: Head | None, seed: int = 0) -> Anatomy:
    person = draw_person(np.random.default_rng(1), Diagnosis.NC, severity=0.0)
    return draw_anatomy(np.random.default_rng(seed), person, 4.0, head)


def test_a_person_has_the_size_and_the_tissues_of_the_head(folder: Path) -> None:
    head = read_head(folder / "a.nii.gz")
    anatomy = drawn(head)
    voxel = np.prod(anatomy.grid.spacing_mm)
    white = (labels() == 41).sum() * (3 * SHRINK) ** 3
    assert anatomy.wm.sum() * voxel == pytest.approx(white, rel=0.08)
    brain = np.isin(labels(), (3, 24, 41)).sum() * (3 * SHRINK) ** 3
    assert 0.75 * brain < anatomy.brain.sum() * voxel < 1.02 * brain  # fluid outside the rim is left out
    scale = np.cbrt(np.linalg.det(anatomy.to_template))
    assert scale == pytest.approx(1 / SHRINK, rel=0.04)  # the registration finds the size of the template
    assert (anatomy.brain <= 1 + 1e-5).all() and min(anatomy.gm.min(), anatomy.csf.min()) >= 0
    assert anatomy.rim_loss.max() > 0.1 and drawn(None).rim_loss == 0.0
    assert np.array_equal(drawn(head).gm, anatomy.gm) and not np.array_equal(drawn(head, 1).gm, anatomy.gm)


def column(name: str, **changes: np.ndarray) -> Head:
    """A head of one row of 8 voxels of 1 mm that all have one structure, 5 mm below the hull."""
    values = {
        "structure": np.full((8, 1, 1), NAMES.index(name), np.uint8),
        "distance": (np.arange(8, dtype=np.uint8) * int(FINE)).reshape(8, 1, 1),
        "depth": np.full((8, 1, 1), 5 * COARSE, np.uint8),
    }
    return Head(**{**values, **changes}, index=np.eye(4), to_person=np.eye(4), to_template=np.eye(4), has_scalp=False)


def content(head: Head, tissue: str, thickness_mm: float = 2.0, rim_mm: float = 2.0) -> np.ndarray:
    positions = np.stack([np.arange(8.0), np.zeros(8), np.zeros(8)]).reshape(3, 8, 1, 1).astype(np.float32)
    maps = head.tissues(positions, np.full(3, 0.1), thickness_mm, rim_mm)  # all samples lie in one voxel
    return maps[TISSUES.index(tissue), :, 0, 0]


def test_a_sulcus_holds_fluid_beyond_the_thickness_of_the_cortex() -> None:
    """The fraction of fluid rises over 0.9 mm; cortex near the surface of the brain stays cortex."""
    expected = np.clip((np.arange(8) - 2) / 0.9, 0, 1)
    assert content(column("cortex"), "csf") == pytest.approx(expected, abs=1e-5)
    assert content(column("cortex"), "gm") == pytest.approx(1 - expected, abs=1e-5)
    shallow = np.full((8, 1, 1), int((BURIED_MM - 1) * COARSE), np.uint8)
    assert content(column("cortex", depth=shallow), "gm") == pytest.approx(np.ones(8))


def test_the_rim_holds_fluid_up_to_its_thickness_and_cisterns_all_of_it() -> None:
    assert content(column("fluid"), "csf").tolist() == [1, 1, 1, 0, 0, 0, 0, 0]
    deep = np.full((8, 1, 1), 12 * COARSE, np.uint8)
    assert content(column("fluid", depth=deep), "csf").tolist() == [1] * 8


def test_structures_are_mixtures_with_iron() -> None:
    head = column("pallidum")
    assert [content(head, t)[3] for t in ("gm", "wm", "iron")] == pytest.approx([0.4, 0.6, 1.0])


def test_a_share_of_a_cohort_is_simulated_from_the_label_maps(folder: Path, tmp_path: Path) -> None:
    out = simulate(tmp_path / "cohort", 4, seed=3, quick=True, truth=False, anatomies=folder, anatomies_share=0.5)
    truth = pd.read_csv(out / "derivatives" / "truth" / "truth.tsv", sep="\t")
    assert sorted(truth["anatomy"]) == ["a.nii.gz", "b.mgz", "template", "template"]
    again = simulate(
        tmp_path / "again", 4, seed=3, quick=True, truth=False, anatomies=folder, anatomies_share=0.5, jobs=2
    )
    for path in out.rglob("*.nii.gz"):
        assert path.read_bytes() == (again / path.relative_to(out)).read_bytes()


def test_label_maps_that_cannot_be_used_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no label map"):
        find_heads(tmp_path)
    (tmp_path / "broken.nii.gz").write_bytes(b"\x1f\x8bno")
    with pytest.raises(InputError, match=r"broken\.nii\.gz"):
        read_head(tmp_path / "broken.nii.gz")
    nib.save(nib.Nifti1Image(np.ones((4, 4, 4, 2), np.int16), np.eye(4)), tmp_path / "four.nii.gz")
    with pytest.raises(InputError, match="has 4 dimensions"):
        read_head(tmp_path / "four.nii.gz")
    tissues = np.ones((8, 8, 8), np.int16)  # 1, 2, 3 for fluid, grey and white, as by FAST
    tissues[4:] = 2
    nib.save(nib.Nifti1Image(tissues, np.eye(4)), tmp_path / "tissues.nii.gz")
    with pytest.raises(InputError, match=r"no voxel of the cortex \(labels 3 and 42\)"):
        read_head(tmp_path / "tissues.nii.gz")
