"""`pdsynth effects`: who is synthesised by whom, what is read, and that hidden scans come back in the figures."""

import json

import numpy as np
import pandas as pd
import pytest
from statsmodels.stats.multitest import multipletests

from pdsynth import fit
from pdsynth.atlas import evidence_regions, region_means
from pdsynth.cli import main
from pdsynth.data.pairs import Pairs
from pdsynth.evaluation.estimates import predictions
from pdsynth.evidence.group_effects import compute
from pdsynth.evidence.group_effects.compute import by_model, cross_fitted, group_effects, one_row_each
from pdsynth.statistics.rectified import rectified_difference
from pdsynth.types import Diagnosis, Direction

CONTRAST = (Diagnosis.AD, Diagnosis.NC)
FORWARD, BACKWARD = Direction.FMRI_TO_DMRI, Direction.DMRI_TO_FMRI


def run(*words):
    """The exit status of the command line."""
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    return ended.value.code


def hide(pairs, available):
    """The same folder with scans that count as missing, though their volumes still lie there."""
    table = pd.read_csv(pairs.root / "pairs.tsv", sep="\t", keep_default_na=False)
    table.assign(available=available).to_csv(pairs.root / "pairs.tsv", sep="\t", index=False)
    return Pairs.open(pairs.root)


@pytest.fixture(scope="module")
def cohort(make_prepared):
    """80 participants; a fifth lack the fMRI, two fifths the dMRI."""
    available = np.random.default_rng(0).permutation(["both", "fmri", "dmri", "fmri", "both"] * 16)
    return hide(make_prepared(80), available)


def test_nobody_is_synthesised_by_who_saw_them(cohort, tmp_path):
    """The models are fitted here anew, each without a fold, and their outputs put where they belong."""
    people = one_row_each(cohort, CONTRAST)
    made = cross_fitted("coarse-ridge", cohort, people, folds=3, seed=4, device="cpu")
    paired = cohort.where(cohort.table["available"] == "both")
    names = np.sort(paired.table["participant_id"])
    fold = pd.Series(np.random.default_rng(4).permutation(len(names)) % 3, names)
    methods = [
        fit("coarse-ridge", paired.where(paired.table["participant_id"].map(fold) != k), run=tmp_path / f"{k}", seed=4,
            device="cpu").method for k in range(3)
    ]  # fmt: skip
    atlas, available = evidence_regions(cohort.grid), people.table["available"].to_numpy()
    sites = people.table["site"].to_numpy()
    for direction, means in made.items():
        each = np.stack([region_means(predictions(m, people, direction), atlas) for m in methods])
        for site in "ab":  # each model's mean over those who lack the target there
            there = sites == site
            each[:, there] -= each[:, there & (available == direction.source.value)].mean(1, keepdims=True)
        for row, person in enumerate(people.table["participant_id"]):
            if available[row] == direction.target.value:
                assert np.isnan(means[row]).all()  # no source to go by
            else:
                expected = each[fold[person], row] if person in fold else each[:, row].mean(0)
                assert means[row] == pytest.approx(expected, abs=1e-5)


def test_a_site_s_mean_is_worth_nothing(cohort):
    """What a fold's model lacks at a site moves against that fold; it must not be taken for knowledge of persons."""
    people = one_row_each(cohort, CONTRAST)
    for direction, means in cross_fitted("site-mean", cohort, people, folds=8, device="cpu").items():
        synthesised = people.table["available"].ne(direction.target.value).to_numpy()
        assert np.ptp(means[synthesised], axis=0).max() < 1e-6


def test_what_is_missing_is_not_read(cohort, make_prepared):
    """Scrambling the volumes that count as missing changes nothing."""
    people = one_row_each(cohort, CONTRAST)
    made = cross_fitted("coarse-ridge", cohort, people, folds=2, device="cpu")
    other = hide(make_prepared(80), cohort.table["available"].tolist())
    for _, row in other.table.iterrows():
        if row["available"] != "both":
            lost = "dmri" if row["available"] == "fmri" else "fmri"
            path = other.root / "sessions" / row["shard"]
            volumes = np.load(path)
            volumes[lost] = np.random.default_rng(0).random(volumes[lost].shape)
            np.save(path, volumes)
    again = cross_fitted("coarse-ridge", Pairs.open(other.root), one_row_each(other, CONTRAST), folds=2, device="cpu")
    for direction in Direction:
        assert np.array_equal(made[direction], again[direction], equal_nan=True)


def test_a_model_synthesises_only_whom_it_never_saw(cohort, tmp_path):
    train = cohort.where(cohort.table["available"] == "both")
    model = fit("population-mean", train.where(np.arange(len(train)) < 10), run=tmp_path, device="cpu")
    people = one_row_each(cohort, CONTRAST)
    trained_on = set(train.table["participant_id"][:10])
    for direction, means in by_model(model, cohort, people).items():
        no_source = people.table["available"] == direction.target.value
        nothing = people.table["participant_id"].isin(trained_on) | no_source
        assert np.array_equal(np.isnan(means).all(1), nothing) and nothing.sum() > no_source.sum()


def test_another_session_in_training_counts(cohort, tmp_path):
    """A model that saw a participant's other session synthesises nothing of them."""
    train = cohort.where(cohort.table["available"] == "both")
    model = fit("population-mean", train.where(np.arange(len(train)) < 4), run=tmp_path, device="cpu")
    owner = dict(zip(train.table["participant_id"][:4], train.table["participant_id"][4:8], strict=True))
    table = cohort.table.assign(
        participant_id=cohort.table["participant_id"].replace(owner),
        session_id=np.where(cohort.table["participant_id"].isin(owner), "2", "1"),
    )
    both = Pairs(cohort.root, table, cohort.manifest, cohort.volumes)
    people = one_row_each(both, CONTRAST)
    twice = people.table["participant_id"].isin(owner.values()).to_numpy()
    assert (twice & (people.table["session_id"] == "1")).any()
    for means in by_model(model, both, people).values():
        assert np.isnan(means[twice]).all()


def test_a_model_that_saw_all_who_have_both_is_refused(cohort, tmp_path):
    train = cohort.where(cohort.table["available"] == "both")
    model = fit("population-mean", train, run=tmp_path, device="cpu")
    with pytest.raises(ValueError, match="trained on all participants who have both"):
        by_model(model, cohort, one_row_each(cohort, CONTRAST))


def test_where_nobody_lacks_the_target_nothing_is_synthesised(make_prepared):
    whole = make_prepared(20)
    people = one_row_each(whole, CONTRAST)
    made = cross_fitted("population-mean", whole, people, folds=2, device="cpu")
    assert all(np.isnan(means).all() for means in made.values())


def test_a_region_that_does_not_vary_has_no_effect(cohort, monkeypatch):
    """Its difference is a rounding error, and would be infinite in SD of real scans, which is 0."""

    def means(volumes, atlas):
        found = region_means(volumes, atlas)
        found[:, 0] = 1 / 3
        return found

    monkeypatch.setattr(compute, "region_means", means)
    people = one_row_each(cohort, CONTRAST)
    nothing = {d: np.full((len(people), len(evidence_regions(people.grid))), np.nan) for d in Direction}
    effects = group_effects(people, nothing, CONTRAST)
    d = np.array([row.d for row in effects.regions]).reshape(2, -1)
    for measured in (d, np.stack([effects.real_alone_d[direction.target] for direction in Direction])):
        assert np.isnan(measured[:, 0]).all() and np.isfinite(measured[:, 1]).all()


def test_a_row_each_prefers_a_session_with_both(make_prepared):
    pairs = make_prepared(10)
    table = pd.concat([pairs.table.assign(session_id="1", available="fmri"), pairs.table.assign(session_id="2")])
    rows = one_row_each(Pairs(pairs.root, table, pairs.manifest, pairs.volumes), CONTRAST).table
    assert rows["session_id"].tolist() == ["2"] * 8 and set(rows["diagnosis"]) == {"AD", "NC"}


def test_the_verb(cohort, tmp_path, capsys):
    """Its table is what the functions give; a synthesised scan of the ridge is worth something, the mean's nothing."""
    assert run("effects", cohort.root, "--out", tmp_path / "out", "--folds", "3") == 0
    assert "SIMULATED" in capsys.readouterr().out
    table = pd.read_csv(tmp_path / "out" / "group_effects.tsv", sep="\t")
    summary = pd.read_csv(tmp_path / "out" / "group_effects_summary.tsv", sep="\t").set_index("target")
    people = one_row_each(cohort, CONTRAST)
    made = cross_fitted("local-ridge", cohort, people, folds=3)
    groups, sites = people.table["diagnosis"].tolist(), people.table["site"].tolist()
    for direction in Direction:
        has = people.table["available"].isin(["both", direction.target.value]).to_numpy()
        volumes = np.stack([people.volume(direction.target, row) for row in range(len(people))])
        real = np.where(has[:, None], region_means(volumes, evidence_regions(cohort.grid)), np.nan)
        found = rectified_difference(real, made[direction], groups, CONTRAST, sites)
        rows = table[table["target"] == direction.target.value]
        assert rows["difference"].to_numpy() == pytest.approx(found.difference, rel=1e-4, abs=1e-6)
        assert rows["worth"].to_numpy() == pytest.approx(found.worth, rel=1e-4, abs=1e-6)
        known = rows["p"].notna()
        assert known.mean() > 0.9
        assert rows["q"][known].to_numpy() == pytest.approx(multipletests(found.p[known], method="fdr_bh")[1], rel=1e-4)
        row = summary.loc[direction.target.value]
        assert row["n_real"] == has.sum()
        assert row["n_both"] + row["n_synthesised"] == np.isfinite(made[direction]).all(1).sum()
        assert row["worth"] > 0.1 and row["width"] < 0.99
        assert (tmp_path / "out" / f"group_effects_{direction.target}.png").stat().st_size > 10_000
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["command"] == "effects"
    words = ["effects", cohort.root, "--out", tmp_path / "mean", "--folds", "3", "--recipe", "population-mean"]
    assert run(*words) == 0
    mean = pd.read_csv(tmp_path / "mean" / "group_effects_summary.tsv", sep="\t")
    assert "are not used: they carry no information about individuals" in capsys.readouterr().out
    assert (mean["worth"] == 0).all() and mean["width"].to_numpy() == pytest.approx(1)


@pytest.mark.parametrize("groups", ["AD", "AD,AD", "AD,NC,MCI", "AD,healthy"])
def test_groups_must_be_two_diagnoses(cohort, tmp_path, capsys, groups):
    assert run("effects", cohort.root, "--out", tmp_path / "out", "--groups", groups) == 2
    assert "two diagnoses" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_group_that_is_not_there_is_named(make_prepared, tmp_path, capsys):
    pairs = make_prepared(10)
    table = pd.read_csv(pairs.root / "pairs.tsv", sep="\t", keep_default_na=False)
    table.assign(diagnosis="n/a").to_csv(pairs.root / "pairs.tsv", sep="\t", index=False)
    assert run("effects", pairs.root, "--out", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert "0 participants of AD and 0 participants of NC" in error and "--groups" in error
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_checked_or_folded_is_refused(cohort, tmp_path, capsys):
    model = fit("population-mean", cohort.train, run=tmp_path / "run", device="cpu")
    config = tmp_path / "run" / "model" / "config.json"
    entries = json.loads(config.read_text())
    assert entries["card"].pop("scans_sha256") == model.card["scans_sha256"]
    config.write_text(json.dumps(entries))
    words = ["effects", cohort.root, "--out", tmp_path / "out"]
    assert run(*words, "--model", tmp_path / "run" / "model") == 2
    assert "does not name the scans" in capsys.readouterr().err
    assert run(*words, "--folds", "99") == 2
    assert "99 folds. Take --folds" in capsys.readouterr().err
    assert run(*words, "--recipe", "nope") == 2
    assert "no recipe 'nope'" in capsys.readouterr().err
    assert run(*words, "--recipe", "unet") == 2
    assert "--budget 10m" in capsys.readouterr().err
    assert run(*words, "--recipe", "unet", "--model", "default") == 2
    assert "--model names a trained model" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_groups_at_sites_of_their_own_are_refused(make_prepared, tmp_path, capsys):
    pairs = make_prepared(20)
    table = pd.read_csv(pairs.root / "pairs.tsv", sep="\t", keep_default_na=False)
    table.assign(site=table["diagnosis"]).to_csv(pairs.root / "pairs.tsv", sep="\t", index=False)
    assert run("effects", pairs.root, "--out", tmp_path / "out") == 2
    assert "no site with real fmri scans of both AD and NC" in capsys.readouterr().err
