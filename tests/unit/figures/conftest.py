"""What the tests of figures share."""

from collections.abc import Iterator

import pytest

from node_robustness.figures.copies import shared_parts


@pytest.fixture(scope="module", autouse=True)
def as_in_a_run() -> Iterator[None]:
    """Charts are made as a run makes them, sooner than Altair alone does."""
    with shared_parts():
        yield
