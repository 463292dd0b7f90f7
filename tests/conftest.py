"""What all tests share."""

import hypothesis
import pytest
import torch

# The tests are small: with more threads they spend their time waiting.
torch.set_num_threads(1)

# A busy machine is no failure.
hypothesis.settings.register_profile("timeless", deadline=None)
hypothesis.settings.load_profile("timeless")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take minutes first: the short ones then keep all processes busy to the end."""
    items.sort(key=lambda item: item.path.parent.name != "workflow")
