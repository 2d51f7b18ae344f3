"""The SSRF guard: which hosts a crawl may reach, checked before any connection."""

import ipaddress
import os
import socket

from previts.errors import FetchError, VideoError


def checked_addresses(host: str, port: int, *, encrypted: bool, redirected: bool) -> list[str]:
    """Resolve a host; refuse it unless every one of its addresses may be reached."""
    if host in [name.strip().lower() for name in os.environ.get("PREVITS_TRUSTED_HOSTS", "").split(",")]:
        trusted = True
    else:
        trusted = not redirected and _says_loopback(host)
    if not encrypted and not trusted and os.environ.get("PREVITS_ALLOW_HTTP") != "1":
        raise VideoError(f"plain http to {host} is not allowed; use https, or set PREVITS_ALLOW_HTTP=1")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        gone = isinstance(error, UnicodeError) or error.errno == socket.EAI_NONAME
        raise FetchError(f"cannot resolve {host}: {error}", retryable=not gone) from error
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    refused = [] if trusted else [address for address in addresses if not _is_public(address)]
    if refused:
        raise VideoError(
            f"{host} leads to {refused[0]}, which is not a public address; "
            "if you trust it, name the host in PREVITS_TRUSTED_HOSTS"
        )
    return addresses


def _says_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_public(address: str) -> bool:
    ip = ipaddress.ip_address(address.split("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped:
            return _is_public(str(ip.ipv4_mapped))
        # Addresses that carry an IPv4 address inside could carry a private one.
        if ip.sixtofour or ip.teredo or ip in ipaddress.ip_network("64:ff9b::/96"):
            return False
    return ip.is_global and not ip.is_multicast
