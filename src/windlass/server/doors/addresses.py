"""Which names a server answers to, so that no foreign page in a person's browser can ask it.

A page of another site may send requests to a server on loopback. It cannot hide where it comes from: its Origin header
names it, and where it has its own name point here (DNS rebinding), the Host header does. Numbers are always this
server's own: rebinding needs a name.
"""

import ipaddress
import socket
from collections.abc import Iterable
from urllib.parse import urlsplit

from windlass.errors import UsageError


class Addresses:
    """`names`: host names by which the server may be called, beside numbers and localhost."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._names = {"localhost", *(name.lower().rstrip(".") for name in names)}

    def are_own(self, host: str) -> bool:
        """Whether a Host header names this server."""
        name = _name(host)
        return name is not None and (name in self._names or _is_number(name))

    def allow(self, origin: str, host: str) -> bool:
        """Whether an Origin header is that of the page which this server gave under the Host header."""
        try:
            parts = urlsplit(origin)
        except ValueError:
            return False
        return parts.scheme in ("http", "https") and parts.netloc.lower() == host.lower()


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address to listen at."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def bound_socket(host: str, port: int) -> socket.socket:
    """A socket to listen with, at an address that is free. Port 0 takes any. Raises UsageError.

    It is bound before a model is opened, so that nobody waits for a server that cannot be reached.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise UsageError(f"--host {host} is no address of this machine: {error.strerror}; leave it out") from error
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise UsageError(
            f"cannot listen at {host} port {port}: {error.strerror}; end what is there, or name another --port"
        ) from error
    return listener


def url_of(listener: socket.socket) -> str:
    """As a client on this machine writes it."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _name(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


def _is_number(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
