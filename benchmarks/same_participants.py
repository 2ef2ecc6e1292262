"""Every method on the same participants: trained on 200, scored on 60 others, each with the same wall time.

The cohort (SIMULATED):
    pdsynth simulate bids --subjects 300 --quick --seed 2026
    pdsynth prepare bids prepared --split 0.667,0.133,0.2
Then, in one process or several at once (a method that is trained already is left alone):
    python benchmarks/same_participants.py prepared runs --budget 12m --train pds unet
    python benchmarks/same_participants.py prepared runs --score
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
from pathlib import Path
from typing import Any

from pdsynth import api
from pdsynth.data.pairs import Pairs
from pdsynth.methods import checkpoint
from pdsynth.recipes import RECIPES
from pdsynth.types import Direction

TRAIN, TEST = 200, 60
RESULTS = Path(__file__).parent / "results"
COLUMNS = {
    "psnr_brain": "PSNR brain, dB",
    "psnr_brain_affine": "after affine, dB",
    "ssim_brain": "SSIM brain",
    "psnr_full": "PSNR full, dB",
    "shuffled_source_psnr_brain": "sources shuffled, dB",
    "identification_rate": "identified",
    "seconds_per_volume": "s a volume",
}


def first(pairs: Pairs, participants: int) -> Pairs:
    """The pairs of the first participants by id."""
    kept = sorted(set(pairs.table["participant_id"]))[:participants]
    if len(kept) < participants:
        raise SystemExit(f"{len(kept)} participants, {participants} are needed: prepare a larger cohort")
    return pairs.where(pairs.table["participant_id"].isin(kept))


def cell(value: Any) -> str:
    """A figure with its interval where it has one."""
    if isinstance(value, dict):
        low, high = value["ci95"]
        return f"{value['mean']:.2f} [{low:.2f}, {high:.2f}]"
    return f"{value:.2f}"


def table(result: dict[str, Any]) -> str:
    """Markdown, a table a direction, best first."""
    lines = []
    for direction in Direction:
        lines += [f"\n**{direction}** (SIMULATED)\n", "| method | " + " | ".join(COLUMNS.values()) + " |"]
        lines.append("|---" * (len(COLUMNS) + 1) + "|")
        rows = {name: scores[direction] for name, scores in result["methods"].items()}
        for name in sorted(rows, key=lambda n: -rows[n]["psnr_brain"]["mean"]):
            lines.append(f"| `{name}` | " + " | ".join(cell(rows[name][c]) for c in COLUMNS if c in rows[name]) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prepared", type=Path)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--budget", default="12m", help="wall time of each method that is trained")
    parser.add_argument("--train", nargs="*", default=[], choices=[n for n in RECIPES if n != "oracle"])
    parser.add_argument("--score", action="store_true")
    options = parser.parse_args()
    pairs = Pairs.open(options.prepared)
    train, test = first(pairs.train, TRAIN), first(pairs.test, TEST)
    for name in options.train:
        run = options.runs / name
        if not (run / "model").exists():
            api.fit(name, train, run=run, budget=options.budget if RECIPES[name].steps else None, seed=0, device="cpu")
    if options.score:
        names = [name for name in RECIPES if (options.runs / name / "model").exists()]
        names.sort(key=lambda name: name != "pds")  # the first is compared with the others
        models = {name: checkpoint.load(options.runs / name / "model")[0] for name in names}
        result = api.evaluate(models, test, options.runs / "results", seed=0)
        result |= {
            "date": datetime.date.today().isoformat(),
            "machine": f"{platform.machine()} CPU, one thread a method in training",
            "n_train": train.table["participant_id"].nunique(),
            "budget_each": options.budget,
        }
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "same_participants.json").write_text(json.dumps(result, indent=2) + "\n")
        (RESULTS / "same_participants.md").write_text(table(result))
        print(table(result))


if __name__ == "__main__":
    main()
