"""Models that this version can't read, refused in one line."""

from __future__ import annotations

import json
import re

import pytest

from pdsynth.methods import checkpoint, create
from pdsynth.types import InputError


@pytest.fixture
def saved(tmp_path):
    return checkpoint.save(create("copy-source", {"grid_shape": [8, 8, 8]}), tmp_path / "model", {"note": "a card"})


def change(folder, **entries) -> None:
    config = folder / "config.json"
    config.write_text(
        json.dumps({k: v for k, v in (json.loads(config.read_text()) | entries).items() if v is not None})
    )


def test_another_format_is_named(saved):
    change(saved, format=1)
    read = f"is of format 1, where this version reads {checkpoint.FORMAT}. Remedy: train the model again"
    with pytest.raises(InputError, match=rf"config.json: {re.escape(read)} with this version.$"):
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
