"""From a BIDS tree to a prepared folder: what is in it, what is refused, and that nothing is left half-written."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from pdsynth import folders, manifest
from pdsynth.cohorts.bids import bids
from pdsynth.cohorts.cohort import Cohort
from pdsynth.data import means, sessions
from pdsynth.data.pairs import Pairs
from pdsynth.data.prepare import prepare, prepare_cohort
from pdsynth.data.preprocessing import Preprocessing
from pdsynth.data.sessions import oracle_path
from pdsynth.imaging.intensity import brain_mask
from pdsynth.imaging.nifti import Volume
from pdsynth.imaging.spatial import mni_grid
from pdsynth.options import PrepareOptions
from pdsynth.types import Direction, InputError, Modality
from pdsynth.workers import Workers

BOLD, DWI = "sub-01/func/sub-01_task-rest_bold.nii.gz", "sub-01/dwi/sub-01_dwi.nii.gz"


def some(cohort: Cohort, *names: str) -> Cohort:
    """The cohort with few participants, where more would only take time."""
    return replace(cohort, subjects=[s for s in cohort.subjects if s.participant_id in names])


def rejected(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "rejected.tsv", sep="\t")


@pytest.fixture(scope="session")
def folder(pristine, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("out") / "prepared"
    prepare(bids(pristine.root), out, segments=2, split=(0.5, 0.25, 0.25), seed=3)
    return out


def test_rows_arrays_and_manifest(folder: Path, pristine) -> None:
    pairs = Pairs.open(folder)
    table = pairs.table
    assert table["segment"].tolist() == ["mean", "0", "1"] * 4
    assert table["index"].tolist() == [0, 1, 2] * 4
    assert table["shard"].tolist() == [f"sub-0{i}.npy" for i in (1, 2, 3, 4) for _ in range(3)]
    assert table.groupby("participant_id")["available"].first().tolist() == ["both", "both", "fmri", "dmri"]
    assert table["diagnosis"].tolist()[::3] == ["NC", "MCI", "AD", "NC"]
    assert table["dmri_bval"].eq(1000).all() and table["fmri_path"].iloc[0] == BOLD
    assert pairs.manifest["volumes"] == ["dmri", "dmri_brain", "fmri", "fmri_brain"]
    for name in pairs.manifest["volumes"]:
        volume = pairs.read(name, 0)
        assert volume.shape == (48, 56, 48) and volume.dtype == (bool if name.endswith("brain") else np.float16)
    assert not pairs.read("dmri", 6).any() and pairs.read("fmri", 6).any()
    assert not pairs.read("dmri_brain", 6).any() and pairs.read("dmri_brain", 6).dtype == bool
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["grid_shape"] == [48, 56, 48] and manifest["seed"] == 3 and manifest["simulated"] is False
    record = json.loads((folder / "sessions" / "sub-01.json").read_text())
    tables = {DWI.replace(".nii.gz", ending) for ending in (".bval", ".bvec")}
    assert set(record["inputs"]) == {BOLD, DWI} | tables and manifest["finished"]
    assert record["inputs"][BOLD]["sha256"] == sha256((pristine.root / BOLD).read_bytes()).hexdigest()


def test_segments_average_to_the_whole(folder: Path) -> None:
    pairs = Pairs.open(folder)
    for modality in Modality:
        native = [
            pairs.volume(modality, row) * float(pairs.table[f"{modality}_scale"].iloc[row]) for row in range(3)
        ]  # undo each row's own scale
        inside = pairs.brain(modality, 0) & (np.max([pairs.volume(modality, r) for r in range(3)], axis=0) < 0.98)
        np.testing.assert_allclose((native[1] + native[2])[inside] / 2, native[0][inside], rtol=5e-3, atol=1)


def test_both_scans_of_a_session_lie_on_each_other(folder: Path, pristine) -> None:
    for name, row in (("sub-01", 0), ("sub-02", 3)):
        fmri, dmri = (Pairs.open(folder).transform(m, row) for m in (Modality.FMRI, Modality.DMRI))
        assert list(dmri.steps) == ["rigid to fmri", "affine to MNI"]
        rigid = dmri.steps["rigid to fmri"][:3, :3]
        np.testing.assert_allclose(rigid @ rigid.T, np.eye(3), atol=1e-9)
        true = np.linalg.inv(pristine.truth[name, "fmri"]) @ pristine.truth[name, "dmri"]
        points = np.array([[x, y, z, 1] for x in (-50, 50) for y in (-80, 40) for z in (-20, 60)])
        error_mm = np.linalg.norm((points @ dmri.steps["rigid to fmri"].T - points @ true.T)[:, :3], axis=1)
        assert error_mm.max() < 3
        assert np.allclose(fmri.matrix, dmri.steps["affine to MNI"])


def test_splits_are_by_participant(folder: Path) -> None:
    splits = pd.read_csv(folder / "splits.tsv", sep="\t")
    assert splits["participant_id"].tolist() == ["sub-01", "sub-02", "sub-03", "sub-04"]
    assert Pairs.open(folder).table.groupby("participant_id")["split"].nunique().eq(1).all()


def test_jobs_do_not_change_the_result(folder: Path, pristine, tmp_path: Path) -> None:
    seen = []
    pairs = prepare(bids(pristine.root), tmp_path / "b", jobs=2, progress=lambda done, n: seen.append((done, n)))
    assert seen == [(0, 4), (1, 4), (2, 4), (3, 4), (4, 4)]
    one = Pairs.open(folder)
    for name in pairs.manifest["volumes"]:
        for row in range(4):
            np.testing.assert_array_equal(pairs.read(name, row), one.read(name, 3 * row))


def test_bad_scans_are_rows_and_the_rest_go_on(study) -> None:
    path = study.root / BOLD
    image = nib.load(path)
    data = image.get_fdata(dtype=np.float32)
    data[20, 20, 20, 2] = np.nan
    nib.save(nib.Nifti1Image(data, image.affine), path)
    broken = study.root / "sub-02/dwi/sub-02_dwi.nii.gz"
    broken.write_bytes(broken.read_bytes()[:50_000])
    (study.root / "sub-04/dwi/sub-04_dwi.bvec").unlink()
    out = study.root.parent / "out"
    pairs = prepare(bids(study.root), out)
    table = rejected(out).set_index("path")
    assert "1 non-finite voxels in volume 2" in table.loc[BOLD, "reason"]
    assert "truncated" in table.loc["sub-02/dwi/sub-02_dwi.nii.gz", "reason"]
    assert ".bvec" in table.loc["sub-04/dwi/sub-04_dwi.nii.gz", "remedy"]
    assert len(table) == 3 and table["remedy"].str.len().gt(5).all()
    assert pairs.table["available"].tolist() == ["dmri", "fmri", "fmri"]


def test_damage_that_a_header_does_not_show_is_a_row_too(study) -> None:
    path = study.root / BOLD
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2 : len(whole) // 2 + 64] = b"\xff" * 64
    path.write_bytes(whole)
    out = study.root.parent / "out"
    prepare(some(bids(study.root), "sub-01"), out)
    assert rejected(out)["path"].tolist() == [BOLD]


def test_an_unforeseen_error_is_a_row_too(study, monkeypatch) -> None:
    real = sessions.standardise

    def fails(scan, *settings):
        if scan.path.name == "sub-01_dwi.nii.gz":
            raise RuntimeError("something odd")
        return real(scan, *settings)

    monkeypatch.setattr(sessions, "standardise", fails)
    out = study.root.parent / "out"
    assert prepare(some(bids(study.root), "sub-01"), out).table["available"].iloc[0] == "fmri"
    assert rejected(out)["reason"].tolist() == ["something odd (RuntimeError)"]


def test_the_same_image_under_two_ids_is_refused_of_both(study) -> None:
    shutil.copytree(study.root / "sub-03", study.root / "sub-05")
    for path in (study.root / "sub-05").rglob("*.nii.gz"):
        path.rename(path.with_name(path.name.replace("sub-03", "sub-05")))
    out = study.root.parent / "out"
    pairs = prepare(some(bids(study.root), "sub-03", "sub-04", "sub-05"), out)
    assert pairs.table["participant_id"].tolist() == ["sub-04"]
    one, other = (f"sub-0{i}/func/sub-0{i}_task-rest_bold.nii.gz" for i in (3, 5))
    table = rejected(out).set_index("path")
    assert table["reason"].to_dict() == {
        one: f"holds the same image as {other}",
        other: f"holds the same image as {one}",
        "participants.tsv": "has no row for the participants sub-05",
    }


def test_two_sessions_of_one_name_stop_with_both_named(study) -> None:
    cohort = some(bids(study.root), "sub-03")
    (subject,) = cohort.subjects
    twice = replace(cohort, subjects=[subject, replace(subject, participant_id="SUB-03")])
    with pytest.raises(InputError, match=r"two sessions that are both called SUB-03: sub-03/func/.* and sub-03/func/"):
        prepare(twice, study.root.parent / "out")


def test_a_cluster_needs_absolute_paths(study, monkeypatch) -> None:
    cohort = some(bids(study.root), "sub-03")
    with pytest.raises(ValueError, match="absolute paths"):
        prepare_cohort(cohort, Path("out"), PrepareOptions(), Workers(dask="tcp://127.0.0.1:9"))


def test_no_usable_scan_stops_with_the_first_refusal(study) -> None:
    for path in study.root.rglob("*.nii.gz"):
        path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"holds no usable scan; the first refusal: .*dwi\.nii\.gz: is truncated"):
        prepare(bids(study.root), study.root.parent / "out")


def test_out_is_replaced_only_when_asked_and_only_if_it_is_ours(folder: Path, pristine, tmp_path: Path) -> None:
    cohort = some(bids(pristine.root), "sub-03")
    with pytest.raises(InputError, match=r"was prepared with split .*; with segments 2, not 1; with seed 3, not 0"):
        prepare(cohort, folder)
    foreign = tmp_path / "mine"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("x")
    with pytest.raises(InputError, match="not written by pdsynth"):
        prepare(cohort, foreign, overwrite=True)
    (tmp_path / "x.partial").mkdir()
    (tmp_path / "x.partial" / "thesis.txt").write_text("x")
    with pytest.raises(InputError, match=r"x\.partial: is not a workspace of pdsynth: it contains thesis\.txt"):
        prepare(cohort, tmp_path / "x")
    ours = Path(shutil.copytree(folder, tmp_path / "ours"))
    assert len(prepare(cohort, ours, overwrite=True)) == 1
    model = tmp_path / "model"
    with folders.making(model) as work, manifest.recorded(work.folder, "train"):
        (work.folder / "metrics.csv").write_text("")
    with pytest.raises(InputError, match=r"model: was not written by pdsynth prepare"):
        prepare(cohort, model)
    with pytest.raises(ValueError, match="segments=0"):
        prepare(cohort, tmp_path / "y", segments=0)


def test_denoising_without_dipy_names_the_extra_and_writes_nothing(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(means, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"install it by pip install 'pdsynth\[denoise\]'"):
        prepare(Cohort(tmp_path, []), tmp_path / "x", denoise=True)
    with pytest.raises(ValueError, match="dipy"):
        means.denoised(np.zeros((4, 6, 6, 6)))
    assert not any(tmp_path.iterdir())


def test_oracles_of_a_simulated_study_follow_their_targets(study) -> None:
    (study.root / "dataset_description.json").write_text(json.dumps({"Simulated": True}))
    for name, modality in study.truth:
        (scan,) = (study.root / name).rglob("*bold.nii.gz" if modality == "fmri" else "*dwi.nii.gz")
        image = nib.load(scan)
        weighted = [0, 1, 2, 3, 4, 5] if modality == "fmri" else [1, 2, 3, 4]
        mean = image.get_fdata()[..., weighted].mean(-1)
        inside = brain_mask(Volume(mean, image.affine))
        path = oracle_path(study.root, name, Modality(modality))
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image((mean / np.percentile(mean[inside], 99.5)).astype(np.float32), image.affine), path)
    cohort = some(bids(study.root), "sub-01")
    # the oracle is the target here, but for the p99.5 of two resolutions
    for intensity, most in (("flat-median", 0.001), ("percentile", 0.03)):
        preprocessing = Preprocessing(intensity=intensity)
        pairs = prepare(cohort, study.root.parent / intensity, preprocessing=preprocessing)
        assert pairs.simulated and pairs.preprocessing == preprocessing
        batch = pairs.batch(np.array([0]))
        for direction in Direction:
            error = (batch.oracle[direction] - batch.targets[direction])[batch.masks[direction] > 0]
            assert error.abs().mean() < most


def test_a_preprocessing_takes_the_place_of_its_options(folder: Path, pristine, tmp_path: Path) -> None:
    cohort = some(bids(pristine.root), "sub-03")
    earlier = Preprocessing(grid=mni_grid(8.0), intensity="percentile")
    with pytest.raises(ValueError, match="beside grid_mm, denoise or realign"):
        prepare(cohort, tmp_path / "out", grid_mm=8.0, preprocessing=earlier)
    pairs = prepare(cohort, tmp_path / "out", preprocessing=earlier)
    assert pairs.preprocessing == earlier and "intensity" not in pairs.manifest["preprocessing"]
    volume = pairs.volume(Modality.FMRI, 0)[pairs.brain(Modality.FMRI, 0)]
    assert np.mean(volume == 1) == pytest.approx(0.005, abs=0.002)
    with pytest.raises(InputError, match=r"was prepared with intensity percentile, not flat-median\. Remedy: choose"):
        prepare(cohort, tmp_path / "out", grid_mm=8.0)
    now = prepare(cohort, tmp_path / "now", grid_mm=8.0)
    assert now.manifest["preprocessing"]["intensity"] == "flat-median"
    with pytest.raises(InputError, match=r"was prepared with intensity flat-median, not percentile\. Remedy: choose"):
        prepare(cohort, tmp_path / "now", preprocessing=earlier)
