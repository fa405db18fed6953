"""The kernel's IPVS: read the table as one consistent snapshot, apply edits in one batched send.

`Kernel` is the seam that the daemons are written against; `Client` is the real one, on raw generic netlink;
`FakeKernel` has its semantics without a kernel.
This package knows no master, no agent and no law.
"""

from feedback.ipvs.client import Client, Kernel
from feedback.ipvs.errors import (
    IpvsError,
    MalformedMessage,
    NoIpvs,
    NoNamespace,
    NotPermitted,
    OutOfStep,
    Refused,
    TornDump,
    Unencodable,
)
from feedback.ipvs.fake import FakeKernel
from feedback.ipvs.fake_table import Overload
from feedback.ipvs.types import EditError, Info, SyncDaemon, SyncRole, Timeouts

__all__ = [
    "Client",
    "EditError",
    "FakeKernel",
    "Info",
    "IpvsError",
    "Kernel",
    "MalformedMessage",
    "NoIpvs",
    "NoNamespace",
    "NotPermitted",
    "OutOfStep",
    "Overload",
    "Refused",
    "SyncDaemon",
    "SyncRole",
    "Timeouts",
    "TornDump",
    "Unencodable",
]
