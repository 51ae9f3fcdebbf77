"""Sockets as they are on machines that differ from this one."""

import errno
import socket
from typing import Any


class NoIpv6(socket.socket):
    """A socket, in place of `socket.socket`, of a machine whose kernel has no IPv6."""

    def __init__(self, family: int = -1, *arguments: Any, **options: Any) -> None:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        super().__init__(family, *arguments, **options)
