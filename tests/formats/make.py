"""Make a fixture of this folder: what one version of pdsynth writes about four SIMULATED people, as a .tar.xz.

    git clone -q . /scratch/older && git -C /scratch/older checkout -q COMMIT
    python tests/formats/make.py /scratch/older NAME --recipe population-mean

It runs the commands below with the source code of that clone, in an empty folder, and writes tests/formats/NAME.tar.xz
with prepared/, run/model/ and results/. What follows NAME are options of `train`. README.md names the commit and the
options of each fixture. No test runs this script.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

COMMANDS = (
    "simulate cohort --subjects 4 --quick --grid-mm 8 --missing-fmri 0 --missing-dmri 0 --seed 0",
    "prepare cohort prepared --grid-mm 8 --split 0.5,0,0.5 --seed 0",
    "train prepared run --seed 0 --device cpu",
    "evaluate prepared --model run/model --out results --no-controls --samples 0 --seed 0 --device cpu",
)
KEPT = ("prepared", "run/model", "results")
HERE = Path(__file__).parent


def plain(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """The entry with no owner and one time, so that equal files make an equal archive; None for a page of pictures."""
    if entry.name.endswith(".html"):
        return None
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = "root"
    entry.mtime = 1795910400
    return entry


def main(source: Path, name: str, *training: str) -> None:
    """Run the commands with the code of the clone `source`, and write NAME.tar.xz. training: options of `train`."""
    environment = os.environ | {"PYTHONPATH": str(source.resolve() / "src")}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for command in COMMANDS:
            words = [*command.split(), *(training if command.startswith("train") else ())]
            subprocess.run([sys.executable, "-m", "pdsynth", *words], cwd=folder, env=environment, check=True)
        with tarfile.open(HERE / f"{name}.tar.xz", "w:xz", preset=9) as archive:
            for kept in KEPT:
                archive.add(folder / kept, kept, filter=plain)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
