"""Shared by all tests: one thread a process, no deadlines on a busy machine, real scans, a small prepared folder."""

from __future__ import annotations

import json
import os
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# This file is imported before any test, so before numpy and torch read these.
for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(threads, "1")

SHAPE = (24, 28, 24)  # of the prepared folder

settings.register_profile("tests", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")


@pytest.fixture(autouse=True)
def _no_lines_of_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a command prints in a test does not depend on how busy the machine is."""
    monkeypatch.setattr("pdsynth.progress.FIRST", 3600.0)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real scans: $PDSYNTH_REAL_DATA, or shared/data beside the repository. Skips where it is absent."""
    folder = Path(os.environ.get("PDSYNTH_REAL_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("no real scans here; set PDSYNTH_REAL_DATA to their folder")
    return folder


def write_prepared(root, participants=10, seed=0, test=4):
    """A prepared folder made without a scan: smooth volumes whose two modalities share half of their variance.

    Writes pairs.tsv, splits.tsv, manifest.json and shards; the last `test` participants are the test split.
    """
    import numpy as np  # these are imported late, as they read the variables above
    import pandas as pd
    from scipy import ndimage

    from pdsynth.data.pairs import Pairs
    from pdsynth.data.shards import FOLDER, write_shard

    generator = np.random.default_rng(seed)
    axes = np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE], indexing="ij")
    brain = sum(np.square(a) for a in axes) < 0.7

    def smooth():
        field = ndimage.gaussian_filter(generator.standard_normal(SHAPE), 2)
        return field / field.std()

    fixed, sizes = smooth(), {}
    ids = [f"sub-{i:02d}" for i in range(participants)]
    (root / FOLDER).mkdir()
    for person in ids:
        shared, volumes = smooth(), {"fmri_brain": brain, "dmri_brain": brain}
        for name, sign in (("fmri", 1), ("dmri", -1)):
            known = 0.5 + 0.1 * fixed + 0.1 * sign * shared
            volumes[f"oracle_{name}"] = (np.clip(known, 0, 1) * brain).astype(np.float16)
            volumes[name] = (np.clip(known + 0.03 * smooth(), 0, 1) * brain).astype(np.float16)
        sizes[f"{person}.npy"] = write_shard(root / FOLDER / f"{person}.npy", [volumes])
        inputs = {
            f"{person}/{m}": {"sha256": sha256(f"{seed}{person}{m}".encode()).hexdigest()} for m in ("fmri", "dmri")
        }
        (root / FOLDER / f"{person}.json").write_text(json.dumps({"inputs": inputs}))
    table = pd.DataFrame(
        {
            "shard": list(sizes),
            "index": 0,
            "participant_id": ids,
            "session_id": "",
            "segment": "mean",
            "site": ["a", "b"] * (participants // 2),
            "diagnosis": ["NC", "MCI", "AD", "NC", "AD"] * (participants // 5),
            "dx_gap_days": "n/a",
            "scan_gap_days": 0,
            "age": 70.0,
            "sex": "F",
            "education": "n/a",
            "mmse": "n/a",
            "moca": "n/a",
            "available": "both",
            "fmri_path": [f"{person}/fmri" for person in ids],
            "dmri_path": [f"{person}/dmri" for person in ids],
            "dmri_bval": 1000.0,
            "fmri_scale": 1.0,
            "dmri_scale": 1.0,
        }
    )
    table.to_csv(root / "pairs.tsv", sep="\t", index=False)
    split = ["train"] * (participants - test) + ["test"] * test
    pd.DataFrame({"participant_id": ids, "split": split, "sha256": ""}).to_csv(
        root / "splits.tsv", sep="\t", index=False
    )
    affine = np.diag([8.0, 8.0, 8.0, 1.0])
    affine[:3, 3] = (-94, -132, -78)
    manifest = {"grid_shape": SHAPE, "grid_affine": affine.tolist(), "simulated": True}
    manifest |= {"volumes": sorted(volumes), "shards": sizes}
    (root / "manifest.json").write_text(json.dumps(manifest))
    return Pairs.open(root)


@pytest.fixture(scope="session")
def make_prepared(tmp_path_factory):
    """Another folder of simulated pairs, of as many participants as a test needs."""
    return lambda participants, seed=0, test=4: write_prepared(
        tmp_path_factory.mktemp("prepared"), participants, seed, test
    )


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    """Simulated pairs of 10 participants at two sites, with oracles."""
    return write_prepared(tmp_path_factory.mktemp("prepared"))
