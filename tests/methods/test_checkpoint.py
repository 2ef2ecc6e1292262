"""What is written of a model, and models that this version can't read, refused in one line."""

from __future__ import annotations

import errno
import json
import os
import resource
import stat
from hashlib import sha256

import pytest
import torch
from safetensors.torch import save_file

from pdsynth.methods import checkpoint, create
from pdsynth.types import InputError
from pdsynth.weights import weights_sha256


@pytest.fixture
def saved(tmp_path):
    return checkpoint.save(create("copy-source", {"grid_shape": [8, 8, 8]}), tmp_path / "model", {"note": "a card"})


def change(folder, **entries) -> None:
    config = folder / "config.json"
    config.write_text(
        json.dumps({k: v for k, v in (json.loads(config.read_text()) | entries).items() if v is not None})
    )


def test_another_format_is_named(saved):
    change(saved, format=99)
    problem = (
        r"config.json: is of format 99, and pdsynth \S+ reads formats up to 3\. Remedy: install a pdsynth later than"
    )
    with pytest.raises(InputError, match=problem):
        checkpoint.load(saved)


@pytest.mark.parametrize("lost", ["format", "card", "method", "config"])
def test_a_lost_entry_is_named(saved, lost):
    change(saved, **{lost: None})
    with pytest.raises(InputError, match=rf"does not describe a model .*{lost}"):
        checkpoint.load(saved)


def test_a_setting_that_is_unknown_here_is_named(saved):
    change(saved, config={"stem_width": 128})
    with pytest.raises(InputError, match=r"does not describe a model .*stem_width"):
        checkpoint.load(saved)


def changed(method):
    """The same method with weights of another digest."""
    method.sd_scale.fill_(2)
    return method


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_who_may_read_a_model_is_for_the_umask_to_say(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        folder = checkpoint.save(create("copy-source", {}), tmp_path / "model", {})
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert modes == {"model.safetensors": mode, "config.json": mode}


def test_both_files_are_on_the_disk_before_they_have_their_names(tmp_path, monkeypatch):
    steps = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (steps.append("synced"), fsync(handle)))
    monkeypatch.setattr(os, "replace", lambda old, new: (steps.append(os.path.basename(new)), replace(old, new)))
    checkpoint.save(create("copy-source", {}), tmp_path, {})
    named = [steps.index("model.safetensors"), steps.index("config.json")]
    assert [steps[place - 1] for place in named] == ["synced", "synced"]
    assert named[0] < named[1]  # so that no config.json belongs to weights that are not there yet


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_full_disk_is_said_with_the_file_and_leaves_the_old_model(saved, name):
    before = {path.name: path.read_bytes() for path in saved.iterdir()}
    # weights of 16 kB, or a card of 16 kB, and no file may be longer than 8
    grid = [8, 16, 16] if name == "model.safetensors" else [8, 8, 8]
    card = {} if name == "model.safetensors" else {"note": "x" * (1 << 14)}
    method = create("population-mean", {"grid_shape": grid})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 13, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large") as raised:
            checkpoint.save(method, saved, card)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert raised.value.filename == str(saved / name)
    assert raised.value.errno == errno.EFBIG
    assert sorted(path.name for path in saved.iterdir()) == sorted(before)
    assert (saved / name).read_bytes() == before[name]


def test_the_weights_are_known_by_their_digest(saved):
    written = json.loads((saved / "config.json").read_text())
    assert written["weights_sha256"] == sha256((saved / "model.safetensors").read_bytes()).hexdigest()
    assert written["weights_sha256"] == weights_sha256(saved)


def test_weights_of_another_run_are_refused(saved, tmp_path):
    other = checkpoint.save(changed(create("copy-source", {"grid_shape": [8, 8, 8]})), tmp_path / "other", {})
    (saved / "model.safetensors").write_bytes((other / "model.safetensors").read_bytes())
    with pytest.raises(InputError, match=r"model\.safetensors: is damaged, or not the file that its config\.json"):
        checkpoint.load(saved)


def test_one_flipped_bit_in_the_weights_is_noticed(saved):
    content = bytearray((saved / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (saved / "model.safetensors").write_bytes(content)
    with pytest.raises(InputError, match=r"model\.safetensors: is damaged"):
        checkpoint.load(saved)


def test_a_model_of_before_the_digest_is_read(saved):
    change(saved, weights_sha256=None)
    method, card = checkpoint.load(saved)
    assert (method.name, card) == ("copy-source", {"note": "a card"})


def test_a_model_of_before_calibration_is_read(tmp_path):
    folder = checkpoint.save(create("population-mean", {"grid_shape": [8, 8, 8]}), tmp_path, {})
    save_file({"means": torch.full((2, 8, 8, 8), 0.5)}, folder / "model.safetensors")
    change(folder, weights_sha256=None)
    method, _ = checkpoint.load(folder)
    assert method.sd_scale.tolist() == [1, 1]
    assert float(method.means.mean()) == 0.5


def test_the_shipped_model_is_read():
    method, card = checkpoint.load("default")
    assert (method.name, card["grid_shape"]) == ("pds", [48, 56, 48])
