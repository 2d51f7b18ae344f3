"""The SSRF guard: which hosts a crawl may reach, decided before any connection.

Not in the paper. URLs of a crawl come from untrusted sources, and so do the redirects of their servers. Without a
guard, they could read services of this machine, of its private network, or the metadata server of a cloud.

Rules:
    - https is allowed to hosts whose addresses are all public.
    - Plain http is allowed to the same hosts, but only with `PREVITS_ALLOW_HTTP=1`.
    - Both are allowed to what `PREVITS_TRUSTED_HOSTS` lists, whatever the address is. It is a comma separated list of
      names, addresses and networks, each with or without a port: `videos.example`, `host:8080`, `10.0.0.0/8`,
      `[::1]:8080`. An address trusts URLs that contain it; a network trusts every host whose addresses lie in it.
    - An IPv4 address is written as four decimal numbers. Other forms, user names and zones are refused.

This module resolves names but connects to nothing. `http_transfer.py` connects to the returned addresses and not to the
name, so a second look-up cannot lead to another address. It uses no proxies, because they resolve names themselves.
"""

import functools
import ipaddress
import os
import re
import socket
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from previts.errors import FetchError, InputError, RefusedError, VideoError

MAX_URL_LENGTH = 8192
# Control characters, ends of lines, and what reverses the direction of a text. Other characters that `str.isprintable`
# refuses are part of names: the joiners of Persian words and of emojis, the wide space of Japanese names.
_UNSAFE = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\u2028\\u2029\\u202a-\\u202e\\u2066-\\u2069\\ud800-\\udfff]")
_ALLOWED = "/?%:@!$&'()*+,;=~"  # characters of a path or a query that are sent as they are
_AUTHORITY = re.compile(r"(?:\[([0-9A-Fa-f.]*:[0-9A-Fa-f:.]*)\]|([^\[\]:]+))(?::[0-9]*)?")  # [IPv6] or name, port
_NAME = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")
_MAPPED = ipaddress.ip_network("::ffff:0:0/96")
_UNICAST = ipaddress.ip_network("2000::/3")  # the only addresses of IPv6 that IANA gives to hosts
# What `ipaddress` calls global (in some releases) and what is no host of the Internet. Without a remark: IANA's
# registries of special-purpose addresses (RFC 6890), IPv4 and IPv6, as of November 2026.
_SPECIAL = tuple(
    ipaddress.ip_network(block)
    for block in (
        "192.0.0.0/24",  # RFC 6890; 192.0.0.192 is the metadata server of Oracle's first cloud
        "192.31.196.0/24",  # RFC 7535, AS112
        "192.52.193.0/24",  # RFC 7450, AMT
        "192.88.99.0/24",  # RFC 7526, relays of 6to4
        "192.175.48.0/24",  # RFC 7534, AS112
        "2001::/23",  # RFC 2928, protocols of the IETF, among them Teredo
        "2001:db8::/32",  # RFC 3849, documentation
        "2002::/16",  # RFC 3056, 6to4: contains an IPv4 address
        "2620:4f:8000::/48",  # RFC 7534, AS112
        "3ffe::/16",  # RFC 3701, the former 6bone
        "3fff::/20",  # RFC 9637, documentation
        # Public numbers that clouds use inside.
        "34.118.224.0/20",  # GKE: services of a cluster
        "161.26.0.0/16",  # IBM: services of the private network
        "166.8.0.0/14",  # IBM: services of the private network
        "168.63.129.16/32",  # Azure: the wire server
        "199.36.153.4/30",  # Google: restricted.googleapis.com
        "199.36.153.8/30",  # Google: private.googleapis.com
    )
)
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True)
class WebAddress:
    """An http or https URL in parts; `host` is a name in ASCII or a plain address, `target` is path and query."""

    host: str
    port: int
    encrypted: bool
    target: str


@dataclass(frozen=True)
class _Trusted:
    """The hosts and networks of `PREVITS_TRUSTED_HOSTS`, each with its port or None for every port."""

    hosts: frozenset[tuple[str, int | None]]
    networks: tuple[tuple[_Network, int | None], ...]

    def names(self, host: str, port: int) -> bool:
        return (host, port) in self.hosts or (host, None) in self.hosts

    def contains(self, address: str, port: int) -> bool:
        ip = ipaddress.ip_address(address.split("%")[0])
        return any(allowed in (port, None) and ip in network for network, allowed in self.networks)


def is_plain(text: str) -> bool:
    """Return whether a path or URL is not too long, and has no characters that change how a message is shown."""
    return len(text) <= MAX_URL_LENGTH and not _UNSAFE.search(text)


def parse(url: str) -> WebAddress:
    """Return the parts of an http or https URL.

    Raises:
        VideoError: If the URL is not valid, has another scheme, a user name, or a host in an unusual form.
    """
    if not (is_plain(url) and url.isprintable()):  # joiners and wide spaces are part of names of files only
        raise VideoError(f"the address is not a valid URL: over {MAX_URL_LENGTH} characters, or unprintable ones")
    try:
        parts = urlsplit(url)
        place = _AUTHORITY.fullmatch(parts.netloc)
        port = parts.port
        query = "?" + quote(parts.query, safe=_ALLOWED) if parts.query else ""
        target = quote(parts.path or "/", safe=_ALLOWED) + query
    except ValueError:
        raise VideoError("the address is not a valid URL: its host or port cannot be read") from None
    scheme = parts.scheme if parts.scheme.isascii() else ""
    if scheme not in ("http", "https"):
        raise VideoError(f"the address leads to {scheme[:20] or 'no scheme'}://; only http and https are allowed")
    if "@" in parts.netloc:
        raise VideoError("the address contains a user name; remove it, only public videos are fetched")
    if place is None or port == 0:
        raise VideoError("the address is not a valid URL: its host or port cannot be read")
    encrypted = scheme == "https"
    return WebAddress(_plain_host(place[1] or place[2]), port or (443 if encrypted else 80), encrypted, target)


def checked_addresses(address: WebAddress) -> list[str]:
    """Resolve the host of a URL and return its addresses, if a crawl may reach every one of them.

    Raises:
        RefusedError: If the rules above refuse the host or one of its addresses.
        FetchError: If the host cannot be resolved; `retryable` unless the name does not exist.
        InputError: If `PREVITS_TRUSTED_HOSTS` cannot be read.
    """
    host, port = address.host, address.port
    trusted = _trusted(os.environ.get("PREVITS_TRUSTED_HOSTS", ""))
    named = trusted.names(host, port)
    plain = not (address.encrypted or named or os.environ.get("PREVITS_ALLOW_HTTP") == "1")
    if plain and not trusted.networks:
        raise RefusedError(_no_plain_http(host))
    found = _resolve(host, port)
    outside = [] if named else [item for item in found if not trusted.contains(item, port)]
    if plain and outside:
        raise RefusedError(_no_plain_http(host))
    private = [item for item in outside if not is_public(item)]
    if private:
        raise RefusedError(
            f"{host} leads to {private[0]}, which is not a public address; "
            "if you trust the host, add it to PREVITS_TRUSTED_HOSTS"
        )
    return found


def is_public(address: str) -> bool:
    """Return whether an IP address is reachable from the whole Internet and belongs to one host.

    IPv6 addresses that contain an IPv4 address are not public, because it could be private. The exception are mapped
    addresses (`::ffff:0:0/96`): their IPv4 address decides.
    """
    ip = ipaddress.ip_address(address.split("%")[0])  # without the zone of a link-local address
    if isinstance(ip, ipaddress.IPv6Address):
        if ip in _MAPPED:
            return is_public(str(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)))
        if ip not in _UNICAST:
            return False
    special = any(ip in block for block in _SPECIAL if block.version == ip.version)
    return ip.is_global and not ip.is_multicast and not ip.is_reserved and not special


def _no_plain_http(host: str) -> str:
    return (
        f"plain http to {host} is not allowed; use https, set PREVITS_ALLOW_HTTP=1 for public hosts, or add the host "
        "to PREVITS_TRUSTED_HOSTS if you trust it"
    )


def _plain_host(name: str) -> str:
    """Return a host in its only form: a name in ASCII and lower case without a final dot, or an address.

    Raises:
        VideoError: If it is neither a name nor a plain address; `127.1`, `0x7f.1`, `2130706433` and `010.0.0.1` are
            numbers that some programs read as addresses.
    """
    try:
        if ":" in name:
            return str(ipaddress.IPv6Address("" if "%" in name else name))
        host = name.encode("idna").decode().lower().removesuffix(".")
        last = host.rsplit(".", 1)[-1]
        if last.isdigit() or last.startswith("0x"):
            return str(ipaddress.IPv4Address(host))
    except ValueError:
        raise VideoError(
            "the host of the address is neither a name nor a plain address such as 192.0.2.1 or [2001:db8::1]"
        ) from None
    if len(host) > 253 or not _NAME.fullmatch(host):
        raise VideoError("the host of the address has characters or a length that a name cannot have")
    return host


@functools.lru_cache(maxsize=8)
def _trusted(text: str) -> _Trusted:
    hosts: set[tuple[str, int | None]] = set()
    networks: list[tuple[_Network, int | None]] = []
    for entry in filter(None, (entry.strip().lower() for entry in text.split(","))):
        try:
            inner, port = _split_port(entry)
            if "/" in inner:
                networks.append((ipaddress.ip_network(inner), port))
            else:
                hosts.add((_plain_host(inner), port))
        except (ValueError, VideoError):
            raise InputError(
                f"PREVITS_TRUSTED_HOSTS has the entry {entry!r}; expected names, addresses or networks separated by "
                "commas, such as videos.example, host:8080, 10.0.0.0/8 or [::1]:8080"
            ) from None
    return _Trusted(frozenset(hosts), tuple(networks))


def _split_port(entry: str) -> tuple[str, int | None]:
    """Split `host`, `host:port`, `[address]:port` or an IPv6 address or network without brackets."""
    found = re.fullmatch(r"\[([^\[\]]+)\](?::([0-9]{1,5}))?|([^:\[\]]+)(?::([0-9]{1,5}))?|([0-9a-f:./]+)", entry)
    if found is None:
        raise ValueError(entry)
    port = found[2] or found[4]
    if port and not 0 < int(port) < 65536:
        raise ValueError(entry)
    return found[1] or found[3] or found[5], int(port) if port else None


def _resolve(host: str, port: int) -> list[str]:
    """Return the addresses of a host, each once, in the order of the resolver; an address is not looked up."""
    try:
        return [str(ipaddress.ip_address(host))]
    except ValueError:
        pass
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        gone = isinstance(error, UnicodeError) or error.errno == socket.EAI_NONAME
        reason = "there is no such name" if gone else "the name server does not answer"
        raise FetchError(f"cannot resolve {host}: {reason}", retryable=not gone) from error
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))
