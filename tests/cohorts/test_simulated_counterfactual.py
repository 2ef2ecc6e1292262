"""The same person at two severities: what changes, what does not, and that real scans of other people agree."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from pdsynth.atlas import region_means
from pdsynth.cohorts.bids import bids
from pdsynth.cohorts.simulated.anatomy import draw_person
from pdsynth.cohorts.simulated.counterfactual import (
    TrueEffects,
    counterfactual_session,
    standard_means,
    true_effects,
    write_counterfactuals,
)
from pdsynth.cohorts.simulated.session import Session, simulate_session
from pdsynth.cohorts.simulated.sites import SEVERITY
from pdsynth.imaging.intensity import TOP
from pdsynth.imaging.nifti import Volume
from pdsynth.imaging.spatial import mni_grid, resample
from pdsynth.types import Diagnosis, InputError, Modality

GRID = mni_grid(4.0)
EFFECT = np.diff([SEVERITY[Diagnosis.NC][0], SEVERITY[Diagnosis.AD][0]])[0]


@pytest.fixture(scope="module")
def pair() -> tuple[Session, Session]:
    return counterfactual_session(3, 0, "oasis", 0.1), counterfactual_session(3, 0, "oasis", 0.85)


def on_grid(session: Session, name: str) -> np.ndarray:
    return resample(Volume(getattr(session.anatomy, name), session.anatomy.grid.affine), GRID)


def test_person_keeps_their_own_draws_and_follows_severity(pair: tuple[Session, Session]) -> None:
    low, high = (session.person for session in pair)
    assert (low.age, low.sex) == (high.age, high.sex)
    assert (low.severity, high.severity) == (0.1, 0.85)
    assert high.ventricle_mm - low.ventricle_mm == pytest.approx(3.0 * EFFECT)
    assert high.hippocampus_mm - low.hippocampus_mm == pytest.approx(2.0 * EFFECT)
    drawn = draw_person(np.random.default_rng(5), Diagnosis.MCI)
    same = draw_person(np.random.default_rng(5), Diagnosis.AD, drawn.severity)
    assert (same.age, same.sex, same.ventricle_mm) == (drawn.age, drawn.sex, drawn.ventricle_mm)


def test_the_random_severity_given_explicitly_changes_nothing() -> None:
    kwargs = {"grid_mm": 6.0, "quick": True, "randomise": False, "oracle_draws": 0}
    drawn = simulate_session(2, 1, Diagnosis.MCI, "adni", **kwargs)
    given = counterfactual_session(2, 1, "adni", drawn.person.severity, grid_mm=6.0)
    assert np.array_equal(drawn.bold, given.bold)
    assert np.array_equal(drawn.dwi, given.dwi)


def test_ventricles_and_hippocampi_change_and_skull_and_pose_do_not(pair: tuple[Session, Session]) -> None:
    low, high = pair
    for scan in ("fmri", "dmri"):
        a, b = getattr(low.acquisition, scan), getattr(high.acquisition, scan)
        assert np.array_equal(a.to_template, b.to_template)
        assert a.optics == b.optics and a.native == b.native
    np.testing.assert_array_equal(low.anatomy.eye, high.anatomy.eye)
    np.testing.assert_allclose(low.anatomy.scalp, high.anatomy.scalp, atol=0.01)
    before, after = standard_means(low, GRID), standard_means(high, GRID)
    deep = on_grid(low, "outside") < -20
    grown = deep & (on_grid(high, "csf") - on_grid(low, "csf") > 0.3)
    hippocampus, scalp = on_grid(low, "hippocampus") > 0.5, on_grid(low, "scalp") > 0.5
    assert grown.sum() >= 20 and hippocampus.sum() > 50 and scalp.sum() > 1000
    fmri, dmri = (TOP * (after[m] - before[m]) for m in Modality)  # in units of the median in the brain
    assert fmri[grown].mean() > 0.05, "fluid is bright in BOLD"
    assert dmri[grown].mean() < -0.051, "and dark under diffusion weighting"
    assert fmri[hippocampus].mean() > 0.017
    assert dmri[hippocampus].mean() < -0.051
    assert np.abs(fmri[scalp]).mean() < 0.008


def digests(root: Path, session: str) -> dict[str, bytes]:
    files = [p for p in root.rglob(f"*{session}_*") if p.is_file()]
    return {p.name.replace(session, "ses"): p.read_bytes() for p in files}


def test_equal_severities_write_equal_bytes_and_others_do_not(tmp_path: Path) -> None:
    equal = write_counterfactuals(tmp_path / "equal", 1, seed=4, sites=["hospital"], severities=(0.4, 0.4), grid_mm=8.0)
    low, high = digests(equal, "ses-low"), digests(equal, "ses-high")
    assert len(low) == 7  # bold, dwi, their sidecars, bval, bvec, xfm
    assert low == high
    other = write_counterfactuals(tmp_path / "other", 1, seed=4, sites=["hospital"], severities=(0.4, 0.9), grid_mm=8.0)
    assert digests(other, "ses-low") == low
    changed = {name for name, content in digests(other, "ses-high").items() if content != low[name]}
    assert {name.split("_")[-1] for name in changed} == {"bold.nii.gz", "dwi.nii.gz"}


def test_a_dataset_with_two_sessions_per_person_is_marked_simulated(tmp_path: Path) -> None:
    root = write_counterfactuals(tmp_path, 3, seed=1, sites=["oasis", "adni"], grid_mm=8.0)
    cohort = bids(root)
    assert cohort.simulated and not cohort.rejected
    assert [s.site for s in cohort.subjects] == ["oasis-like", "adni-like", "oasis-like"]
    for subject in cohort.subjects:
        assert sorted(session.session_id for session in subject.sessions) == ["ses-high", "ses-low"]
        assert all(set(session.scans) == set(Modality) and session.diagnosis is None for session in subject.sessions)
    truth = pd.read_csv(root / "derivatives/truth/truth.tsv", sep="\t")
    assert truth["severity"].tolist() == [0.1, 0.85] * 3
    assert truth["diagnosis"].tolist() == ["NC", "AD"] * 3
    assert (truth.groupby("participant_id")["age"].nunique() == 1).all()
    for description in root.rglob("dataset_description.json"):
        assert json.loads(description.read_text())["Simulated"] is True
    images = list(root.rglob("*.nii.gz"))
    assert len(images) == 12
    assert all(b"SIMULATED" in nib.load(path).header["descrip"].item() for path in images)


def test_bad_arguments_name_the_value_and_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"severity is 1\.2; give a value from 0"):
        counterfactual_session(0, 0, "oasis", 1.2)
    with pytest.raises(ValueError, match="severity is -1"):
        write_counterfactuals(tmp_path / "a", 1, severities=(-1, 0.5))
    with pytest.raises(ValueError, match="'mars'; choose from oasis"):
        write_counterfactuals(tmp_path / "a", 1, sites=["mars"])
    assert not (tmp_path / "a").exists()
    (tmp_path / "kept").write_text("mine")
    with pytest.raises(InputError, match="not empty"):
        write_counterfactuals(tmp_path, 1)
    with pytest.raises(ValueError, match="at least 2"):
        true_effects(1)


@pytest.fixture(scope="module")
def effects() -> TrueEffects:
    return true_effects(6, seed=105, sites=["oasis"])


def test_effects_are_those_of_the_persons_two_scans(effects: TrueEffects) -> None:
    low, high = (standard_means(counterfactual_session(105, 2, "oasis", s), GRID) for s in effects.severities)
    for modality in Modality:
        change = region_means(high[modality], effects.atlas) - region_means(low[modality], effects.atlas)
        np.testing.assert_allclose(effects.changes[modality][2], change, atol=1e-7)
        np.testing.assert_allclose(effects.mean(modality), effects.changes[modality].mean(0))
        np.testing.assert_allclose(effects.standard_error(modality), stats.sem(effects.changes[modality], axis=0))
    hippocampus = [i for i, name in enumerate(effects.atlas.names) if "hippocampus" in name]
    t = effects.mean(Modality.DMRI) / effects.standard_error(Modality.DMRI)
    assert len(hippocampus) == 4 and (t[hippocampus] < -4).all()
    assert (effects.mean(Modality.FMRI)[hippocampus] > 0).all()


@pytest.mark.slow
def test_scans_of_different_people_show_the_simulated_effect(effects: TrueEffects) -> None:
    """Slope of the difference between NC and AD scans on the true pattern of changes."""
    people, patterns = [], []
    for i in range(18):
        group = (Diagnosis.NC, Diagnosis.AD)[i % 2]
        made = simulate_session(5, i, group, "oasis", grid_mm=4.0, quick=True, randomise=False, oracle_draws=0)
        people.append(made.person)
        patterns.append([region_means(volume, effects.atlas) for volume in standard_means(made, GRID).values()])
    severity, age = np.array([(person.severity, person.decades) for person in people]).T
    x = np.column_stack([severity / EFFECT, age, np.ones(len(people))])
    for modality, values in zip(Modality, np.stack(patterns, axis=1), strict=True):
        centred = effects.mean(modality) - effects.mean(modality).mean()  # blind to each scan's overall brightness
        estimate, low, high = _slope(x, values @ centred / (centred @ centred))
        assert 0 < low < 1 < high, f"{modality}: {estimate:.2f} ({low:.2f} to {high:.2f}) of the effect put in"


def _slope(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
    """First coefficient of a least-squares fit with its 95 % t interval."""
    coefficients, squares, rank, _ = np.linalg.lstsq(x, y, rcond=None)
    freedom = len(x) - rank
    half = stats.t.ppf(0.975, freedom) * np.sqrt(squares[0] / freedom * np.linalg.inv(x.T @ x)[0, 0])
    return coefficients[0], coefficients[0] - half, coefficients[0] + half
