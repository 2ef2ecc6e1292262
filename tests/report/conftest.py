"""Results folders of four participants and of twelve, which the tests of the report share."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def results(prepared, tmp_path_factory):
    """Results of three methods on four participants, one with a malicious id; a missing scan filled in; a refusal."""
    from pages import write_results  # imported late, as the root's conftest explains

    return write_results(prepared, tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="session")
def many_results(make_prepared, tmp_path_factory):
    """The same of twelve participants: six of each site; 5 NC, 5 AD, 2 MCI."""
    from pages import write_results

    return write_results(make_prepared(20, test=12), tmp_path_factory.mktemp("many"))
