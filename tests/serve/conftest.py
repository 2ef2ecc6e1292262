"""A small scan, a model that copies its source, and a queue with its process, which the tests of the page share."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    from fixture_trees import copy_source_model  # imported late, as the root's conftest explains

    return copy_source_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def scan(tmp_path_factory):
    """A folder with a small left-handed fMRI scan that registers, and the JSON file that says it is simulated."""
    from pdsynth.imaging.spatial import Grid, mni_grid, resample
    from pdsynth.imaging.template import epi_template

    affine = np.array([[-6, 0, 0, 88], [0, 6, 0, -118], [0, 0, 6, -70], [0, 0, 0, 1]], float)
    data = resample(epi_template(mni_grid(4)), Grid((30, 34, 28), affine))
    image = nib.Nifti1Image((np.stack([data] * 4, -1) * 100).astype(np.float32), affine)
    image.header.set_zooms((6, 6, 6, 2.0))
    path = tmp_path_factory.mktemp("scans") / "sub-a_task-rest_bold.nii.gz"
    nib.save(image, path)
    path.with_name("sub-a_task-rest_bold.json").write_text('{"RepetitionTime": 2.0, "Simulated": true}')
    return path


@pytest.fixture(scope="session")
def queue(model, tmp_path_factory):
    from pdsynth.serve.jobs import Queue

    with Queue.running(tmp_path_factory.mktemp("queue"), str(model), "cpu") as found:
        yield found
