"""A killed `prepare` leaves nothing under a final name; a folder that is unfinished or was changed is not opened."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pdsynth.cohorts.bids import bids
from pdsynth.data.pairs import Pairs
from pdsynth.data.prepare import prepare
from pdsynth.types import InputError

KILLED = """
import os, signal, sys
from pathlib import Path
from pdsynth.cohorts.bids import bids
from pdsynth.data.prepare import prepare
stop = lambda done, sessions: os.kill(os.getpid(), signal.SIGKILL)
cohort = bids(sys.argv[1])
cohort.subjects = cohort.subjects[2:3]
prepare(cohort, Path(sys.argv[2]), grid_mm=8, progress=stop)
"""


def test_a_killed_run_leaves_no_folder_and_the_next_one_is_whole(pristine, tmp_path: Path) -> None:
    out = tmp_path / "prepared"
    ended = subprocess.run([sys.executable, "-c", KILLED, str(pristine.root), str(out)], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert [p for p in tmp_path.iterdir() if not p.name.startswith(".prepared.")] == []
    cohort = bids(pristine.root)
    cohort.subjects = cohort.subjects[2:3]
    assert len(prepare(cohort, out, grid_mm=8)) == 1

    kept = {name: (out / name).read_bytes() for name in ("manifest.json", "splits.tsv", "fmri.npy")}
    unfinished = {k: json.loads(kept["manifest.json"])[k] for k in ("version", "command", "started")}
    spoilt = {
        "manifest.json": (json.dumps(unfinished).encode(), r"incomplete .*without a finished manifest\.json"),
        "splits.tsv": (kept["splits.tsv"].replace(b"train", b"test"), r"splits\.tsv: was changed"),
        "fmri.npy": (kept["fmri.npy"][:-100], r"fmri\.npy: is cut short"),
    }
    for name, (content, problem) in spoilt.items():
        (out / name).write_bytes(content)
        with pytest.raises(InputError, match=rf"{problem}.*Remedy: run `pdsynth prepare` again"):
            Pairs.open(out)
        (out / name).write_bytes(kept[name])
    assert len(Pairs.open(out)) == 1
    np.save(out / "dmri.npy", np.zeros((2, 3, 4, 5), np.float16))
    with pytest.raises(
        InputError, match=r"dmri\.npy: has shape \(2, 3, 4, 5\) where the tables and the grid say \(1, "
    ):
        Pairs.open(out)
