"""Nobody is both trained on and scored, and no diagnosis enters synthesis: every verb refuses, or shows no change."""

import shutil
from pathlib import Path

import pandas as pd
import pytest

import pdsynth
from pdsynth import api, folders, manifest
from pdsynth.cli import main
from pdsynth.data.pairs import Pairs
from pdsynth.files import read_json, write_json
from pdsynth.results import patterns
from pdsynth.types import InputError


@pytest.fixture
def folder(prepared, tmp_path) -> Path:
    return Path(shutil.copytree(prepared.root, tmp_path / "prepared"))


def rewrite(path: Path, change) -> None:
    change(pd.read_csv(path, sep="\t", keep_default_na=False)).to_csv(path, sep="\t", index=False)


def test_a_model_is_not_scored_on_whom_it_was_trained(folder, tmp_path):
    """By the digest of the scan, so under another name, in another folder and with another split, too."""
    pairs = Pairs.open(folder)
    model = pdsynth.fit("population-mean", pairs.train, run=tmp_path / "run", device="cpu")
    assert len(model.card["scans_sha256"]) == 2 * len(pairs.train)
    pdsynth.evaluate(model, pairs.test, ceiling=False)
    pdsynth.evaluate(model, pairs.train, ceiling=False)  # on purpose; the results say which split
    swapped = {"train": "test", "test": "train"}
    rewrite(folder / "splits.tsv", lambda t: t.assign(split=t["split"].map(swapped)))
    other = Pairs.open(folder)
    with pytest.raises(
        InputError, match=f"a scan of {pairs.train.table['participant_id'][0]}, on which population-mean was"
    ):
        pdsynth.evaluate(model, other.test, ceiling=False)


@pytest.mark.parametrize("damage", ["cut", "missing", "empty", "other digests", "no digests"])
def test_a_record_that_does_not_say_whose_scans_these_are_makes_the_check_refuse(folder, tmp_path, damage):
    """It is never off: one damaged record of many is named, whether or not its scan was trained on."""
    pairs = Pairs.open(folder)
    model = pdsynth.fit("population-mean", pairs.train, run=tmp_path / "run", device="cpu")
    record = folder / "sessions" / "sub-08.json"  # of the test split
    if damage == "missing":
        record.unlink()
    else:
        whole = record.read_text()
        spoilt = {
            "cut": whole[: len(whole) // 2],
            "empty": "",
            "other digests": whole.replace('"sha256": "', '"sha257": "'),
            "no digests": '{"inputs": {"sub-08/fmri": null}}',
        }
        record.write_text(spoilt[damage])
    for asked in (
        lambda: pdsynth.evaluate(model, Pairs.open(folder).test, ceiling=False),
        lambda: api.unchecked({"population-mean": model}, Pairs.open(folder)),
    ):
        with pytest.raises(InputError, match=r"sub-08\.json: .*Remedy: run `pdsynth prepare` again"):
            asked()


def test_a_record_that_was_edited_is_refused_where_the_folder_has_an_inventory(folder, tmp_path):
    write_json(folder / "manifest.json", manifest.begin("prepare") | manifest.read(folder))
    folders.seal(folder)
    pairs = Pairs.open(folder)
    model = pdsynth.fit("population-mean", pairs.train, run=tmp_path / "run", device="cpu")
    record = folder / "sessions" / "sub-08.json"
    record.write_text(record.read_text().replace('"sha256": "', '"sha256": "0'))  # a digest that nothing has
    with pytest.raises(InputError, match=r"sub-08\.json: was changed after the folder was prepared"):
        pdsynth.evaluate(model, Pairs.open(folder).test, ceiling=False)


def test_a_model_begun_with_another_names_whom_both_were_trained_on(prepared, tmp_path):
    pairs = Pairs.open(prepared.root)
    first, second = (pairs.train.where(pairs.train.table.index % 2 == part) for part in (0, 1))
    small = {"width": 4, "patch": 8, "batch_size": 2}
    before = pdsynth.fit("unet", first, run=tmp_path / "a", steps=1, device="cpu", settings=small)
    after = pdsynth.fit("unet", second, run=tmp_path / "b", steps=1, device="cpu", init=tmp_path / "a" / "model")
    own = set(second.scan_digests())
    assert own and set(after.card["scans_sha256"]) == own | set(before.card["scans_sha256"])
    # one that names nobody leaves it unknown, which is said where the model is scored
    path = tmp_path / "a" / "model" / "config.json"
    written = read_json(path)
    del written["card"]["scans_sha256"]
    write_json(path, written)
    unknown = pdsynth.fit("unet", second, run=tmp_path / "c", steps=1, device="cpu", init=tmp_path / "a" / "model")
    assert api.unchecked({"unet": unknown}, pairs) == ["unet"] and api.unchecked({"unet": after}, pairs) == []


@pytest.mark.parametrize("verb", ["train", "evaluate", "benchmark", "evidence"])
def test_a_participant_in_two_splits_makes_every_verb_refuse(folder, tmp_path, verb, capsys):
    rewrite(folder / "splits.tsv", lambda t: pd.concat([t, t.tail(1).assign(split="train")]))
    out = str(tmp_path / "out")
    words = {
        "train": ["train", str(folder), out],
        "evaluate": ["evaluate", str(folder), "--model", "default", "--out", out],
        "benchmark": ["benchmark", str(folder), out, "--budget", "1s"],
        "evidence": ["evidence", str(folder), "--model", "default", "--out", out],
    }[verb]
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "splits.tsv" in said and "has more than one row" in said
    assert not Path(out).exists()


def test_permuted_diagnoses_change_no_synthesised_byte(folder, tmp_path):
    """Neither training nor prediction sees them: the model's file and its outputs are the same, byte for byte."""
    made = []
    for number, order in enumerate((slice(None), slice(None, None, -1))):
        rewrite(folder / "pairs.tsv", lambda t, order=order: t.assign(diagnosis=t["diagnosis"].to_numpy()[order]))
        pairs, run = Pairs.open(folder), tmp_path / f"run{number}"
        model = pdsynth.fit("local-ridge", pairs.train, run=run, device="cpu")
        pdsynth.evaluate(model, pairs.test, run, ceiling=False)
        images = {p.name: p.read_bytes() for p in sorted((run / "predictions").glob("*.npy"))}
        made.append(((run / "model" / "model.safetensors").read_bytes(), images))
        seen = patterns.read(run).people["diagnosis"].tolist()
        assert seen == pairs.test.table["diagnosis"].tolist()
    assert len(made[0][1]) >= 6
    assert made[0] == made[1]
