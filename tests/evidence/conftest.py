"""Shared by the tests of diagnosis and of completion."""

import pytest

from pdsynth.statistics import classification


@pytest.fixture(scope="module")
def penalty_unchosen():
    """Inner folds are tested with the protocol; without them a fit takes a tenth of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classification, "INNER_FOLDS", 1)
        yield
