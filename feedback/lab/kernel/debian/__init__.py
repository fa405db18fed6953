"""Debian's kernel packages: which exist, and the files of one, unpacked in a cache.

Owns the cache (`kernels` in the project's cache directory). Must not know how a kernel is booted. Nothing is installed
on the host: apt works in directories of its own, with Debian's keyring, so that signatures are checked.
"""

from feedback.lab.kernel.debian.cached import Unpacked, unpacked

__all__ = ["Unpacked", "unpacked"]
