"""The address under which others reach this server: not always the one that stands in the browser's bar."""

import socket
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

import streamlit as st

_OWN = ("localhost", "127.0.0.1", "::1", "0.0.0.0")
_EVERY = ("", "0.0.0.0", "::")
"""what a server is told that listens to other machines"""
_NOWHERE = ("192.0.2.1", 9)
"""an address kept for documentation: asking for the way to it sends nothing"""


@dataclass(frozen=True)
class Reach:
    """An address, and whether other machines can open it."""

    address: str
    by_others: bool


def reach(address: str) -> Reach:
    """The address as others must write it: a host that means 'this machine' becomes the machine's own address, if it listens there."""
    parts = urlsplit(address)
    if parts.hostname not in _OWN:
        return Reach(address, bool(parts.hostname))
    found = _own_address() if (st.get_option("server.address") or "") in _EVERY else None
    if found is None:
        return Reach(address, False)
    return Reach(urlunsplit(parts._replace(netloc=f"{found}:{parts.port}" if parts.port else found)), True)


def listens() -> bool:
    """Whether the server lets other machines in, so that its sessions may be those of strangers to one another."""
    told = st.get_option("server.address") or ""
    return told in _EVERY or told not in _OWN


def page_address() -> str:
    """The page's own address, without what it carries."""
    return (st.context.url or "").split("?")[0]


def _own_address() -> str | None:
    """The address of this machine in the network that its default route leads to; None without one."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(_NOWHERE)
            found = str(probe.getsockname()[0])
    except OSError:
        return None
    return None if found in _OWN or found.startswith("127.") else found
