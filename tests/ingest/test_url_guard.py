"""Oracles: the special-purpose registries of IANA (RFC 6890), and the rules as tables. Nothing is connected to."""

import ipaddress
import socket

import pytest

from previts.errors import FetchError, VideoError
from previts.ingest.url_guard import checked_addresses, is_public, is_trusted

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


def checked(host, *, encrypted=True, redirected=False):
    return checked_addresses(host, 443 if encrypted else 80, encrypted=encrypted, redirected=redirected)


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
    for redirected in (False, True):
        assert checked("videos.example", redirected=redirected) == ["8.8.8.8", "1.1.1.1"]


@pytest.mark.parametrize("private", ["10.0.0.1", "127.0.0.1", "169.254.169.254", "::1", "fd00::1"])
def test_a_name_with_one_private_address_is_refused(resolver, private):
    resolver["videos.example"] = ["8.8.8.8", private]
    with pytest.raises(VideoError, match=f"videos.example leads to {private}, .*PREVITS_TRUSTED_HOSTS"):
        checked("videos.example")


@pytest.mark.parametrize(
    "host", ["10.0.0.1", "100.64.0.1", "169.254.169.254", "2130706433", "0x7f.1", "fd00::1", "::ffff:10.0.0.1"]
)
def test_a_private_address_is_refused_in_every_notation(host):  # 2130706433 and 0x7f.1 are 127.0.0.1
    with pytest.raises(VideoError, match="not a public address"):
        checked(host)


def test_plain_http_needs_permission_and_still_reaches_no_private_address(resolver, monkeypatch):
    resolver.update({"videos.example": ["8.8.8.8"], "inside.example": ["10.0.0.1"]})
    for host in resolver:
        with pytest.raises(VideoError, match=f"plain http to {host} is not allowed; .*PREVITS_ALLOW_HTTP=1"):
            checked(host, encrypted=False)
    monkeypatch.setenv("PREVITS_ALLOW_HTTP", "1")
    assert checked("videos.example", encrypted=False) == ["8.8.8.8"]
    with pytest.raises(VideoError, match="not a public address"):
        checked("inside.example", encrypted=False)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.9.1", "::1"])
def test_this_machine_is_reached_only_if_the_crawl_names_it(resolver, host):
    resolver[host] = ["127.0.0.1"]
    for encrypted in (False, True):
        assert checked(host, encrypted=encrypted) == ["127.0.0.1"]
        with pytest.raises(VideoError):
            checked(host, encrypted=encrypted, redirected=True)
    assert is_trusted(host, redirected=False)
    assert not is_trusted(host, redirected=True)


@pytest.mark.parametrize("host", ["localhost.example", "10.0.0.1", "::ffff:10.0.0.1", "0.0.0.0", ""])
def test_other_hosts_are_not_trusted(host):
    assert not is_trusted(host, redirected=False)


def test_trusted_hosts_may_have_any_address_and_scheme(resolver, monkeypatch):
    monkeypatch.setenv("PREVITS_TRUSTED_HOSTS", "other.example, Inside.Example")
    resolver.update({"inside.example": ["10.0.0.1"], "sub.inside.example": ["10.0.0.1"]})
    for encrypted in (False, True):
        for redirected in (False, True):
            assert checked("inside.example", encrypted=encrypted, redirected=redirected) == ["10.0.0.1"]
    with pytest.raises(VideoError, match="not a public address"):
        checked("sub.inside.example")


def test_empty_names_in_the_list_trust_no_host(monkeypatch):
    for listed in ("", ",", " , "):
        monkeypatch.setenv("PREVITS_TRUSTED_HOSTS", listed)
        assert not is_trusted("", redirected=False)
        assert not is_trusted("videos.example", redirected=False)


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


def test_a_name_that_cannot_be_encoded_is_final():
    with pytest.raises(FetchError, match="cannot resolve") as caught:
        checked("a" * 70 + ".example")  # a label of DNS has at most 63 characters
    assert not caught.value.retryable


def test_the_name_of_this_machine_is_refused():
    try:
        found = {entry[4][0] for entry in socket.getaddrinfo(socket.gethostname(), 80)}
    except OSError:
        pytest.skip("the name of this machine has no address")
    if any(ipaddress.ip_address(address.split("%")[0]).is_global for address in found):
        pytest.skip("the name of this machine has a public address")
    with pytest.raises(VideoError, match="not a public address"):
        checked(socket.gethostname())
