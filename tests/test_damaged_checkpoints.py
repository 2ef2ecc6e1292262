"""A checkpoint is complete or absent. A damaged one is refused by name, and its code is never executed."""

from __future__ import annotations

import io
import os
import pickle
import resource
import shutil
import stat
from hashlib import sha256

import pytest
import torch

from pdsynth import journal, training
from pdsynth.files import read_json
from pdsynth.methods import create
from pdsynth.options import TrainOptions
from pdsynth.stage_checkpoint import NEEDED, record_of
from pdsynth.types import InputError

STAGE = "0-regression.ckpt"


def train(method, pairs, run, **options):
    return training.train(method, pairs, run, TrainOptions(seed=0, device="cpu", precision="32-true", **options))


def mlp(pairs, width=8):
    torch.manual_seed(0)
    return create("voxel-mlp", {"grid_shape": list(pairs.grid.shape), "width": width})


@pytest.fixture(scope="module")
def pairs(prepared):
    return prepared.split("train")


@pytest.fixture(scope="module")
def trained(pairs, tmp_path_factory):
    """A run after 8 steps, which is the end if 8 steps are set and the middle if 16 are."""
    run = tmp_path_factory.mktemp("run")
    train(mlp(pairs), pairs, run, steps=8)
    return run


@pytest.fixture(scope="module")
def whole(pairs, tmp_path_factory):
    """The weights after 16 steps without a stop."""
    return train(mlp(pairs), pairs, tmp_path_factory.mktemp("whole"), steps=16).state_dict()


@pytest.fixture(scope="module")
def further(pairs, trained, tmp_path_factory):
    """The weights of that run after it is resumed up to 16 steps."""
    run = shutil.copytree(trained, tmp_path_factory.mktemp("further") / "run")
    return train(mlp(pairs), pairs, run, steps=16, resume=True).state_dict()


@pytest.fixture
def run(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "run")


def digest(path):
    return sha256(path.read_bytes()).hexdigest()


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def refused(pairs, run, steps, width=8):
    """The one line that names the checkpoint."""
    with pytest.raises(InputError) as raised:
        train(mlp(pairs, width), pairs, run, steps=steps, resume=True)
    assert raised.value.path == run / "checkpoints" / STAGE
    assert raised.value.remedy == "restore it from a backup, or remove it to train this stage anew"
    assert "weights_only" not in str(raised.value)
    return raised.value.problem


class Bomb:
    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return os.mkdir, (str(self.canary),)


def damages(content, canary):
    zipped = io.BytesIO()
    torch.save({"pdsynth": Bomb(canary)}, zipped)
    numbers = io.BytesIO()
    torch.save([1, 2, 3], numbers)
    return {
        "empty": b"",
        "cut": content[: len(content) // 2],
        "cut at its end": content[:-10],
        "zeros": bytes(len(content)),
        "hole": content[:1000] + bytes(1000) + content[2000:],
        "text": b"not a checkpoint\n",
        "pickle": pickle.dumps(Bomb(canary)),
        "zip": zipped.getvalue(),
        "list": numbers.getvalue(),
    }


@pytest.mark.parametrize("steps", [8, 16])
@pytest.mark.parametrize("recorded", [True, False])
@pytest.mark.parametrize("damage", damages(b"", ""))
def test_a_file_that_is_not_a_checkpoint(pairs, run, tmp_path, damage, recorded, steps):
    checkpoint = run / "checkpoints" / STAGE
    checkpoint.write_bytes(damages(checkpoint.read_bytes(), tmp_path / "canary")[damage])
    if not recorded:
        record_of(checkpoint).unlink()
    assert refused(pairs, run, steps) == "is damaged"
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("part", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_one_flipped_bit_is_noticed(pairs, run, part):
    """torch verifies no checksum, so that it would continue with other weights."""
    checkpoint = run / "checkpoints" / STAGE
    content = bytearray(checkpoint.read_bytes())
    content[int(part * len(content))] ^= 16
    checkpoint.write_bytes(content)
    assert refused(pairs, run, 16) == "is damaged"


def test_a_lack_of_memory_is_not_reported_as_damage(pairs, run, monkeypatch):
    monkeypatch.setattr(torch, "load", lambda *_, **__: bytearray(1 << 62))
    with pytest.raises(MemoryError):
        train(mlp(pairs), pairs, run, steps=16, resume=True)


def change(run, alter):
    """Alter the content of a checkpoint without a record."""
    checkpoint = run / "checkpoints" / STAGE
    kept = torch.load(checkpoint, weights_only=True)
    alter(kept)
    torch.save(kept, checkpoint)
    record_of(checkpoint).unlink()


@pytest.mark.parametrize("entry", sorted(NEEDED))
def test_a_lost_entry(pairs, run, entry):
    change(run, lambda kept: kept.pop(entry))
    assert refused(pairs, run, 16) == "is damaged"


@pytest.mark.parametrize("steps", [8, 16])
@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("step", -3),
        ("step", "8"),
        ("step", 8.0),
        ("step", None),
        ("elapsed", float("nan")),
        ("elapsed", float("inf")),
        ("elapsed", -1.0),
        ("elapsed", "long"),
        ("flops", -1),
        ("ema", None),
        ("ema", {"updates": -1, "averages": {}}),
    ],
)
def test_an_impossible_clock(pairs, run, entry, value, steps):
    change(run, lambda kept: kept["pdsynth"].update({entry: value}))
    assert refused(pairs, run, steps) == "is damaged"


def other_weights(kept):
    name = next(iter(kept["state_dict"]))
    kept["state_dict"][name] = torch.zeros(3)


@pytest.mark.parametrize("steps", [8, 16])
def test_weights_of_another_shape(pairs, run, steps):
    change(run, other_weights)
    assert refused(pairs, run, steps) == "is damaged, or of another method"


def test_averages_of_other_weights(pairs, run):
    change(run, lambda kept: kept["pdsynth"]["ema"]["averages"].popitem())
    assert refused(pairs, run, 16) == "is damaged, or of another method"


@pytest.mark.parametrize(
    "states", [[], None, [{}], [{"state": {}, "param_groups": []}], [{"state": {}, "param_groups": [{"params": [0]}]}]]
)
def test_optimisers_of_another_stage(pairs, run, states):
    change(run, lambda kept: kept.update(optimizer_states=states))
    assert refused(pairs, run, 16) == "is damaged, or of another method"


def test_a_run_of_another_size(pairs, run):
    assert refused(pairs, run, 16, width=16) == "is damaged, or of another method"


def test_a_refused_checkpoint_is_unchanged_and_without_it_training_starts_again(pairs, run, whole):
    checkpoint = run / "checkpoints" / STAGE
    content = checkpoint.read_bytes()[:-1]
    checkpoint.write_bytes(content)
    refused(pairs, run, 16)
    assert checkpoint.read_bytes() == content
    checkpoint.unlink()
    assert equal(train(mlp(pairs), pairs, run, steps=16, resume=True).state_dict(), whole)


def test_the_record_has_the_present_and_the_previous_digest(pairs, run):
    checkpoint = run / "checkpoints" / STAGE
    first = digest(checkpoint)
    assert read_json(record_of(checkpoint)) == {"sha256": [first]}
    train(mlp(pairs), pairs, run, steps=16, resume=True)
    assert read_json(record_of(checkpoint)) == {"sha256": [first, digest(checkpoint)]}
    assert digest(checkpoint) != first
    assert sorted(path.name for path in checkpoint.parent.iterdir()) == [STAGE, f"{STAGE}.json"]


@pytest.mark.parametrize("record", ["", "{", "[]", '{"sha256": 5}', '{"sha256": []}', "[" * 100_000])
def test_a_record_that_names_another_checkpoint_or_none(pairs, run, record):
    record_of(run / "checkpoints" / STAGE).write_text(record)
    assert refused(pairs, run, 16) == "is damaged"


@pytest.mark.parametrize("cut", range(1, 7))
def test_a_power_cut_at_any_rename_does_not_change_the_result(pairs, tmp_path, whole, monkeypatch, cut):
    """The cut comes at the rename of the record and of the checkpoint, at each of the first saves in turn."""
    monkeypatch.setattr(journal, "SAVE_EVERY", 0.0)
    replace, named = os.replace, []

    def failing(old, new):
        if STAGE in str(new):
            named.append(str(new))
            if len(named) == cut:
                raise SystemError("power cut")
        replace(old, new)

    with monkeypatch.context() as until:
        until.setattr(os, "replace", failing)
        with pytest.raises(SystemError, match="power cut"):
            train(mlp(pairs), pairs, tmp_path, steps=16)
    assert named[-1].endswith(".json") == bool(cut % 2)
    assert equal(train(mlp(pairs), pairs, tmp_path, steps=16, resume=True).state_dict(), whole)


@pytest.mark.parametrize("steps", [8, 16])
def test_a_checkpoint_without_a_record_is_resumed(pairs, run, further, steps):
    record_of(run / "checkpoints" / STAGE).unlink()
    found = train(mlp(pairs), pairs, run, steps=steps, resume=True).state_dict()
    assert equal(found, further) == (steps == 16)
    assert record_of(run / "checkpoints" / STAGE).exists() == (steps == 16)


def test_training_that_starts_again_has_no_old_record(pairs, run, monkeypatch):
    method = mlp(pairs)
    monkeypatch.setattr(method, "stages", lambda: (_ for _ in ()).throw(SystemError("never begun")))
    checkpoint = run / "checkpoints" / STAGE
    with pytest.raises(SystemError):
        train(method, pairs, run, steps=8)
    assert checkpoint.exists() and record_of(checkpoint).exists()
    stages = mlp(pairs).stages()
    stages[0].prepare = lambda rows: 1 / 0
    method.stages = lambda: stages
    with pytest.raises(ZeroDivisionError):
        train(method, pairs, run, steps=8)
    assert list(checkpoint.parent.iterdir()) == []


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_the_mode_of_a_checkpoint_follows_the_umask(pairs, tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        train(mlp(pairs), pairs, tmp_path, steps=1)
    finally:
        os.umask(before)
    files = [*(tmp_path / "checkpoints").iterdir(), tmp_path / "metrics.csv"]
    assert [stat.S_IMODE(path.stat().st_mode) for path in files] == [mode] * 3


def test_a_full_disk_is_reported_with_the_file_and_leaves_the_old_checkpoint(pairs, run, further):
    checkpoint = run / "checkpoints" / STAGE
    before = checkpoint.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large") as raised:
            train(mlp(pairs), pairs, run, steps=16, resume=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert raised.value.filename == str(checkpoint)
    assert checkpoint.read_bytes() == before
    assert sorted(path.name for path in checkpoint.parent.iterdir()) == [STAGE, f"{STAGE}.json"]
    assert equal(train(mlp(pairs), pairs, run, steps=16, resume=True).state_dict(), further)
