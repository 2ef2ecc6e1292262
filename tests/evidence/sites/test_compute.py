"""What a site costs that was never seen."""

import numpy as np
import pytest

from pdsynth.evaluation.metrics import dilate, psnr
from pdsynth.evidence.sites.compute import leave_one_site_out
from pdsynth.evidence.sites.files import SITES
from pdsynth.types import Direction


def test_a_site_is_left_out_of_training_and_the_control_is_as_large(prepared):
    """The population mean's score is known: that of the mean over those whom it was trained on."""
    table = SITES.table(leave_one_site_out("population-mean", prepared, seed=3, device="cpu"))
    assert table[["site", "direction"]].to_numpy().tolist() == [[s, d.value] for s in "ab" for d in Direction]
    assert table["n_participants"].tolist() == [2] * 4
    train, test = prepared.train, prepared.test
    for _, row in table.iterrows():
        target = Direction(row["direction"]).target
        volumes = np.stack([train.volume(target, i) for i in range(len(train))])
        mean = volumes[(train.table["site"] != row["site"]).to_numpy()].mean(0)
        scores = [
            psnr(mean, test.volume(target, i), dilate(test.brain(target, i)))
            for i in np.flatnonzero(test.table["site"] == row["site"])
        ]
        assert row["psnr_unseen"] == pytest.approx(np.mean(scores), abs=1e-3)
        assert row["difference"] == pytest.approx(row["psnr_unseen"] - row["psnr_seen"])
        assert row["difference_low"] <= row["difference"] <= row["difference_high"]


def test_one_site_cannot_be_left_out(prepared):
    one = prepared.where(prepared.table["site"] == "a")
    with pytest.raises(ValueError, match="1 site"):
        leave_one_site_out("population-mean", one, device="cpu")
