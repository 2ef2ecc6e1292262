"""Small datasets for the tests of inputs."""

from __future__ import annotations

from pathlib import Path

import pytest

from fixture_trees import write_dwi, write_scan


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A participant with dMRI alone, and one with fMRI alone."""
    write_dwi(tmp_path / "bids/sub-01/dwi/sub-01_dwi.nii.gz")
    write_scan(tmp_path / "bids/sub-02/func/sub-02_task-rest_bold.nii.gz")
    return tmp_path / "bids"


@pytest.fixture(scope="session")
def content(tmp_path_factory) -> bytes:
    return write_scan(tmp_path_factory.mktemp("scan") / "bold.nii.gz").read_bytes()
