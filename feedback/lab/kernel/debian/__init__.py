"""Debian's packages of kernels, and of an emulator: which exist, and the files of one, unpacked in a cache.

Owns the cache (`kernels` and `emulators` in the project's cache directory). Must not know how a kernel is booted.
Nothing is installed on the host: apt works in directories of its own, with Debian's keyring, so that signatures are
checked.
"""

from feedback.lab.kernel.debian.cached import Unpacked, unpacked
from feedback.lab.kernel.debian.emulator import backported_emulator

__all__ = ["Unpacked", "backported_emulator", "unpacked"]
