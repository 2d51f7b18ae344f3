"""The SSRF guard: which hosts a crawl may reach, checked before any connection.

Not in the paper. URLs of a crawl come from untrusted sources, and so do the redirects of their servers. Without a
guard, they could read services of this machine, of its private network, or the metadata server of a cloud.

Rules:
    - https is allowed to hosts whose addresses are all public.
    - Plain http is allowed to the same hosts, but only with `PREVITS_ALLOW_HTTP=1`.
    - Both are allowed to this machine if the crawl itself names `localhost` or a loopback address. A redirect to it is
      refused, and so is another name that resolves to it.
    - Both are allowed to the hosts named in `PREVITS_TRUSTED_HOSTS` (comma separated), whatever their addresses are.

This module resolves names but connects to nothing. `fetch.py` connects to the returned addresses and not to the name,
so a second look-up cannot lead to another address. It uses no proxies, because they resolve names themselves.
"""

import ipaddress
import os
import socket

from previts.errors import FetchError, VideoError

# IPv6 addresses of NAT64 (RFC 6052) contain an IPv4 address, as those of 6to4 and Teredo do.
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def checked_addresses(host: str, port: int, *, encrypted: bool, redirected: bool) -> list[str]:
    """Resolve a host and return its addresses, if a crawl may reach every one of them.

    Args:
        host: Name or address in lower case, without the brackets of IPv6.
        port: TCP port of the connection.
        encrypted: Whether the connection will use TLS (https).
        redirected: Whether a server named the host (a redirect), and not the crawl.

    Raises:
        VideoError: If the rules above refuse the host or one of its addresses.
        FetchError: If the host cannot be resolved; `retryable` unless the name does not exist.
    """
    trusted = is_trusted(host, redirected=redirected)
    if not encrypted and not trusted and os.environ.get("PREVITS_ALLOW_HTTP") != "1":
        raise VideoError(f"plain http to {host} is not allowed; use https, or set PREVITS_ALLOW_HTTP=1")
    addresses = _resolve(host, port)
    private = [] if trusted else [address for address in addresses if not is_public(address)]
    if private:
        raise VideoError(
            f"{host} leads to {private[0]}, which is not a public address; "
            "if you trust the host, add it to PREVITS_TRUSTED_HOSTS"
        )
    return addresses


def is_trusted(host: str, *, redirected: bool) -> bool:
    """Return whether a host may have any address: the user names it, or the crawl itself names this machine."""
    names = [name.strip().lower() for name in os.environ.get("PREVITS_TRUSTED_HOSTS", "").split(",")]
    return (host != "" and host in names) or (not redirected and _is_loopback(host))


def is_public(address: str) -> bool:
    """Return whether an IP address is reachable from the whole Internet and belongs to one host.

    IPv6 addresses that contain an IPv4 address are not public, because it could be private. The exception are mapped
    addresses (`::ffff:0:0/96`): their IPv4 address decides.
    """
    ip = ipaddress.ip_address(address.split("%")[0])  # without the zone of a link-local address
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped:
            return is_public(str(ip.ipv4_mapped))
        if ip.sixtofour or ip.teredo or ip in _NAT64:
            return False
    return ip.is_global and not ip.is_multicast


def _is_loopback(host: str) -> bool:
    """Return whether a host names this machine without a look-up."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _resolve(host: str, port: int) -> list[str]:
    """Return the addresses of a host, each once, in the order of the resolver."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        gone = isinstance(error, UnicodeError) or error.errno == socket.EAI_NONAME
        raise FetchError(f"cannot resolve {host}: {error}", retryable=not gone) from error
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))
