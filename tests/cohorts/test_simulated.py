"""The cohort on disk: layout, labels, determinism, missing scans, truth and group effects."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from dipy.io.gradients import read_bvals_bvecs

from pdsynth.cohorts.simulated import bold, simulate
from pdsynth.cohorts.simulated.anatomy import Person, draw_anatomy, draw_person
from pdsynth.cohorts.simulated.session import means, simulate_session
from pdsynth.cohorts.simulated.sites import SITES
from pdsynth.types import Diagnosis, InputError


def digests(root: Path) -> dict[str, str]:
    files = sorted(p for p in root.rglob("*") if p.is_file())
    return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("cohort") / "sim"
    return simulate(out, 6, seed=1, missing_fmri=0.34, missing_dmri=0.17, quick=True)


def test_layout_is_bids_and_marked_simulated_everywhere(cohort: Path) -> None:
    for description in cohort.rglob("dataset_description.json"):
        content = json.loads(description.read_text())
        assert content["Simulated"] is True
        assert "SIMULATED" in content["Name"]
    for path in cohort.rglob("*.nii.gz"):
        assert b"SIMULATED" in nib.load(path).header["descrip"].item()
    for sidecar in [*cohort.glob("sub-*/*/*.json")]:
        assert json.loads(sidecar.read_text())["Simulated"] is True
    table = pd.read_csv(cohort / "participants.tsv", sep="\t")
    assert list(table.columns) == ["participant_id", "age", "sex", "site", "diagnosis"]
    assert set(table["diagnosis"]) == {"NC", "MCI", "AD"}
    assert not list(cohort.rglob("*.part"))


def test_missing_scans_have_the_given_fractions_and_their_means_are_in_the_truth(cohort: Path) -> None:
    truth = pd.read_csv(cohort / "derivatives/truth/truth.tsv", sep="\t", keep_default_na=False).set_index(
        "participant_id"
    )
    assert (truth["hidden"] == "fmri").sum() == 2
    assert (truth["hidden"] == "dmri").sum() == 1
    for name, row in truth.iterrows():
        func = list((cohort / name).glob("func/*_bold.nii.gz"))
        dwi = list((cohort / name).glob("dwi/*_dwi.nii.gz"))
        assert len(func) == (row["hidden"] != "fmri")
        assert len(dwi) == (row["hidden"] != "dmri")
        hidden = list((cohort / "derivatives/truth" / name).glob("*desc-hidden*"))
        assert len(hidden) == (row["hidden"] != "n/a")


def test_scans_have_the_sites_protocol(cohort: Path) -> None:
    table = pd.read_csv(cohort / "participants.tsv", sep="\t").set_index("participant_id")
    for path in cohort.glob("sub-*/func/*_bold.nii.gz"):
        site = SITES[table.loc[path.parts[-3], "site"].removesuffix("-like")]
        image = nib.load(path)
        zooms = image.header.get_zooms()
        assert zooms[:3] == pytest.approx(site.fmri.voxel_mm, abs=1e-3)
        assert zooms[3] == pytest.approx(site.fmri.t_r / 1000, abs=1e-4)
        assert image.shape[3] == 12
        sidecar = json.loads(path.with_name(path.name.replace(".nii.gz", ".json")).read_text())
        assert sidecar["EchoTime"] == pytest.approx(site.fmri.t_e / 1000)
    for path in cohort.glob("sub-*/dwi/*_dwi.nii.gz"):
        stem = str(path).removesuffix(".nii.gz")
        bvals, bvecs = read_bvals_bvecs(stem + ".bval", stem + ".bvec")
        assert nib.load(path).shape[3] == len(bvals) == 13
        assert set(bvals) == {0.0, 1000.0}
        np.testing.assert_allclose(np.linalg.norm(bvecs[bvals > 0], axis=1), 1, atol=1e-5)


def test_oracle_and_transform_lie_in_the_scans_own_geometry(cohort: Path) -> None:
    truth = cohort / "derivatives/truth"
    for kind, part, suffix in (("fmri", "func/*_bold", "boldref"), ("dmri", "dwi/*_dwi", "dwiref")):
        for path in cohort.glob(f"sub-*/{part}.nii.gz"):
            name, scan = path.parts[-3], nib.load(path)
            oracle = nib.load(truth / name / f"{name}_desc-oracle_{suffix}.nii.gz")
            assert oracle.shape == scan.shape[:3]
            np.testing.assert_allclose(oracle.affine, scan.affine)
            transform = np.array(json.loads((truth / name / f"{name}_xfm.json").read_text())[kind])
            assert np.cbrt(np.linalg.det(transform[:3, :3])) == pytest.approx(1, abs=0.12)
            data = np.asanyarray(scan.dataobj).astype(np.float32)
            if kind == "dmri":
                data = data[..., 1:]
            mean, best = data.mean(-1), oracle.get_fdata()
            inside = best > 0.3
            assert np.corrcoef(mean[inside], best[inside])[0, 1] > 0.7


def test_same_seed_same_bytes_for_any_number_of_jobs(cohort: Path, tmp_path: Path) -> None:
    again = simulate(tmp_path / "sim", 6, seed=1, missing_fmri=0.34, missing_dmri=0.17, quick=True, jobs=2)
    assert digests(again) == digests(cohort)


def test_more_subjects_and_other_seeds() -> None:
    kwargs = {"grid_mm": 4.0, "quick": True, "randomise": False, "oracle_draws": 0}
    first = simulate_session(1, 0, Diagnosis.NC, "hospital", **kwargs)
    other = simulate_session(2, 0, Diagnosis.NC, "hospital", **kwargs)
    assert not np.array_equal(first.dwi, other.dwi)


@pytest.mark.parametrize("private", [True, False])
def test_private_redraws_change_only_their_own_modality(monkeypatch: pytest.MonkeyPatch, private: bool) -> None:
    from pdsynth.cohorts.simulated import streams

    kwargs = {"grid_mm": 4.0, "quick": True, "randomise": False, "oracle_draws": 0}
    first = simulate_session(1, 3, Diagnosis.MCI, "oasis", **kwargs)
    original = streams.Streams.generator
    changed = {streams.FMRI_PRIVATE} if private else {streams.DMRI_PRIVATE}

    def redrawn(self: streams.Streams, stream: int, draw: int = 0) -> np.random.Generator:
        return original(self, stream, 99 if stream in changed else draw)

    monkeypatch.setattr(streams.Streams, "generator", redrawn)
    second = simulate_session(1, 3, Diagnosis.MCI, "oasis", **kwargs)
    assert np.array_equal(first.anatomy.gm, second.anatomy.gm)
    assert np.array_equal(first.bold, second.bold) is not private
    assert np.array_equal(first.dwi, second.dwi) is private


def test_group_effects_have_the_right_sign_and_size(cohort: Path) -> None:
    generator = np.random.default_rng(7)
    rows = []
    for i in range(18):
        person = draw_person(generator, list(Diagnosis)[i % 3])
        anatomy = draw_anatomy(generator, person, 4.0)
        hippocampus = anatomy.hippocampus > 0.5
        ventricles = ((anatomy.outside < -20) & (anatomy.csf > 0.5)).sum() * 0.027
        rows.append((person.severity, ventricles, anatomy.csf[hippocampus].mean(), anatomy.gm[hippocampus].sum()))
    severity, ventricles, fluid, grey = np.array(rows).T
    control, ill = severity < 0.3, severity > 0.7
    assert ventricles[ill].mean() > 1.2 * ventricles[control].mean()
    assert 0.1 < fluid[ill].mean() - fluid[control].mean() < 0.35
    assert grey[ill].mean() < 0.75 * grey[control].mean()


def test_atrophy_darkens_the_hippocampus_in_dwi_and_widens_ventricles() -> None:
    """The same person healthy and ill: the effect reaches the images, not only the maps."""
    from pdsynth.cohorts.simulated import session as module

    signals = {}
    for severity, growth in ((0.1, 0.3), (0.9, 2.7)):
        person = Person(Diagnosis.AD, 74.0, "F", severity, growth, 2 * severity)
        patch = pytest.MonkeyPatch()
        patch.setattr(module, "draw_person", lambda *_, p=person: p)
        made = simulate_session(3, 0, Diagnosis.AD, "adni", grid_mm=4.0, quick=True, randomise=False, oracle_draws=0)
        patch.undo()
        view = module.View(
            made.anatomy, made.acquisition.dmri.native, made.acquisition.dmri.to_template, made.acquisition.dmri.optics
        )
        hippocampus, ventricle = view.fractions(
            np.stack([made.anatomy.hippocampus, (made.anatomy.outside < -20) * made.anatomy.csf])
        )
        _, dwi = means(made)
        reference = np.median(dwi[view.fractions(made.anatomy.gm[None])[0] > 0.6])
        signals[severity] = dwi[hippocampus > 0.5].mean() / reference, float((ventricle > 0.5).sum())
    assert signals[0.9][0] < 0.95 * signals[0.1][0]
    assert signals[0.9][1] > 1.2 * signals[0.1][1]


def test_full_runs_fluctuate_with_the_sites_tsnr() -> None:
    made = simulate_session(2, 1, Diagnosis.NC, "oasis", grid_mm=8.0, quick=False, randomise=False, oracle_draws=0)
    assert made.bold.shape[3] == SITES["oasis"].fmri.volumes
    mean, sd = made.bold.mean(-1), made.bold.std(-1)
    bright = mean > np.percentile(mean, 85)
    assert 35 < np.median(mean[bright] / sd[bright]) < 110
    assert bold.FLUCTUATION < 0.02


def test_randomised_acquisitions_differ_between_subjects_and_scans() -> None:
    sessions = [
        simulate_session(1, i, Diagnosis.NC, "oasis", grid_mm=8.0, quick=True, randomise=True, oracle_draws=0)
        for i in range(6)
    ]
    protocols = [s.acquisition for s in sessions]
    assert len({p.fmri_protocol.t_e for p in protocols}) == 6
    assert len({p.dmri_protocol.bval for p in protocols}) >= 4
    assert all(700 <= p.dmri_protocol.bval <= 3000 for p in protocols)
    assert len({s.bold.shape[:3] for s in sessions}) >= 4
    assert any(p.fmri.optics.scalp > 0 for p in protocols)
    assert all(0 < s.dwi.max() < 32767 for s in sessions)


def test_bad_arguments_name_the_value_and_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'mars'; choose from oasis"):
        simulate(tmp_path / "a", 1, sites=["mars"])
    with pytest.raises(ValueError, match="0 subjects"):
        simulate(tmp_path / "a", 0)
    with pytest.raises(ValueError, match="at most 1"):
        simulate(tmp_path / "a", 2, missing_fmri=0.7, missing_dmri=0.7)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("x")
    with pytest.raises(InputError, match="not empty"):
        simulate(tmp_path / "full", 1)
