"""The joint map of real and synthesised scans, and how they part in the space that it is made from."""

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import cdist
from sklearn.metrics import silhouette_score

from pdsynth.evidence.embedding.compute import embed, separation


def cohort(n=24, regions=8, seed=0):
    generator = np.random.default_rng(seed)
    people = pd.DataFrame(
        {
            "participant_id": [f"sub-{i:02d}" for i in range(n)],
            "diagnosis": np.resize(np.array(["NC", "MCI", "AD"], object), n),
            "site": np.resize(np.array(["a", "a", "b", "b"], object), n),
        }
    )
    return generator.normal(0, 1, (n, regions)), people


def test_the_map_holds_every_scan_for_every_seed_and_perplexity():
    real, people = cohort()
    names = people["participant_id"]
    table = embed({"real": real, "pds": real + 5}, names, seeds=(0, 1))
    assert sorted(table["perplexity"].unique()) == [5, 15, 47 / 3]  # 30 is more than a third of the 48 scans
    assert len(table) == 2 * 3 * 48
    first = table[(table["seed"] == 0) & (table["perplexity"] == 5)]
    assert first[["origin", "participant"]].to_numpy().tolist() == [[o, p] for o in ("real", "pds") for p in names]
    x = first.groupby("origin")[["x", "y"]].mean()
    spread = first.groupby("origin")[["x", "y"]].std().to_numpy().mean()
    assert np.linalg.norm(x.loc["real"] - x.loc["pds"]) > 2 * spread  # embedded jointly: two islands
    again = embed({"real": real, "pds": real + 5}, names, seeds=(0, 1))
    pd.testing.assert_frame_equal(table, again)


def test_a_map_of_three_is_refused():
    with pytest.raises(ValueError, match="3 participant"):
        embed({"real": np.zeros((3, 2))}, ["a", "b", "c"])


def test_neighbours_are_other_participants_and_silhouettes_are_of_the_standardised_space():
    generator = np.random.default_rng(1)
    real, people = cohort(30)
    made = real + generator.normal(0, 0.3, real.shape)
    found = separation({"real": real, "pds": made}, people).set_index("by")
    values = np.concatenate([real, made])
    values = (values - values.mean(0)) / values.std(0)
    person = np.tile(np.arange(30), 2)
    distance = np.where(person[:, None] == person, np.inf, cdist(values, values))
    nearest = np.argsort(distance, axis=1)[:, :5]
    groups = np.repeat([0, 1], 30)  # five neighbours of two groups never tie
    voted = groups[nearest].mean(1) > 0.5
    assert found.loc["provenance", "knn_accuracy"] == pytest.approx(np.mean(voted == groups))
    sites = np.tile((people["site"] == "b").to_numpy(), 2)
    assert found.loc["site", "knn_accuracy"] == pytest.approx(np.mean((sites[nearest].mean(1) > 0.5) == sites))
    for by, labels in {"provenance": groups, "site": sites, "diagnosis": np.tile(people["diagnosis"], 2)}.items():
        assert found.loc[by, "silhouette"] == pytest.approx(silhouette_score(values, labels.astype(str)))
    assert found["chance"].to_dict() == pytest.approx({"diagnosis": 1 / 3, "site": 16 / 30, "provenance": 1 / 2})


def test_scans_that_can_be_told_apart_are():
    real, people = cohort()
    apart = separation({"real": real, "pds": real + 20}, people).set_index("by").loc["provenance"]
    assert apart["knn_accuracy"] == 1 and apart["silhouette"] > 0.7
    offset = 20 * (people["diagnosis"].to_numpy()[:, None] == np.array(["NC", "MCI", "AD"]))
    by_class = np.hstack([offset, real])
    told = separation({"real": by_class, "pds": by_class}, people).set_index("by").loc["diagnosis"]
    assert told["knn_accuracy"] == 1 and told["n"] == 48 and told["groups"] == 3


def test_the_unknown_are_left_out_and_one_site_parts_nothing():
    real, people = cohort()
    people["site"] = "a"
    people.loc[:5, "diagnosis"] = None
    found = separation({"real": real, "pds": real}, people).set_index("by")
    assert found.loc["diagnosis", "n"] == 2 * 18
    assert found.loc["site", ["silhouette", "knn_accuracy", "chance"]].isna().all()
