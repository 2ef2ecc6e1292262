"""Region means of the evaluated scans: what is written is what the volumes hold, and is read back the same."""

import numpy as np
import pandas as pd
import pytest

from pdsynth.api import fit_controls
from pdsynth.atlas import Atlas, evidence_regions, region_means
from pdsynth.evaluation.evaluate import evaluate
from pdsynth.results import patterns
from pdsynth.types import Direction, InputError, Modality


@pytest.fixture(scope="module")
def results(prepared, tmp_path_factory):
    out = tmp_path_factory.mktemp("results")
    evaluate(fit_controls(prepared.train, names=["population-mean", "copy-source"]), prepared.test, out, ceiling=False)
    return out


def test_patterns_are_the_region_means_of_the_volumes(prepared, results):
    found, atlas = patterns.read(results), evidence_regions(prepared.grid)
    assert found.methods == ["population-mean", "copy-source"]
    assert found.regions["name"].tolist() == atlas.names and found.regions["region"].tolist()[:2] == ["r1", "r2"]
    assert found.people["participant_id"].tolist() == prepared.test.table["participant_id"].tolist()
    assert found.people["diagnosis"].tolist() == prepared.test.table["diagnosis"].tolist()
    assert found.people["age"].tolist() == [70.0] * 4 and found.people["education"].isna().all()
    for direction in Direction:
        real, copied = found.pair("copy-source", direction)
        volumes = np.stack([prepared.test.volume(direction.target, row) for row in range(4)])
        np.testing.assert_allclose(real, region_means(volumes, atlas), rtol=2e-5, atol=1e-6)
        np.testing.assert_allclose(copied, found.values[direction.source, "real"], rtol=2e-5, atol=1e-6)
        assert np.ptp(found.pair("population-mean", direction)[1], axis=0).max() < 1e-6


def test_a_given_atlas_names_the_columns(prepared, tmp_path):
    labels = np.zeros(prepared.grid.shape, np.int16)
    labels[8:12, 10:14, 8:12] = 1
    atlas = Atlas(labels, ["core"], ["none"])
    methods = fit_controls(prepared.train, names=["population-mean"])
    evaluate(methods, prepared.test, tmp_path, ceiling=False, atlas=atlas)
    found = patterns.read(tmp_path)
    inside = np.indices(labels.shape)[:, labels > 0].mean(1) * 8 + [-94, -132, -78]
    assert found.regions["name"].tolist() == ["core"]
    np.testing.assert_allclose(found.regions[["x", "y", "z"]].to_numpy()[0], inside, atol=0.05)
    expected = [prepared.test.volume(Modality.FMRI, row)[labels > 0].mean() for row in range(4)]
    np.testing.assert_allclose(found.values[Modality.FMRI, "real"][:, 0], expected, rtol=2e-5)


def test_rows_chosen_stay_aligned(results):
    found = patterns.read(results)
    few = found.where(np.array([False, True, False, True]))
    assert few.people["participant_id"].tolist() == found.people["participant_id"].tolist()[1::2]
    for key, values in found.values.items():
        np.testing.assert_array_equal(few.values[key], values[1::2])


def test_a_changed_file_is_refused(results, tmp_path):
    with pytest.raises(InputError, match=r"patterns\.tsv: is missing"):
        patterns.read(tmp_path)
    (tmp_path / "regions.tsv").write_bytes((results / "regions.tsv").read_bytes())
    table = pd.read_csv(results / "patterns.tsv", sep="\t", keep_default_na=False)
    table.drop(columns="r7").to_csv(tmp_path / "patterns.tsv", sep="\t", index=False)
    with pytest.raises(InputError, match="lacks scans or columns"):
        patterns.read(tmp_path)
    table.drop(index=5).to_csv(tmp_path / "patterns.tsv", sep="\t", index=False)
    with pytest.raises(InputError, match="has other scans for"):
        patterns.read(tmp_path)
