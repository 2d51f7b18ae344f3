"""Oracles: the special-purpose registries of IANA (RFC 6890), and the rules as tables. Nothing is connected to."""

import ipaddress
import socket

import pytest

from previts.errors import FetchError, InputError, RefusedError, VideoError
from previts.ingest.url_guard import checked_addresses, is_public, parse

# First and last address of blocks that are not public, of private networks and of special use.
BLOCKS = {
    "0.0.0.0/8": "this network",
    "10.0.0.0/8": "private",
    "100.64.0.0/10": "shared by carriers",
    "127.0.0.0/8": "loopback",
    "169.254.0.0/16": "link-local, metadata servers of clouds",
    "172.16.0.0/12": "private",
    "192.0.2.0/24": "documentation",
    "192.168.0.0/16": "private",
    "198.18.0.0/15": "benchmarks",
    "224.0.0.0/4": "multicast",
    "240.0.0.0/4": "reserved",
    "::/128": "unspecified",
    "::1/128": "loopback",
    "fc00::/7": "unique local",
    "fe80::/10": "link-local",
    "ff00::/8": "multicast",
    "2001:db8::/32": "documentation",
    "2002::/16": "6to4, contains an IPv4 address",
    "2001::/32": "Teredo, contains an IPv4 address",
    "64:ff9b::/96": "NAT64, contains an IPv4 address",
    "::ffff:10.0.0.0/104": "mapped private",
    "::ffff:127.0.0.0/104": "mapped loopback",
    "192.0.0.0/24": "protocols of the IETF, and a metadata server",
    "192.31.196.0/24": "AS112",
    "192.52.193.0/24": "AMT",
    "192.88.99.0/24": "relays of 6to4",
    "192.175.48.0/24": "AS112",
    "198.51.100.0/24": "documentation",
    "203.0.113.0/24": "documentation",
    "168.63.129.16/32": "Azure's wire server",
    "34.118.224.0/20": "services of a GKE cluster",
    "199.36.153.4/30": "Google's restricted API",
    "64:ff9b:1::/48": "local NAT64",
    "100::/64": "discard",
    "100:0:0:1::/64": "dummy",
    "2001::/23": "protocols of the IETF",
    "2620:4f:8000::/48": "AS112",
    "3ffe::/16": "former 6bone",
    "3fff::/20": "documentation",
    "5f00::/16": "segment routing",
    "fec0::/10": "site-local",
    "::7f00:0/104": "IPv4-compatible loopback",
    "::a00:0/104": "IPv4-compatible private",
    "::ffff:0:7f00:0/120": "IPv4-translated loopback",
    "4000::/3": "not assigned",
    "8000::/1": "not assigned, or of special use",
}
PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "::ffff:8.8.8.8",  # mapped: the same host as 8.8.8.8
    "2606:4700:4700::1111",
    # The neighbours of the private blocks.
    "9.255.255.255",
    "11.0.0.0",
    "100.63.255.255",
    "100.128.0.0",
    "126.255.255.255",
    "128.0.0.0",
    "169.253.255.255",
    "169.255.0.0",
    "172.15.255.255",
    "172.32.0.0",
    "192.167.255.255",
    "192.169.0.0",
    "192.0.1.0",
    "191.255.255.255",
    "168.63.129.15",
    "168.63.129.17",
    "2001:200::1",
    "2001:db7:ffff::1",
    "2a00:1450:4001::1",
    "2003::1",
    "2c0f::1",
]


@pytest.fixture(autouse=True)
def default_rules(monkeypatch):
    monkeypatch.delenv("PREVITS_ALLOW_HTTP", raising=False)
    monkeypatch.delenv("PREVITS_TRUSTED_HOSTS", raising=False)


@pytest.fixture
def resolver(monkeypatch):
    """A name server: host names and the addresses that it answers."""
    names: dict[str, list[str]] = {}

    def answer(host, port, type):
        if host not in names:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, type, 6, "", (address, port)) for address in names[host]]

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    return names


def checked(host, *, encrypted=True, port=None):
    shown = f"[{host}]" if ":" in host else host
    url = f"{'https' if encrypted else 'http'}://{shown}{f':{port}' if port else ''}/x"
    return checked_addresses(parse(url))


@pytest.mark.parametrize("block", BLOCKS)
def test_addresses_of_special_blocks_are_not_public(block):
    network = ipaddress.ip_network(block)
    assert not is_public(str(network[0]))
    assert not is_public(str(network[-1]))


@pytest.mark.parametrize("address", PUBLIC)
def test_other_addresses_are_public(address):
    assert is_public(address)


def test_the_zone_of_an_address_is_ignored():
    assert not is_public("fe80::1%eth0")


def test_https_reaches_a_host_whose_addresses_are_all_public(resolver):
    resolver["videos.example"] = ["8.8.8.8", "1.1.1.1", "8.8.8.8"]
    assert checked("videos.example") == ["8.8.8.8", "1.1.1.1"]


@pytest.mark.parametrize("private", ["10.0.0.1", "127.0.0.1", "169.254.169.254", "::1", "fd00::1"])
def test_a_name_with_one_private_address_is_refused(resolver, private):
    resolver["videos.example"] = ["8.8.8.8", private]
    with pytest.raises(VideoError, match=f"videos.example leads to {private}, .*PREVITS_TRUSTED_HOSTS"):
        checked("videos.example")


@pytest.mark.parametrize("host", ["10.0.0.1", "100.64.0.1", "169.254.169.254", "fd00::1", "::ffff:10.0.0.1"])
def test_a_private_address_is_refused(host):
    with pytest.raises(RefusedError, match="not a public address"):
        checked(host)


@pytest.mark.parametrize(
    "host",
    [
        "2130706433", "0x7f.1", "0x7f000001", "017700000001", "127.1", "127.0.1", "0177.0.0.1", "127.0.0.1.5",
        "256.1.1.1", "08.8.8.8", "8.8.8.8.8", "\uff11\uff12\uff17.1", "127\u30020\u30021", "fe80::1%25eth0", "::1%1",
        "::g", "1::2::3", "a_b c", "%31%32%37.0.0.1", "x" * 64 + ".example", "a..b", "exa\\mple.org", "\u2460.\u2461",
    ],
)  # fmt: skip
def test_a_host_is_a_name_or_a_plain_address(host):
    with pytest.raises(VideoError, match=r"the host of the address|not a valid URL") as caught:
        checked(host)
    assert not isinstance(caught.value, FetchError)


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("https://EXAMPLE.org./a b?x=%20#f", ("example.org", 443, True, "/a%20b?x=%20")),
        ("http://[::1]:80", ("::1", 80, False, "/")),
        ("https://[::FFFF:10.0.0.1]:8/", ("::ffff:a00:1", 8, True, "/")),
        ("HTTPS://b\u00fccher.example/\u00fc", ("xn--bcher-kva.example", 443, True, "/%C3%BC")),
        ("https://\uff11\uff10.0.0.1/", ("10.0.0.1", 443, True, "/")),  # full-width digits
        ("https://127.0.0.1./", ("127.0.0.1", 443, True, "/")),
    ],
)
def test_a_url_has_one_form(url, parts):
    found = parse(url)
    assert (found.host, found.port, found.encrypted, found.target) == parts


def test_plain_http_needs_permission_and_still_reaches_no_private_address(resolver, monkeypatch):
    resolver.update({"videos.example": ["8.8.8.8"], "inside.example": ["10.0.0.1"]})
    for host in resolver:
        match = f"plain http to {host} is not allowed; .*PREVITS_ALLOW_HTTP=1 .*PREVITS_TRUSTED_HOSTS"
        with pytest.raises(VideoError, match=match):
            checked(host, encrypted=False)
    monkeypatch.setenv("PREVITS_ALLOW_HTTP", "1")
    assert checked("videos.example", encrypted=False) == ["8.8.8.8"]
    with pytest.raises(VideoError, match="not a public address"):
        checked("inside.example", encrypted=False)


@pytest.mark.parametrize("host", ["localhost", "localhost.", "127.0.0.1", "127.8.9.1", "::1", "0.0.0.0", "::"])
def test_this_machine_is_reached_only_if_it_is_trusted_by_name(resolver, monkeypatch, host):
    resolver["localhost"] = ["127.0.0.1"]
    monkeypatch.setenv("PREVITS_ALLOW_HTTP", "1")
    for encrypted in (False, True):
        with pytest.raises(RefusedError, match="PREVITS_TRUSTED_HOSTS"):
            checked(host, encrypted=encrypted)
    monkeypatch.setenv("PREVITS_TRUSTED_HOSTS", "localhost, 127.0.0.1:80, 127.8.9.1, [::1], 0.0.0.0, ::")
    assert checked(host, encrypted=False)


TRUSTED = "inside.example:8080, 10.1.0.0/16, [fd00::5]:8443, 192.168.0.0/24:80, fd01::/16"


@pytest.mark.parametrize(
    ("host", "port", "allowed"),
    [
        ("inside.example", 8080, True),
        ("inside.example", 8081, False),
        ("inside.example", None, False),
        ("sub.inside.example", 8080, False),
        ("10.1.255.255", 9999, True),
        ("10.2.0.0", None, False),
        ("wiki.example", None, True),  # its address lies in a trusted network
        ("wiki2.example", None, False),  # one of its addresses does not
        ("fd00::5", 8443, True),
        ("fd00::5", 443, False),
        ("192.168.0.7", 80, True),
        ("192.168.0.7", 443, False),
        ("fd01:ffff::1", 1, True),
        ("::ffff:10.1.0.1", None, False),
    ],
)
def test_trusted_hosts_are_names_addresses_and_networks_with_ports(resolver, monkeypatch, host, port, allowed):
    monkeypatch.setenv("PREVITS_TRUSTED_HOSTS", TRUSTED)
    resolver.update({"wiki.example": ["10.1.2.3"], "wiki2.example": ["10.1.2.3", "10.9.9.9"]})
    resolver.update({"inside.example": ["10.0.0.1"], "sub.inside.example": ["10.0.0.1"]})
    for encrypted in (False, True):
        if allowed:
            assert checked(host, encrypted=encrypted, port=port or 443)
        else:
            with pytest.raises(RefusedError):
                checked(host, encrypted=encrypted, port=port or 443)


@pytest.mark.parametrize(
    "entry", ["10.0.0.1/8", "10.0.0.0/99", "host:0", "host:99999", "host:x", "127.1", "[::1", "a b", "http://x", "*.x"]
)
def test_a_broken_list_of_trusted_hosts_is_named(monkeypatch, entry):
    monkeypatch.setenv("PREVITS_TRUSTED_HOSTS", f"fine.example, {entry}")
    with pytest.raises(InputError, match=r"PREVITS_TRUSTED_HOSTS has the entry '.*'; expected names"):
        checked("8.8.8.8")


def test_trusted_hosts_may_have_any_address_and_scheme(resolver, monkeypatch):
    monkeypatch.setenv("PREVITS_TRUSTED_HOSTS", "other.example, Inside.Example")
    resolver.update({"inside.example": ["10.0.0.1"], "sub.inside.example": ["10.0.0.1"]})
    for encrypted in (False, True):
        assert checked("inside.example", encrypted=encrypted) == ["10.0.0.1"]
    with pytest.raises(VideoError, match="not a public address"):
        checked("sub.inside.example")


def test_empty_names_in_the_list_trust_no_host(resolver, monkeypatch):
    resolver["videos.example"] = ["10.0.0.1"]
    for listed in ("", ",", " , "):
        monkeypatch.setenv("PREVITS_TRUSTED_HOSTS", listed)
        with pytest.raises(RefusedError):
            checked("videos.example")


def test_a_name_that_does_not_exist_is_final_and_a_busy_name_server_is_retryable(resolver, monkeypatch):
    with pytest.raises(FetchError, match=r"cannot resolve nowhere\.example") as caught:
        checked("nowhere.example")
    assert not caught.value.retryable

    def busy(*arguments, **options):
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", busy)
    with pytest.raises(FetchError) as caught:
        checked("videos.example")
    assert caught.value.retryable


def test_the_name_of_this_machine_is_refused():
    try:
        found = {entry[4][0] for entry in socket.getaddrinfo(socket.gethostname(), 80)}
    except OSError:
        pytest.skip("the name of this machine has no address")
    if any(ipaddress.ip_address(address.split("%")[0]).is_global for address in found):
        pytest.skip("the name of this machine has a public address")
    with pytest.raises(VideoError, match="not a public address"):
        checked(socket.gethostname())
