"""The precision of training: by what the device reports, kept by a run that goes on, named in the model."""

from __future__ import annotations

import json

import pytest
import torch

from pdsynth import api, resources
from pdsynth.options import FitOptions, TrainOptions
from pdsynth.resources import PRECISIONS, native_bf16, resolve_precision
from pdsynth.training import train

CPUS = {
    "avx2": ({"avx2": True, "avx512_bf16": False, "amx_bf16": False}, "32-true"),
    "avx512": ({"avx2": True, "avx512_f": True, "avx512_bf16": False}, "32-true"),
    "bf16": ({"avx512_f": True, "avx512_bf16": True, "amx_bf16": False}, "bf16-mixed"),
    "amx": ({"avx512_bf16": False, "amx_bf16": True}, "bf16-mixed"),
    "arm": ({"neon": True, "arm_bf16": True}, "bf16-mixed"),
}


@pytest.mark.parametrize("kind", CPUS)
def test_a_cpu_takes_bf16_where_it_reports_it_and_fp32_elsewhere(kind, monkeypatch):
    report, expected = CPUS[kind]
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: report, raising=False)
    chosen = [resolve_precision(asked, "cpu") for asked in PRECISIONS]
    assert chosen == ["32-true", expected, expected]


def test_a_torch_that_reports_nothing_takes_fp32(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert not native_bf16()
    assert resolve_precision("bf16-mixed", "cpu") == "32-true"


def test_a_gpu_without_bf16_takes_fp16(monkeypatch):
    for there, expected in ((True, "bf16-mixed"), (False, "16-mixed")):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, there=there: there)
        assert resolve_precision("bf16-mixed", "cuda") == expected
        assert resolve_precision("16-mixed", "cuda") == "16-mixed"


def test_the_model_names_its_precision_and_a_run_that_goes_on_keeps_it(prepared, tmp_path, monkeypatch):
    pairs = prepared.split("train")
    settings = {"width": "16"}

    def fit(**how):
        return api.fit("voxel-mlp", pairs, run=tmp_path, device="cpu", settings=settings, **how)

    monkeypatch.setattr(resources, "native_bf16", lambda: False)
    assert fit(steps=2).card["precision"] == "32-true"
    monkeypatch.setattr(resources, "native_bf16", lambda: True)  # as on another machine
    assert fit(steps=4, resume=True).card["precision"] == "32-true"
    with pytest.raises(ValueError, match=r"was begun in 32-true, not bf16-mixed"):
        fit(steps=6, resume=True, precision="bf16-mixed")
    assert fit(steps=2).card["precision"] == "bf16-mixed"
    assert fit(steps=2, precision="32-true").card["precision"] == "32-true"
    assert json.loads((tmp_path / "training.json").read_text()) == {"precision": "32-true"}


def test_a_seed_gives_the_same_bytes_in_each_precision(prepared, tmp_path):
    pairs = prepared.split("train")
    for precision in ("32-true", "bf16-mixed"):
        states = []
        for turn in range(2):
            method = api.untrained("voxel-mlp", pairs, FitOptions(settings={"width": "16"}))
            run = tmp_path / f"{precision}{turn}"
            states.append(
                train(method, pairs, run, TrainOptions(seed=0, steps=3, device="cpu", precision=precision)).state_dict()
            )
        assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
