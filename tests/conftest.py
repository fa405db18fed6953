"""Tests marked `lab` need a kernel with IPVS: without one here, they run in the lab's guests."""

import pytest
from hypothesis import settings

from feedback.lab.error import LabError
from feedback.lab.kernel import choose
from feedback.lab.suite import GuestSuite

# A machine that is busy with a guest makes single examples slow: that is no failure.
settings.register_profile("thorough", deadline=None, max_examples=100)
settings.register_profile("quick", settings.get_profile("thorough"), max_examples=25)
settings.load_profile("quick")  # `make test-all` runs every property again, by --hypothesis-profile=thorough


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("lab")
    group.addoption("--kernel", help="for tests marked lab: native, uml, qemu:6.1, qemu:newest; as `feedback lab run`")
    group.addoption("--processors", type=int, help="of a guest in QEMU")


def pytest_configure(config: pytest.Config) -> None:
    name, processors = config.getoption("--kernel"), config.getoption("--processors")
    try:
        kernel = choose(name, processors=processors) if name or processors else None
    except LabError as error:
        raise pytest.UsageError(f"--kernel: {error}") from None
    config.pluginmanager.register(GuestSuite(config, kernel), "lab-guest")
