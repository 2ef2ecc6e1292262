"""A Slurm for tests: sbatch, srun, squeue and scancel as scripts that run the jobs as processes of this machine.

A mode says what happens to a job: "runs", "refused" (with a message of sbatch), "waits" (it never starts) or "fails"
(it ends at once with status 3). A file of delays says when jobs are killed: each job that starts takes the next one.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

REFUSAL = "sbatch: error: Batch job submission failed: Invalid account or account/partition combination specified"
SCRIPTS = {
    "sbatch": r"""
mode=$(cat "$FAKE/mode")
if [ "$mode" = refused ]; then echo "$REFUSAL" >&2; exit 1; fi
cp "$1" "$FAKE/last.sh"
setting() { sed -n "s/^#SBATCH --$1=//p" "$FAKE/last.sh" | tr -d "'"; }
job=1; until mkdir "$FAKE/jobs/$job" 2>/dev/null; do job=$((job + 1)); done
cp "$1" "$FAKE/jobs/$job/script"
array=$(setting array); range=${array%%\%*}; last=${range#0-}
if [ -n "$array" ]; then ids=$(seq -f "${job}_%.0f" 0 "$last"); else ids=$job; fi
for id in $ids; do echo "$(setting job-name)|PENDING|Priority" > "$FAKE/queue/$id"; done
if [ "$mode" != waits ]; then
    atonce=${array##*\%}
    echo "$ids" | setsid xargs -P "${atonce:-1}" -I{} "$FAKE/bin/one" {} "$mode" > /dev/null 2>&1 &
fi
echo "Submitted batch job $job"
""",
    "one": r"""
id=$1; job=${id%%_*}
[ -f "$FAKE/queue/$id" ] || exit 0  # cancelled
sed -i 's/|.*/|RUNNING|None/' "$FAKE/queue/$id"
export SLURM_JOB_ID=$job SLURM_NTASKS=1 SLURM_JOB_NUM_NODES=1 SLURM_NODEID=0 SLURM_PROCID=0 SLURM_LOCALID=0
case $id in *_*) export SLURM_ARRAY_JOB_ID=$job SLURM_ARRAY_TASK_ID=${id#*_};; esac
if [ "$2" = runs ]; then
    setsid bash "$FAKE/jobs/$job/script" > "$FAKE/jobs/$job/out.${id#*_}" 2>&1 &
    pid=$!; echo $pid > "$FAKE/jobs/$job/pid.$id"
    delay=$(flock "$FAKE/kills" sh -c 'head -n 1 "$FAKE/kills"; sed -i 1d "$FAKE/kills"')
    if [ -n "$delay" ]; then (sleep "$delay"; kill -9 -$pid && echo hit >> "$FAKE/hits") & fi
    wait $pid
fi
rm -f "$FAKE/queue/$id"
""",
    "srun": r"""
while [ "${1#--}" != "$1" ]; do
    case $1 in --output) out=$2; shift;; --error) err=$2; shift;; esac; shift
done
id=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}; id=${id:-$SLURM_JOB_ID}
name() { echo "$1" | sed "s/%A_%a/$id/; s/%j/$id/; s/%t/0/"; }
exec "$@" > "$(name "$out")" 2> "$(name "$err")"
""",
    "squeue": r"""
if [ -f "$FAKE/down" ]; then echo "slurm_load_jobs error: Unable to contact slurm controller" >&2; exit 1; fi
for word in "$@"; do case $word in --name=*) name=${word#--name=};; esac; done
cd "$FAKE/queue" && for id in *; do
    [ -f "$id" ] && sed -n "s/^$name|/$id|/p" "$id"
done; true
""",
    "scancel": r"""
echo "$@" >> "$FAKE/cancelled"
for word in "$@"; do case $word in --name=*) name=${word#--name=};; esac; done
cd "$FAKE/queue" && for id in *; do
    if grep -qs "^$name|" "$id"; then
        rm -f "$id"; pid=$(cat "$FAKE/jobs/${id%%_*}/pid.$id" 2>/dev/null) && kill -9 -"$pid"
    fi
done; true
""",
}


@dataclass(frozen=True)
class FakeSlurm:
    """The folder of a fake Slurm. environment: that of a process that finds it on its PATH."""

    folder: Path

    @classmethod
    def at(cls, folder: Path, mode: str = "runs", kills: Sequence[float] = ()) -> FakeSlurm:
        for name in ("bin", "jobs", "queue"):
            (folder / name).mkdir(parents=True)
        for name, script in SCRIPTS.items():
            path = folder / "bin" / name
            path.write_text(f"#!/bin/bash\nexport FAKE={folder} REFUSAL='{REFUSAL}'\n{script}")
            path.chmod(0o755)
        (folder / "mode").write_text(mode)
        (folder / "kills").write_text("".join(f"{seconds}\n" for seconds in kills))
        return cls(folder)

    @property
    def environment(self) -> dict[str, str]:
        source = Path(__file__).parents[1] / "src"
        paths = os.pathsep.join([str(source), str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
        return {"PATH": f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": paths}

    @property
    def script(self) -> str:
        """The last submitted script."""
        return (self.folder / "last.sh").read_text()

    def submitted(self) -> int:
        """Number of submissions."""
        return len(list((self.folder / "jobs").iterdir()))

    def queue(self) -> list[str]:
        """Ids of the jobs that wait or run."""
        return sorted(path.name for path in (self.folder / "queue").iterdir())


def square(path: Path) -> int:
    """Write the square of the number in the name of a path to a file; returns it."""
    time.sleep(0.05)
    number = int(path.name) ** 2
    (path.parent / f"{path.name}.done").write_text(str(number))
    return number


def fail(path: Path) -> int:
    if path.name == "2":
        raise ValueError(f"{path.name} is odd")
    return square(path)


def always_killed_at_2(path: Path) -> int:
    if path.name == "2":
        os.kill(os.getpid(), 9)
    return square(path)


def locked(path: Path) -> object:
    """A result that no other process can receive."""
    return threading.Lock()
