"""Scans that stand out are flagged, on the bad side only; what was measured of a session is written down."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdsynth.cohorts.bids import bids
from pdsynth.cohorts.cohort import Scan
from pdsynth.cohorts.scans import single_scan
from pdsynth.data.means import reported_motion, scan_brain, scan_means
from pdsynth.data.prepare import prepare
from pdsynth.data.preprocessing import Preprocessing
from pdsynth.data.quality import COLUMNS, deviations, quality_table
from pdsynth.types import Modality


def scans(overlaps: list[float], modality: str = "fmri") -> list[dict]:
    shared = {"session_id": "", "site": "x", "modality": modality, "path": "p", "coverage": 1.0}
    return [shared | {"participant_id": f"sub-{i}", "overlap": value} for i, value in enumerate(overlaps)]


def test_only_what_is_far_on_the_bad_side_is_flagged():
    usual = [0.90, 0.91, 0.92, 0.93, 0.94, 0.90, 0.91, 0.92, 0.93, 0.94]
    table = quality_table([*scans([*usual, 0.70, 0.999]), *scans([0.6, 0.7], "dmri")])
    flagged = table[table["flag"] != ""]
    assert flagged["participant_id"].tolist() == ["sub-10"]  # not the best one, nor one of two scans
    assert flagged["flag"].iloc[0] == "overlap 0.700 where others of its modality have 0.920"
    assert list(table.columns) == list(COLUMNS)
    moving = [row | {"motion_mm": 0.1 + 0.01 * i} for i, row in enumerate(scans(usual))]
    moving[3] |= {"motion_mm": 3.0, "overlap": 0.5}
    assert quality_table(moving)["flag"].iloc[3] == (
        "overlap 0.500 where others of its modality have 0.915; motion_mm 3.000 where others of its modality have 0.155"
    )


@given(
    st.lists(st.floats(-100, 100), min_size=10, max_size=40),
    st.floats(0.1, 10),
    st.floats(-100, 100),
)
def test_deviations_do_not_depend_on_unit_and_zero(values, unit, zero):
    values = np.round(values, 3)
    once, again = deviations(values), deviations(unit * values + zero)
    np.testing.assert_allclose(again, once, rtol=1e-6, atol=1e-6)
    assert np.median(once) == pytest.approx(0)


def test_deviations_of_a_normal_sample_have_unit_spread_and_gaps_are_zero():
    values = np.random.default_rng(0).normal(5, 2, 20_000)
    values[:50] = np.nan
    found = deviations(values)
    assert found[50:].std() == pytest.approx(1, abs=0.02) and not found[:50].any()
    assert not deviations(np.full(30, 3.0)).any()


def test_what_prepare_measures_of_each_scan(pristine, tmp_path):
    prepare(bids(pristine.root), tmp_path / "prepared")
    table = pd.read_csv(tmp_path / "prepared" / "quality.tsv", sep="\t").set_index(["participant_id", "modality"])
    assert len(table) == 6
    assert table["overlap"].between(0.9, 1).all() and table["coverage"].eq(1).all()
    assert table["mutual_information"].between(1.05, 2).all()
    known = table["correlation"].dropna()
    assert set(known.index) == {("sub-01", "dmri"), ("sub-02", "dmri")} and known.gt(0.5).all()


def test_a_scan_that_is_badly_placed_shares_less_with_the_template(pristine):
    from pdsynth.data.standardise import place, standard_brain
    from pdsynth.imaging.spatial import Transform

    scan, standard = single_scan(next(pristine.root.rglob("sub-01*_bold.nii.gz"))), Preprocessing()
    reference = scan_means(scan, standard).reference
    brain = scan_brain(scan, reference, standard)
    right = place(scan, reference, brain, standard)
    off = np.eye(4)
    off[:3, 3] = (0, 15, -12)
    good, bad = (standard_brain(reference, brain, standard, t)[1] for t in (right, right.then("off", off)))
    assert good.overlap > bad.overlap + 0.05
    assert good.mutual_information > bad.mutual_information + 0.02
    assert isinstance(right, Transform)


def test_corrections_change_the_mean_a_little_and_report_motion(pristine):
    bold = single_scan(next(pristine.root.rglob("sub-01*_bold.nii.gz")))
    plain, still = scan_means(bold, Preprocessing(), 2), scan_means(bold, Preprocessing(realign=True), 2)
    assert plain.motion_mm is None and still.motion_mm < 0.2  # nobody moved
    assert len(still.means) == 3 and still.means[0] is still.reference
    inside = plain.means[0].data > 400
    assert np.abs(still.means[0].data / plain.means[0].data - 1)[inside].mean() < 0.02
    dwi = single_scan(next(pristine.root.rglob("sub-01*_dwi.nii.gz")))
    plain, quiet = scan_means(dwi, Preprocessing()), scan_means(dwi, Preprocessing(denoise=True))
    assert (
        0 < np.abs(quiet.means[0].data - plain.means[0].data)[inside].mean() < 10
    )  # the noise has an SD of 8 a volume


def test_the_motion_that_fmriprep_reports(tmp_path):
    stem = "sub-01_task-rest_run-1"
    name = f"{stem}_space-MNI152NLin2009cAsym_res-2_desc-preproc_bold.nii.gz"
    scan = Scan(Modality.FMRI, tmp_path / name)
    assert reported_motion(scan) is None
    confounds = tmp_path / f"{stem}_desc-confounds_timeseries.tsv"
    confounds.write_text("framewise_displacement\tcsf\nn/a\t1\n0.1\t1\n0.3\t1\n")
    assert reported_motion(scan) == pytest.approx(0.2)
    for other in ("csf\n1\n", "framewise_displacement\nn/a\n", "framewise_displacement\nfast\n", ""):
        confounds.write_text(other)
        assert reported_motion(scan) is None
