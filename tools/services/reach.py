"""Whether a web address can be connected to, asked before something is started that could do nothing without it."""

from __future__ import annotations

import socket
import urllib.request
from urllib.parse import urlsplit

__all__ = ["connection_problem"]

CONNECT_TIMEOUT_S = 3.0


def connection_problem(url: str, *, direct: bool = False) -> tuple[str, OSError] | None:
    """(host:port, error) of a connection that failed, or None. It is opened and closed: nothing is sent.

    Args:
        direct: pass by proxies. Otherwise it is the proxy that must answer, where one is set for this address.
    """
    address = urlsplit(url)
    proxies = {} if direct or urllib.request.proxy_bypass(address.hostname or "") else urllib.request.getproxies()
    if proxy := proxies.get(address.scheme):
        address = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    port = address.port or (443 if address.scheme == "https" else 80)
    try:
        with socket.create_connection((address.hostname or "", port), timeout=CONNECT_TIMEOUT_S):
            return None
    except OSError as error:
        return f"{address.hostname}:{port}", error
