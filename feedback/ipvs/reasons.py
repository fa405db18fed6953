"""An errno of IPVS in words: what was asked, what the kernel means by it, and what to do. Pure.

The same number means different things for different edits, so the table is keyed by both.
Source: net/netfilter/ipvs/ip_vs_ctl.c.
"""

from __future__ import annotations

import errno

from feedback.model import (
    AddDestination,
    AddService,
    Edit,
    RemoveDestination,
    RemoveService,
    SetDestination,
    SetService,
)

_WORDS: dict[type, str] = {
    AddService: "add service",
    SetService: "set service",
    RemoveService: "remove service",
    AddDestination: "add destination",
    SetDestination: "set destination",
    RemoveDestination: "remove destination",
}

_NO_SERVICE = "there is no such service: add it first, or read the table again, somebody removed it"
_NO_DESTINATION = "there is no such destination: add it first, or read the table again, somebody removed it"
_LIMITS = "the weight is negative, or the lower threshold is above the upper (0 is none): correct the values"
_NO_SCHEDULER = "the kernel has no such scheduler or persistence engine: `modprobe ip_vs_NAME`"
_SERVICE_VALUES = "the kernel takes no such service: an IPv6 prefix length is 1..128, flags fit the scheduler"
_DESTINATION_VALUES = (
    "the kernel takes no such destination: its address is unicast (and in a fresh namespace none is until an interface "
    "is up: `ip link set lo up`), a GUE tunnel has a port, a destination of the other family is reached by tunnel only "
    "and not while a sync daemon runs, a threshold is at most 2147483647"
)

_MEANINGS: dict[tuple[type, int], str] = {
    (AddService, errno.EEXIST): "there is one already: set it instead",
    (AddService, errno.ENOENT): _NO_SCHEDULER,
    (SetService, errno.ENOENT): _NO_SCHEDULER,
    (AddService, errno.EINVAL): _SERVICE_VALUES,
    (SetService, errno.EINVAL): _SERVICE_VALUES,
    (AddDestination, errno.EEXIST): "there is one already: set it instead",
    (SetDestination, errno.ENOENT): _NO_DESTINATION,
    (RemoveDestination, errno.ENOENT): _NO_DESTINATION,
    (AddDestination, errno.ERANGE): _LIMITS,
    (SetDestination, errno.ERANGE): _LIMITS,
    (AddDestination, errno.EINVAL): _DESTINATION_VALUES,
    (SetDestination, errno.EINVAL): _DESTINATION_VALUES,
}

_ANYWHERE: dict[int, str] = {
    errno.ESRCH: _NO_SERVICE,
    errno.ENOBUFS: "the kernel's answers were lost, and the result is unknown: read the table again",
    errno.ETIMEDOUT: "the kernel did not answer in time, and the result is unknown: read the table again",
    errno.EPROTO: "the kernel's answer made no sense, and the result is unknown: read the table again",
    errno.ENOMEM: "the kernel is out of memory",
}

_COMMANDS: dict[int, str] = {
    errno.EEXIST: "one of this role runs already: stop it first",
    errno.ESRCH: "there is none",
    errno.ENODEV: "there is no such interface in this namespace, or it is down",
    errno.EINVAL: "the kernel takes no such values",
    errno.ENOBUFS: _ANYWHERE[errno.ENOBUFS],
}


def edit_text(edit: Edit, code: int, why: str = "") -> str:
    """`set destination 10.0.0.11:80 of tcp:10.0.0.100:80: there is no such ... (ENOENT)`."""
    meaning = why or _MEANINGS.get((type(edit), code)) or _ANYWHERE.get(code) or "the kernel refuses it"
    return f"{_WORDS[type(edit)]} {_subject(edit)}: {meaning} ({errno_name(code)})"


def command_text(what: str, code: int) -> str:
    return f"{what}: {_COMMANDS.get(code, 'the kernel refuses it')} ({errno_name(code)})"


def errno_name(code: int) -> str:
    return errno.errorcode.get(code, f"errno {code}")


def _subject(edit: Edit) -> str:
    match edit:
        case AddDestination() | SetDestination():
            return f"{edit.destination.key} of {edit.service}"
        case RemoveDestination():
            return f"{edit.destination} of {edit.service}"
        case AddService() | SetService():
            return str(edit.service.key)
        case RemoveService():
            return str(edit.service)
