"""What receives events; and addresses of receivers, whose secrets are shown to nobody."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit


class Sink(Protocol):
    """Takes the events of all cameras, as dicts that [`~avad_hf.detection.incidents.Incidents`] makes."""

    def send(self, event: dict[str, Any]) -> None:
        """Take an event. Never waits for a receiver, and never raises because of one."""

    def health(self) -> dict[str, Any]:
        """How the receiver does.

        Events ``waiting`` and ``delivered``, ``failed_tries``, events ``dropped`` for good; and the ``problem`` as it
        is now, in words without secrets, or ``None``.
        """

    def close(self) -> None:
        """Deliver what can be delivered within seconds, and end."""


@dataclass(frozen=True)
class Address:
    """A receiver's address. What may be secret is not in its text.

    Args:
        scheme: Such as ``https``.
        host: Name or number of the machine, without brackets.
        port: Given, or the scheme's own.
        user: Name to log in by, if there is one.
        password: Its password.
        path: With its query; empty without.
    """

    scheme: str
    host: str
    port: int
    user: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    path: str = field(default="", repr=False)

    def __str__(self) -> str:
        return f"{self.scheme}://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


def parse_address(url: str, ports: Mapping[str, int], what: str) -> Address:
    """Take the address of a receiver apart.

    Args:
        url: ``scheme://user:password@host:port/path``; of these only scheme and host must be there.
        ports: Port of each scheme that is allowed.
        what: What has this address, for messages: ``"a webhook"``.

    Raises:
        ValueError: If it is no such address. The message does not repeat it.
    """
    schemes = " or ".join(f"{scheme}://" for scheme in ports)
    help_text = f"The address of {what} is {schemes}, a host, and perhaps a port: {next(iter(ports))}://host:port"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
        # Characters that no address holds; urlsplit passes over some of them.
        is_whole = url.isascii() and url.isprintable() and " " not in url and bool(host) and port != 0
        (host or "").encode("idna")  # raises UnicodeError for names that are too long
    except ValueError:  # what Python says may repeat a password
        is_whole = False
    if not is_whole or host is None or parts.scheme not in ports:
        raise ValueError(f"{help_text}. Write special characters as %XX, such as %40 for @ in a password.")
    return Address(
        scheme=parts.scheme,
        host=host,
        port=ports[parts.scheme] if port is None else port,
        user=None if parts.username is None else unquote(parts.username),
        password=None if parts.password is None else unquote(parts.password),
        path=parts.path + (f"?{parts.query}" if parts.query else ""),
    )


__all__ = ["Address", "Sink", "parse_address"]
