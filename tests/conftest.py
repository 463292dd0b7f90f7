"""What all tests share."""

import gc
import signal

import hypothesis
import pytest
import torch

from rounding import OtherRounding

# The tests are small: with more threads they spend their time waiting.
torch.set_num_threads(1)

# A shell ignores it for what runs in the background, and so would all that the tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A busy machine is no failure.
hypothesis.settings.register_profile("timeless", deadline=None)
hypothesis.settings.load_profile("timeless")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--other-rounding"):
        rounding = OtherRounding()
        rounding.__enter__()
        config.add_cleanup(lambda: rounding.__exit__())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take minutes first: the short ones then keep all processes busy to the end."""
    items.sort(key=lambda item: item.path.parent.name != "workflow")


def pytest_collection_finish() -> None:
    """Modules and tests stay to the end: no search for garbage needs to look at them."""
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)  # it searches less often, which saves a twentieth of the time


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--other-rounding",
        action="store_true",
        help="compute as a processor would whose kernels round otherwise (tests/rounding.py)",
    )
