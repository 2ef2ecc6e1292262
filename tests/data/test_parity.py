"""What enters the network at synthesis is, bit for bit, what it would be trained on: every layout, each correction."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from layouts import LAYOUTS
from pdsynth import api
from pdsynth.cohorts import read
from pdsynth.cohorts.scans import single_scan
from pdsynth.data import means, standardise
from pdsynth.data.batch import PairBatch, Source, stack_sources
from pdsynth.data.pairs import Pairs
from pdsynth.data.prepare import prepare
from pdsynth.data.preprocessing import Preprocessing
from pdsynth.imaging import intensity, motion
from pdsynth.imaging.nifti import Volume
from pdsynth.imaging.spatial import Grid, mni_grid, resample
from pdsynth.imaging.template import tissue_template
from pdsynth.methods import checkpoint, create
from pdsynth.synthesis import Model
from pdsynth.types import Direction, InputError, Modality

PEOPLE = ("sub-01", "sub-03", "sub-04")  # with both scans, with fMRI alone, with dMRI alone
CORRECTIONS = {"as acquired": {}, "corrected": {"denoise": True, "realign": True}}
MNI = "space-MNI152NLin2009cAsym"


@pytest.fixture(scope="module", autouse=True)
def each_step_once() -> Iterator[None]:
    """Registration and corrections are slow functions of their inputs: what was computed of the same is kept."""
    known: dict[str, Any] = {}

    def kept(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **named: Any) -> Any:
            key = sha256(pickle.dumps((function.__name__, args, sorted(named.items())))).hexdigest()
            if key not in known:
                known[key] = function(*args, **named)
            return known[key]

        return call

    with pytest.MonkeyPatch.context() as patched:
        for module, name in (
            (standardise, "register"),
            (intensity, "register"),
            (motion, "register"),
            (means, "denoised"),
        ):
            patched.setattr(module, name, kept(getattr(module, name)))
        yield


@pytest.fixture(scope="module")
def trio(pristine, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("trio")
    rows = (pristine.root / "participants.tsv").read_text().splitlines()
    (root / "participants.tsv").write_text("\n".join(r for r in rows if r.startswith(("participant_id", *PEOPLE))))
    for name in PEOPLE:
        shutil.copytree(pristine.root / name, root / name)
    return root


def as_tools_write(study: Path, out: Path, truth: dict[tuple[str, str], np.ndarray]) -> None:
    """fMRIPrep's series in MNI152 and QSIPrep's in the participant's own space, each with its brain mask."""
    brain = tissue_template(mni_grid(4.0))["brain"]
    for (name, modality), to_mni in truth.items():
        if name not in PEOPLE:
            continue
        if modality == "fmri":
            folder, grid = out / "fmriprep" / name / "func", mni_grid(4.0)
            image = nib.load(next((study / name).rglob("*_bold.nii.gz")))
            series = [resample(Volume(image.dataobj[..., t], image.affine), grid, to_mni) for t in range(6)]
            stem, mask = f"{name}_task-rest_{MNI}_res-2_desc", brain > 0.5
            folder.mkdir(parents=True)
            nib.save(nib.Nifti1Image(np.stack(series, -1), grid.affine), folder / f"{stem}-preproc_bold.nii.gz")
        else:
            folder, stem = out / "qsiprep" / name / "dwi", f"{name}_space-ACPC_desc"
            folder.mkdir(parents=True)
            for file in (study / name / "dwi").iterdir():
                shutil.copy(file, folder / f"{stem}-preproc_dwi{file.name[file.name.index('.') :]}")
            image = nib.load(next(folder.glob("*.nii.gz")))
            grid = Grid(image.shape[:3], image.affine)
            mask = resample(Volume(brain, mni_grid(4.0).affine), grid, np.linalg.inv(to_mni)) > 0.5
        nib.save(nib.Nifti1Image(mask.astype(np.uint8), grid.affine), folder / f"{stem}-brain_mask.nii.gz")


@pytest.fixture(scope="module", params=["bids", *LAYOUTS, "derivatives in MNI, with masks"])
def layout(request, trio, pristine, tmp_path_factory) -> Path:
    if request.param == "bids":
        return trio
    out = tmp_path_factory.mktemp("layout") / "study"
    if request.param in LAYOUTS:
        LAYOUTS[request.param](trio, out)
    else:
        as_tools_write(trio, out, pristine.truth)
        shutil.copy(trio / "participants.tsv", out)
    return out


@pytest.fixture(params=CORRECTIONS)
def pairs(request, layout, tmp_path) -> Pairs:
    return prepare(read(layout), tmp_path / "prepared", grid_mm=8, split=(1, 0, 0), **CORRECTIONS[request.param])


def seen_at_synthesis(pairs: Pairs, path: Path, modality: Modality, folder: Path) -> PairBatch:
    """The batch that the method of a model gets, which was saved and loaded with what `train` writes into its card."""
    method = create("copy-source", {"grid_shape": list(pairs.grid.shape)})
    model = Model.load(checkpoint.save(method, folder, pairs.preprocessing.entries()), "cpu")
    batches: list[PairBatch] = []
    whole = model.method.estimate

    def spied(batch: PairBatch, direction: Direction) -> tuple[torch.Tensor, torch.Tensor | None]:
        batches.append(batch)
        return whole(batch, direction)

    model.method.estimate = spied
    model.synthesize(path, modality.other)
    return batches[0]


def test_synthesis_sees_what_was_prepared(pairs, layout, tmp_path):
    table = pairs.table
    assert sorted(table["available"]) == ["both", "dmri", "fmri"]
    for row, modality in ((row, m) for row in range(len(table)) for m in Modality):
        name = table[f"{modality}_path"].iloc[row]
        if not name:
            continue
        batch = seen_at_synthesis(pairs, layout / name, modality, tmp_path / "model")
        found = batch.sources[Direction.to(modality.other)]
        steps = list(pairs.transform(modality, row).steps)
        if steps[0] == "rigid to fmri":  # of a pair: at synthesis, alone, it is registered directly
            assert modality is Modality.DMRI and table["available"].iloc[row] == "both"
            difference = (found.volume[0, 0].numpy() - pairs.volume(modality, row))[pairs.brain(modality, row)]
            assert 0 < np.sqrt(np.square(difference).mean()) < 0.06
            whole = paired(pairs, layout, row)
            np.testing.assert_array_equal(whole.volume, pairs.volume(modality, row))
            np.testing.assert_array_equal(whole.brain, pairs.brain(modality, row))
            continue
        expected: Source = stack_sources([pairs.source(modality, row)], np.zeros((1, 3), int), pairs.grid.shape)
        for view in vars(expected):
            assert torch.equal(getattr(found, view), getattr(expected, view)), view
        assert found.volume.std() > 0.05
        assert batch.bval.item() == pytest.approx(float(table["dmri_bval"].iloc[row]) / 1000)


def paired(pairs: Pairs, layout: Path, row: int) -> standardise.Standardised:
    """The dMRI of a pair by the same function, with the fMRI of its session."""
    scans = [single_scan(layout / pairs.table[f"{m}_path"].iloc[row], m) for m in (Modality.FMRI, Modality.DMRI)]
    partner = standardise.standardise(scans[0], pairs.preprocessing)
    return standardise.standardise(scans[1], pairs.preprocessing, partner=partner)


def test_a_model_of_other_corrections_sees_another_volume(trio, tmp_path):
    """The parity above would hold of a preprocessing that nobody reads; this shows that it is read."""
    pairs = prepare(read(trio), tmp_path / "prepared", grid_mm=8, split=(1, 0, 0), denoise=True)
    row = pairs.table.index[pairs.table["available"] == "dmri"][0]
    path = trio / pairs.table["dmri_path"].iloc[row]
    plain = Pairs(pairs.root, pairs.table, pairs.manifest | Preprocessing(grid=pairs.grid).entries(), pairs.volumes)
    seen = [seen_at_synthesis(each, path, Modality.DMRI, tmp_path / f"{i}") for i, each in enumerate((pairs, plain))]
    volumes = [batch.sources[Direction.DMRI_TO_FMRI].volume[0, 0].numpy() for batch in seen]
    np.testing.assert_array_equal(volumes[0], pairs.volume(Modality.DMRI, row))
    assert (volumes[1] != volumes[0])[pairs.brain(Modality.DMRI, row)].mean() > 0.5


def test_the_registration_of_a_dmri_alone_counts_only_where_there_is_one(trio, tmp_path):
    """Models of an earlier version may be scored on the pairs of this one, which are the same, but on no dMRI alone."""
    pairs = prepare(read(trio), tmp_path / "prepared", grid_mm=8, split=(1, 0, 0))
    method = create("copy-source", {"grid_shape": list(pairs.grid.shape)})
    card = Preprocessing(grid=pairs.grid, alone="affine").entries()
    older = Model.load(checkpoint.save(method, tmp_path / "model", card), "cpu")
    both = pairs.where(pairs.table["available"] == "both")
    assert pairs.has_dmri_alone() and not both.has_dmri_alone()
    api.refuse_other_preprocessing({"older": older}, both)
    problem = r"has alone affine-b0, but older alone affine\. Remedy: train a model on this folder\.$"
    with pytest.raises(InputError, match=problem):
        api.refuse_other_preprocessing({"older": older}, pairs)
