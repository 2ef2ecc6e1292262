"""`pdsynth doctor`: each check that fails names its remedy, and does not stop the others."""

from __future__ import annotations

import pytest

from pdsynth.cli import checks, main


def found(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main(["doctor", *words])
    return int(stop.value.code or 0), *capsys.readouterr()


def test_all_checks_pass_here(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = found(capsys, "--device", "cpu")
    assert (status, err) == (0, "")
    assert "FAILED" not in out
    assert out.endswith("All checks passed\nNext: pdsynth demo\n")


def test_each_failed_check_is_a_line_with_its_remedy(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(spacing: float) -> None:
        raise ImportError("no module named 'nilearn'")

    monkeypatch.setattr(checks, "mni_grid", broken)
    monkeypatch.setattr(checks, "OVERFIT_STEPS", 1)  # the loss cannot fall to a fifth
    status, out, err = found(capsys, "--device", "cpu")
    assert status == 1
    lines = dict(line.split(": ", 1) for line in err.splitlines())
    assert set(lines) == {"template", "data range", "one-batch overfit"}
    reinstall = "Remedy: install pdsynth again, in a new virtual environment."
    assert lines["template"] == f"ImportError: no module named 'nilearn'. {reinstall}"
    assert lines["one-batch overfit"].endswith("Remedy: give --device cpu, or install another build of torch.")
    assert out.count("FAILED") == 3


@pytest.mark.parametrize(("driver", "device", "advised"), [(True, "auto", True), (False, "auto", False),
                                                           (True, "cpu", False)])  # fmt: skip
def test_a_gpu_that_torch_cannot_use_is_named(
    driver: bool, device: str, advised: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks.torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(checks, "which", lambda name: "/usr/bin/nvidia-smi" if driver else None)
    finding = next(checks.run_checks(device)).finding
    assert ("install a CUDA build of torch" in finding) == advised
