"""The label images that `train` takes for A_f and A_d: in the losses, in the model, on its card."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from fixture_trees import write_volume
from pdsynth import api
from pdsynth.atlas import network_spheres
from pdsynth.cli import main
from pdsynth.imaging.nifti import Volume
from pdsynth.methods import checkpoint
from pdsynth.options import FitOptions
from pdsynth.types import Direction, InputError, Modality

D = Direction.FMRI_TO_DMRI
TINY = {"width": "8", "patch": "8", "batch_size": "4"}


@pytest.fixture
def train(prepared):
    return prepared.split("train")


def label_image(path: Path, grid, planes: int) -> Path:
    """A slab for each of `planes` regions, in the middle of the grid."""
    labels = np.zeros(grid.shape, np.float32)
    for region in range(planes):
        labels[8 + 2 * region : 10 + 2 * region, 8:18, 8:16] = region + 1
    write_volume(Volume(labels, grid.affine), path)
    return path


@pytest.fixture
def images(train, tmp_path):
    names = {Modality.FMRI: "functional.nii.gz", Modality.DMRI: "tracts.nii.gz"}
    return {m: label_image(tmp_path / name, train.grid, 2 + i) for i, (m, name) in enumerate(names.items())}


def test_each_modality_has_its_regions_and_the_card_names_the_files(train, images, tmp_path):
    model = api.fit("pds", train, run=tmp_path / "run", steps=1, device="cpu", settings=TINY, atlases=images)
    structure = model.method.drafter.structure
    for modality, regions in ((Modality.FMRI, 2), (Modality.DMRI, 3)):
        assert structure.labels_of(modality).unique().tolist() == list(range(regions + 1))
        assert len(structure.patterns[modality].spread) == regions
        digest = hashlib.sha256(images[modality].read_bytes()).hexdigest()
        assert model.card["atlases"][modality] == {"file": images[modality].name, "sha256": digest}
    batch, spread = train.batch(np.array([0])), structure.patterns[Modality.DMRI].spread[2].item()
    target, third = batch.targets[D], structure.labels_of(Modality.DMRI)[None] == 3
    terms = structure(target + 0.1 * third, batch, D, False)  # one region of three errs: level 1/3, coupling 4/9
    expected = model.method.config.pattern_weight * (0.1 / spread) ** 2 * (1 / 3 + 4 / 9)
    assert terms[f"pattern_{D}"].item() == pytest.approx(expected, rel=1e-4)


def test_pds_paper_masks_each_modality_by_its_atlas(train, images):
    method = api.untrained("pds-paper", train, FitOptions(size="small", atlases=images))
    method.config.microstructure_weight = 0
    method.fit(train, torch.Generator())
    for mask, modality in zip(method.masks, Modality, strict=True):
        assert torch.equal(mask > 0, torch.from_numpy(method.atlases[modality].labels > 0))
    assert method.masks[0].sum() * 3 == method.masks[1].sum() * 2 > 0


def test_without_an_atlas_both_have_the_spheres_of_three_networks(train, images):
    spheres = network_spheres(train.grid)
    method = api.untrained("pds", train, FitOptions(settings=TINY))
    method.fit(train, torch.Generator())
    labels = method.drafter.structure.labels
    assert labels.shape == (1, *train.grid.shape) and np.array_equal(labels[0].numpy(), spheres.labels)
    one = api.untrained("pds", train, FitOptions(settings=TINY, atlases={Modality.DMRI: images[Modality.DMRI]}))
    assert np.array_equal(one.regions(train.grid)[Modality.FMRI].labels, spheres.labels)
    assert len(one.regions(train.grid)[Modality.DMRI]) == 3


def test_a_model_of_an_atlas_is_read_again(train, images, tmp_path):
    method = api.untrained("pds", train, FitOptions(settings=TINY, atlases=images))
    method.fit(train, torch.Generator())
    checkpoint.save(method, tmp_path / "model", {})
    again = checkpoint.load(tmp_path / "model")[0].state_dict()
    assert all(torch.equal(value, again[name]) for name, value in method.state_dict().items())


def test_atlases_that_can_not_be_used_are_refused(train, images, tmp_path):
    with pytest.raises(ValueError, match="the recipe unet uses no atlas"):
        api.untrained("unet", train, FitOptions(atlases=images))
    slab = label_image(tmp_path / "slab.nii.gz", train.grid, 1)
    with pytest.raises(InputError, match=r"slab\.nii\.gz: has one region on the grid"):
        api.untrained("pds", train, FitOptions(settings=TINY, atlases={Modality.FMRI: slab}))


def test_a_run_goes_on_with_its_own_atlases_only(prepared, images, tmp_path, capsys):
    words = ["train", str(prepared.root), str(tmp_path / "run"), "--recipe", "pds", "--steps", "1", "--device", "cpu"]
    words += [word for name, value in TINY.items() for word in ("--set", f"{name}={value}")]
    chosen = ["--atlas-fmri", str(images[Modality.FMRI])]

    def status(*more: str) -> int:
        with pytest.raises(SystemExit) as stop:
            main([*words, *more])
        return stop.value.code

    assert status(*chosen) == 0
    assert list(api.load(tmp_path / "run" / "model", "cpu").card["atlases"]) == ["fmri"]
    assert status("--resume") == 2
    assert "is a run with another --atlas-fmri or --atlas-dmri" in capsys.readouterr().err
    assert status("--resume", *chosen) == 0
