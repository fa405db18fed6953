"""Tests marked `lab` need a kernel with IPVS: without one here, they run in the lab's guest, all in one."""

import pytest

from feedback.lab.suite import GuestSuite


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(GuestSuite(config), "lab-guest")
