"""The folders of `fuzz_files.py`: what pdsynth writes, small and SIMULATED, with the functions that read each back."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import io
import os
import pickle
import pkgutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import numpy as np
import pandas as pd
import torch
from fuzz_inputs import hospital
from scipy import ndimage

from pdsynth import api, evidence, folders, journal, manifest, stage_checkpoint, training
from pdsynth.cohorts.detect import read
from pdsynth.data.pairs import Pairs
from pdsynth.data.preprocessing import Preprocessing
from pdsynth.data.quality import quality_table
from pdsynth.data.shards import FOLDER, write_shard
from pdsynth.evaluation.provenance import provenance
from pdsynth.evidence.calibration.files import Entry
from pdsynth.evidence.claims import claims, write_cards, write_report
from pdsynth.evidence.probes import files as probes
from pdsynth.files import read_json, sha256, write_json, write_table
from pdsynth.imaging.nifti import SyntheticMark, Volume, write_synthetic
from pdsynth.imaging.spatial import Grid, mni_grid
from pdsynth.methods import checkpoint
from pdsynth.options import TrainOptions
from pdsynth.outcomes import TABLE, doubts, not_made, read_outcomes, write_outcomes
from pdsynth.report.facts import facts
from pdsynth.report.quality import write_quality
from pdsynth.results import patterns
from pdsynth.results.folder import Results
from pdsynth.results.tables import TableFile
from pdsynth.sources import refuse_other_options
from pdsynth.statistics.resampling import Estimate
from pdsynth.synthesis import Model
from pdsynth.types import Direction, Modality

PEOPLE = 5
SPLITS = ("train", "train", "train", "test", "test")


@dataclass(frozen=True)
class Family:
    """Files of one folder, and how they are read back.

    read(folder, whole): the functions that a command calls to read the folder; whole: also those that take a second or
    more, such as the pages. repair(file): put right the digests of a changed file. suffixes: of the files to change.
    """

    folder: Path
    read: Callable[[Path, bool], None]
    repair: Callable[[Path], None] = lambda file: None
    suffixes: tuple[str, ...] = (".json", ".tsv", ".npy", ".ckpt", ".csv", ".safetensors", ".yaml")

    def files(self) -> list[Path]:
        return sorted(path for path in self.folder.rglob("*") if path.is_file() and path.name.endswith(self.suffixes))


def write_families(root: Path) -> dict[str, Family]:
    """Write all folders below root, and return them by name."""
    prepared = write_prepared(root / "prepared")
    fitted = write_model(root / "model", Pairs.open(prepared))
    return {
        "prepared": Family(prepared, read_prepared, repair_prepared),
        "model": Family(fitted, read_model, repair_model),
        "run": Family(write_run(root / "run"), read_run, repair_run),
        "results": Family(write_results(root / "results", prepared, fitted), read_results),
        "synthesis": Family(write_synthesis(root / "synthesis"), read_synthesis),
        "output": Family(write_output(root / "output"), read_output),
        "settings": Family(
            write_settings(root / "hospital"), lambda folder, whole: use(read(folder)), suffixes=(".yaml",)
        ),
    }


def use(*_: Any) -> None:
    """Nothing: the values were computed."""


def write_prepared(root: Path) -> Path:
    generator, grid = np.random.default_rng(0), mni_grid(8)
    axes = np.meshgrid(*[np.linspace(-1, 1, n) for n in grid.shape], indexing="ij")
    brain = sum(np.square(a) for a in axes) < 0.7
    (root / FOLDER).mkdir(parents=True)
    people, sizes, rows, quality = [f"sub-{i}" for i in range(PEOPLE)], {}, [], []
    for i, person in enumerate(people):
        volumes: dict[str, np.ndarray] = {}
        for modality in Modality:
            field = ndimage.gaussian_filter(generator.standard_normal(grid.shape), 2)
            volumes[modality.value] = (np.clip(0.5 + field, 0, 1) * brain).astype(np.float16)
            volumes[f"{modality}_brain"] = brain
            measures = {"coverage": 1.0, "overlap": 0.9, "mutual_information": 1.1, "motion_mm": 0.1}
            who = {"participant_id": person, "session_id": "", "site": "a", "modality": modality.value}
            quality.append(who | {"path": f"{person}/{modality}"} | measures)
        sizes[f"{person}.npy"] = write_shard(root / FOLDER / f"{person}.npy", [volumes])
        stamps = {
            f"{person}/{m}": {"size": 9, "mtime_ns": 1, "sha256": hashlib.sha256(f"{person}{m}".encode()).hexdigest()}
            for m in Modality
        }
        steps = {m: [{"name": "affine", "matrix": np.eye(4).tolist()}] for m in Modality}
        write_json(root / FOLDER / f"{person}.json", {"inputs": stamps, "steps": steps, "final": True})
        known = {
            "diagnosis": ("NC", "AD")[i % 2],
            "dx_gap_days": "n/a",
            "scan_gap_days": 0,
            "age": 60.5 + i,
            "sex": "F",
        }
        known |= dict.fromkeys(("education", "mmse", "moca"), "n/a") | {"available": "both"}
        scans = {f"{m}_{end}": value for m in Modality for end, value in (("path", f"{person}/{m}"), ("scale", 9.5))}
        place = {"dmri_bval": 1000.0, "shard": f"{person}.npy", "index": 0}
        rows.append(
            {"participant_id": person, "session_id": "", "segment": "mean", "site": "a"} | known | scans | place
        )
    tables = {
        "pairs.tsv": pd.DataFrame(rows),
        "splits.tsv": pd.DataFrame({"participant_id": people, "split": SPLITS, "sha256": "00ff"}),
        "rejected.tsv": pd.DataFrame(
            [("sub-9/a.nii", "is a slab", "leave it out")], columns=["path", "reason", "remedy"]
        ),
        "quality.tsv": quality_table(quality),
    }
    for name, table in tables.items():
        write_table(root / name, table)
    entries = manifest.begin("prepare", seed=0, split=[0.6, 0.0, 0.4], grid_mm=8.0, segments=1, denoise=False)
    entries |= {"simulated": True, **Preprocessing(grid=grid).entries(), "masks_given": 0, "volumes": sorted(volumes)}
    entries |= {"shards": sizes, "outputs": {name: sha256(root / name) for name in tables}, "kept": []}
    manifest.finish(root, entries)
    return root


def repair_prepared(file: Path) -> None:
    if file.name == manifest.NAME:
        return
    root = file.parent.parent if file.parent.name == FOLDER else file.parent
    entries = read_json(root / manifest.NAME)
    if file.name in entries.get("outputs", {}):
        entries["outputs"][file.name] = sha256(file)
    elif file.suffix == ".npy":
        entries["shards"][file.name] = file.stat().st_size
    else:
        return
    write_json(root / manifest.NAME, entries)


def read_prepared(folder: Path, whole: bool) -> None:
    pairs = Pairs.open(folder)
    use(pairs.scan_digests(), provenance({}, pairs), pairs.masks_given)
    for row in range(len(pairs)):
        use(pairs.transform(Modality.FMRI, row))
    test = pairs.whole_scans().test
    if len(test):
        use(test.batch(np.arange(len(test)), directions=()))
    if whole:
        write_quality(folder)


def write_model(root: Path, pairs: Pairs) -> Path:
    model = api.fit("population-mean", pairs.train, run=root / "run", device="cpu")
    ways = [direction.value for direction in Direction]
    entry = Entry("simulated", True, 30, dict.fromkeys(ways, 1.1), dict.fromkeys(ways, 0.9), ["00ff"])
    return checkpoint.save(model.method, root / "model", entry.in_card(model.card))


def repair_model(file: Path) -> None:
    if file.name == "model.safetensors":
        config = file.with_name("config.json")
        write_json(config, read_json(config) | {"weights_sha256": sha256(file)})


def read_model(folder: Path, whole: bool) -> None:
    model = Model.load(folder, "cpu")
    use(model.preprocessing, model.grid, Entry.of(model.card))


def write_run(root: Path) -> Path:
    state = {"epoch": 0, "global_step": 3, "pytorch-lightning_version": "2.6", "loops": {}, "optimizer_states": []}
    state |= {"state_dict": {"w": torch.zeros(3)}}
    state |= {
        "pdsynth": {"step": 3, "elapsed": 1.5, "flops": 9, "ema": {"updates": 3, "shadow": {"w": torch.zeros(3)}}}
    }
    (root / "checkpoints").mkdir(parents=True)
    stage_checkpoint.CompleteCheckpoints().save_checkpoint(state, root / "checkpoints" / "0-regression.ckpt")
    write_json(root / training.BEGUN_AS, {"precision": "32-true", "devices": 1})
    lines = (",".join(journal.COLUMNS), "regression,25,1.5,loss,0.5", "regression,50,3.0,loss,0.4")
    (root / "metrics.csv").write_text("\n".join(lines) + "\n")
    return root


def repair_run(file: Path) -> None:
    if file.suffix == stage_checkpoint.SUFFIX:
        write_json(stage_checkpoint.record_of(file), {stage_checkpoint.DIGESTS: [sha256(file)]})


def read_run(folder: Path, whole: bool) -> None:
    path = folder / "checkpoints" / "0-regression.ckpt"
    use(stage_checkpoint.read(path))
    training.chosen_precision(folder, TrainOptions(resume=True, device="cpu"), "cpu")
    journal.Journal(folder, path)._forget_rows_after("regression", 25)


def write_results(root: Path, prepared: Path, fitted: Path) -> Path:
    pairs, model = Pairs.open(prepared), Model.load(fitted, "cpu")
    with manifest.recorded(root, "evaluate", inputs=[prepared], seed=0, split="test") as entries:
        entries |= provenance({"population-mean": model}, pairs) | {"notes": ["It was trained on SIMULATED people."]}
        others = api.fit_controls(pairs.train, names=["copy-source"])
        api.evaluate({"population-mean": model, **others}, pairs.test, root)
    for package in pkgutil.iter_modules(evidence.__path__):
        if package.ispkg:
            module = importlib.import_module(f"pdsynth.evidence.{package.name}.files")
            for file in vars(module).values():
                if isinstance(file, TableFile):
                    file.write(root, [invented(file.row)] * 2)
    write_json(root / probes.NAME, dataclasses.asdict(invented(probes.Probes)))
    table = pd.DataFrame([("sub-9/a.nii", "is a slab", "leave it out")], columns=["path", "reason", "remedy"])
    write_table(root / "rejected.tsv", table)
    write_synthesised(root / "synthesised")
    return root


def invented(kind: Any) -> Any:
    """A value of a type: a dataclass, an enumeration, a number, a text, or a list or dict of them."""
    if dataclasses.is_dataclass(kind):
        if kind is Estimate:
            return Estimate(0.5, 0.25, 0.75)
        hints = get_type_hints(kind)  # type: ignore[arg-type]
        special = {"confusion": '{"NC": {}, "AD": {}}', "method": "population-mean"}
        return kind(**{f.name: special.get(f.name) or invented(hints[f.name]) for f in dataclasses.fields(kind)})
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is list:
        return [invented(arguments[0])] * 2
    if origin is dict:
        return {}
    if arguments:
        return invented(arguments[0])
    if issubclass(kind, StrEnum):
        return next(iter(kind))
    return {str: "a", int: 3, float: 0.25, bool: True}[kind]


def write_synthesised(folder: Path) -> None:
    volume = Volume(np.full((12, 12, 12), 0.5, np.float32), Grid((12, 12, 12), np.diag([8.0, 8, 8, 1])).affine)
    mark = SyntheticMark(Direction.FMRI_TO_DMRI, ["sub-9_bold.nii.gz"], "0" * 64, 0, "1.0", source_sha256=["00ff"])
    write_synthetic(volume, folder / "sub-9_desc-synthetic_dwiref.nii.gz", mark)


def read_results(folder: Path, whole: bool) -> None:
    results = Results.read(folder)
    use(results.affine, results.rejected, results.synthesised, results.model, results.data)
    for name in ("fmri", "dmri", "fmri_brain", "dmri_brain", "population-mean_fmri_to_dmri"):
        use(results.images(name))
    use(patterns.read(folder).one_per_participant())
    for claim in claims():
        use(list(claim.sections(results)), claim.facts(results))
    use(facts(results, claims()))
    if whole:
        write_cards(folder)
        write_report(folder)


def write_synthesis(root: Path) -> Path:
    root.mkdir()
    write_synthesised(root)
    row = dict.fromkeys(("participant_id", "source", "target", "status", "reason"), "a") | {"status": "made"}
    write_outcomes(root / TABLE, [row, row | {"source": "b", "status": "not made"}])
    made_as = {"version": "1.0", "samples": 0}
    entries = manifest.begin("synthesize", seed=0, made_as=made_as)
    stamps = {"a.nii.gz": [{"size": 1, "mtime_ns": 2, "ctime_ns": None, "inode": 3, "sha256": "00ff"}, None]}
    manifest.finish(root, entries | {"stamps": stamps})
    return root


def read_synthesis(folder: Path, whole: bool) -> None:
    entries = manifest.read(folder)
    refuse_other_options(folder, entries, {"version": "1.0", "samples": 0})
    outcomes = read_outcomes(folder / TABLE)
    use(doubts(outcomes), not_made(outcomes))
    for stamps in entries.get("stamps", {}).values():
        use([each and each["sha256"] for each in stamps])
    write_outcomes(folder / TABLE, [])


def write_output(root: Path) -> Path:
    """A folder with its inventory, and the workspace of a stopped run beside it."""
    root.mkdir()
    with folders.making(root / "out") as work:
        (work.folder / "notes.txt").write_text("a\n")
        manifest.finish(work.folder, manifest.begin("evaluate", seed=0))
    with suppress(KeyboardInterrupt), folders.making(root / "out", overwrite=True, resume="give it again") as work:
        manifest.finish(work.folder, manifest.begin("evaluate", seed=0))
        raise KeyboardInterrupt  # as a stopped run
    return root


def read_output(folder: Path, whole: bool) -> None:
    use(folders.stopped(folder / "out"))
    folders.refuse_occupied(folder / "out", True)
    with folders.adding(folder / "out") as added:
        (added / "more.txt").write_text("b\n")


def write_settings(root: Path) -> Path:
    root.mkdir()
    hospital(root)
    return root


def payload(marker: Path) -> dict[str, bytes]:
    """Contents that would make a file at `marker` if they were executed, by suffix."""

    class Runs:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return os.system, (f"touch {marker}",)

    pickled, array, archive = pickle.dumps(Runs()), io.BytesIO(), io.BytesIO()
    np.save(array, np.array([Runs()], object), allow_pickle=True)
    torch.save({"state_dict": Runs()}, archive)
    text = f"fmri: !!python/object/apply:os.system ['touch {marker}']\n".encode()
    return {"pickle": pickled, "array": array.getvalue(), "archive": archive.getvalue(), "yaml": text}
