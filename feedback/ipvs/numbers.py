"""The numbers of IPVS's netlink interface, under the kernel's own names shortened. Nothing but constants.

Source: include/uapi/linux/ip_vs.h.
"""

from __future__ import annotations

from enum import IntEnum

from feedback.model import Family, Protocol

FAMILY_NAME = "IPVS"
VERSION = 1


class Command(IntEnum):
    NEW_SERVICE = 1
    SET_SERVICE = 2
    DEL_SERVICE = 3
    GET_SERVICE = 4
    NEW_DEST = 5
    SET_DEST = 6
    DEL_DEST = 7
    GET_DEST = 8
    NEW_DAEMON = 9
    DEL_DAEMON = 10
    GET_DAEMON = 11
    SET_CONFIG = 12
    GET_CONFIG = 13
    SET_INFO = 14
    GET_INFO = 15
    ZERO = 16
    FLUSH = 17  # never sent: it drops the connections' packets until everything is added again


CMD_SERVICE, CMD_DEST = 1, 2  # the outermost attributes
SVC_AF, SVC_PROTOCOL, SVC_ADDR, SVC_PORT, SVC_FWMARK, SVC_SCHED = 1, 2, 3, 4, 5, 6
SVC_FLAGS, SVC_TIMEOUT, SVC_NETMASK, SVC_STATS, SVC_PE_NAME, SVC_STATS64 = 7, 8, 9, 10, 11, 12
DEST_ADDR, DEST_PORT, DEST_FWD, DEST_WEIGHT, DEST_UPPER, DEST_LOWER = 1, 2, 3, 4, 5, 6
DEST_ACTIVE, DEST_INACTIVE, DEST_PERSISTENT, DEST_STATS, DEST_AF, DEST_STATS64 = 7, 8, 9, 10, 11, 12
DEST_TUN_TYPE, DEST_TUN_PORT, DEST_TUN_FLAGS = 13, 14, 15

AF_OF = {Family.IPV4: 2, Family.IPV6: 10}
FAMILY_OF = {2: Family.IPV4, 10: Family.IPV6}
NUMBER_OF = {Protocol.TCP: 6, Protocol.UDP: 17, Protocol.SCTP: 132}
PROTOCOL_OF = {number: protocol for protocol, number in NUMBER_OF.items()}
