"""Hostile addresses of videos, each with the decision that it must get.

`addresses(seed, folder)` writes a few files and links into a folder and returns the rows of a crawl that lies in it.
The decisions follow from how an address is made, not from the code that decides:

    - "allowed": it may be fetched.
    - "refused": it is a proper address, but only the user can allow it.
    - "failed": it is broken, not supported, or names nothing.

`python tests/hostile/addresses.py FOLDER [SEED]` prints them.
"""

import ipaddress
import os
import random
import socket
import sys
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Decision = Literal["allowed", "refused", "failed"]

# Names and what a name server answers; no other name exists.
NAMES = {
    "localhost": ["127.0.0.1", "::1"],
    "videos.example": ["8.8.8.8", "2606:4700:4700::1111"],
    "xn--bcher-kva.example": ["1.1.1.1"],
    "inside.example": ["10.0.0.7"],
    "rebound.example": ["8.8.8.8", "169.254.169.254"],
    "six.example": ["fd00::7"],
    "mapped.example": ["::ffff:192.168.0.1"],
    "zone.example": ["fe80::1%eth0"],
}
TRUSTED_STORES = "gs://videos, s3://mirror/part"
# Blocks of IANA's registries of special-purpose addresses, and addresses of clouds.
SPECIAL_4 = (
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
    "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
    "224.0.0.0/4", "240.0.0.0/4", "168.63.129.16/32", "169.254.169.254/32", "100.100.100.200/32", "192.0.0.192/32",
)  # fmt: skip
SPECIAL_6 = (
    "::/128", "::1/128", "::7f00:0/112", "::ffff:127.0.0.0/104", "::ffff:10.0.0.0/104", "::ffff:0:7f00:0/112",
    "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "2001::/32", "2001:db8::/32", "2002::/16", "3fff::/20", "5f00::/16",
    "fc00::/7", "fd00:ec2::254/128", "fe80::/10", "fec0::/10", "ff00::/8", "4000::/3",
)  # fmt: skip
PUBLIC_4, PUBLIC_6 = ("1.1.1.1", "8.8.8.8", "93.184.216.34"), ("2606:4700:4700::1111", "2a00:1450:4001:800::200e")
SCHEMES = (
    "ftp", "ssh", "sftp", "scp", "hf", "github", "gist", "git", "zip", "tar", "jar", "libarchive", "local", "smb",
    "hdfs", "webhdfs", "dav", "oci", "dbfs", "dropbox", "gdrive", "root", "reference", "simplecache", "filecache",
    "blockcache", "dask", "lakefs", "rtsp", "rtmp", "mms", "udp", "tcp", "concat", "subfile", "crypto", "pipe", "tee",
    "gopher", "dict", "ldap", "ws", "javascript", "chrome", "view-source", "http+unix", "s3n", "gcs+http",
)  # fmt: skip


@dataclass(frozen=True)
class Address:
    """An address of a video, its decision, and whether a decision needs a name server (`named`)."""

    url: str
    decision: Decision
    named: bool = False

    @property
    def local(self) -> bool:
        """Whether the address names a file that can be stored without any network."""
        return self.decision == "allowed" and (self.url.lower().startswith("file:") or "://" not in self.url)


def addresses(seed: int, folder: Path, video: bytes = b"video") -> list[Address]:
    """Write the files that some addresses name, and return all addresses, each once; the seed chooses the variants."""
    chance = random.Random(seed)
    parts = (
        _numbers(chance),
        _hosts(chance),
        _schemes(chance),
        _files(chance, folder, video),
        _stores(),
        _garbage(chance),
    )
    return list({row.url: row for part in parts for row in part}.values())


def _in(chance: random.Random, block: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    network = ipaddress.ip_network(block)
    return network[chance.randrange(network.num_addresses)]


def _numbers(chance: random.Random) -> Iterator[Address]:
    """Addresses of IP in all forms."""
    odd: list[Callable[[int], str]] = [
        str,
        hex,
        lambda number: f"0{number:o}",
        lambda number: ".".join(f"0{byte:o}" for byte in number.to_bytes(4, "big")),
        lambda number: ".".join(hex(byte) for byte in number.to_bytes(4, "big")),
        lambda number: f"{number >> 24}.{number & 0xFFFFFF}",
        lambda number: f"{number >> 24}.{number >> 16 & 255}.{number & 0xFFFF}",
        lambda number: ".".join(f"{byte:04d}" for byte in number.to_bytes(4, "big")) + ".",
        lambda number: f"{number:d}.",
    ]
    for block in SPECIAL_4:
        ip = _in(chance, block)
        wide = "".join(chr(ord(letter) + 0xFEE0) if letter.isdigit() else letter for letter in str(ip))
        yield Address(f"https://{ip}/v.mp4", "refused")
        yield Address(f"https://{chance.choice([f'{ip}.', wide, str(ip).replace('.', '。')])}/", "refused")
        yield Address(
            f"{chance.choice(['http', 'HTTP'])}://{ip}:{chance.randrange(1, 65536)}/latest/meta-data", "refused"
        )
        yield Address(f"https://{chance.choice(odd)(int(ip) | 1 << 24)}/v.mp4", "failed")
        yield Address(f"https://{chance.choice(['u', 'u:p', '', '8.8.8.8'])}@{ip}/v.mp4", "failed")
        yield Address(f"https://[::ffff:{ip}]/v.mp4", "refused")
    for block in SPECIAL_6:
        ip = _in(chance, block)
        form = chance.choice([str(ip), ip.exploded, str(ip).upper()])
        yield Address(f"https://[{form}]:{chance.randrange(1, 65536)}/v.mp4", "refused")
        yield Address(f"https://[{ip}%25eth0]/v.mp4", "failed")
    for ip in (*PUBLIC_4, *(f"[{number}]" for number in PUBLIC_6)):
        yield Address(f"https://{ip}/v.mp4", "allowed")
        yield Address(f"https://{ip}:8443/v.mp4", "allowed")
        yield Address(f"http://{ip}/v.mp4", "refused")
        yield Address(f"https://{ip}:{chance.choice(['0', '65536', '99999', '-1', 'x', '4 3', '1e2'])}/", "failed")
    for broken in (
        "[bad",
        "[::1",
        "::1]",
        "[]",
        "[::1]x",
        "[1.2.3.4]",
        "[v1.x]",
        "[::1::]",
        "[::g]",
        "1.2.3.4.5",
        "256.1.1.1",
    ):
        yield Address(f"{chance.choice(['http', 'https'])}://{broken}/v.mp4", "failed")
        yield Address(f"file://{broken}/v.mp4", "failed")


def _hosts(chance: random.Random) -> Iterator[Address]:
    """Names of hosts, with answers of `NAMES`."""
    yield Address("https://videos.example/a b.mp4?x=%20&y=[]#f", "allowed", named=True)
    yield Address("HTTPS://VIDEOS.example.:443/../../etc/passwd", "allowed", named=True)
    yield Address("https://videos.example/x::file:///etc/passwd", "allowed", named=True)
    yield Address("https://bücher.example/ü.mp4", "allowed", named=True)
    yield Address("https://nowhere.example/", "failed", named=True)
    for name in ("inside", "rebound", "six", "mapped", "zone"):
        yield Address(f"https://{name}.example/v.mp4", "refused", named=True)
        yield Address(f"http://{name}.example/v.mp4", "refused")
    for name in ("localhost", "localhost.", "LocalHost", "①②⑦.0.0.①", "\uff4cocalhost"):
        yield Address(f"https://{name}:{chance.randrange(1, 65536)}/v.mp4", "refused")
    for name in (
        "x" * 64 + ".example", "a." * 127 + "example", "a..b", ".example", "exa mple.org", "videos.example\\@10.0.0.1",
        "videos.example%2eorg", "%6cocalhost", "videos.example%00", "<b>", "a,b", "videos.example\u2100",
        "user:pass@videos.example", "videos.example:443@10.0.0.1", "*.example", "", ":443", "$HOME", "{a,b}",
    ):  # fmt: skip
        yield Address(f"https://{name}/v.mp4", "failed")
    yield Address("https://videos.example/" + "x" * 9_000, "failed")
    for text in ("\x00", "\t", "\n", "\r\nHost: evil", "\x1b[31m", "\u202e", "\u2028", "\ufeff", "\x7f"):
        yield Address(f"https://videos.example/{text}v.mp4", "failed")
        yield Address(f"https://vid{text}eos.example/v.mp4", "failed")
    for page in ("redirect?q=http://10.0.0.1/", "watch?v=../../x", "watch", "playlist?list=x", "", "shorts/"):
        yield Address(f"https://{chance.choice(['www.', 'm.', ''])}youtube.com/{page}", "failed")
    yield Address("https://youtu.be/---g-f_I2yQ", "allowed")
    yield Address("http://www.youtube.com/watch?v=---g-f_I2yQ&t=1", "allowed")


def _schemes(chance: random.Random) -> Iterator[Address]:
    """Schemes that are not supported, and chains of fsspec."""
    for scheme in SCHEMES:
        place = chance.choice(["/etc/passwd", "videos.example/v.mp4", "user@10.0.0.1:22/v", "a::b", ""])
        yield Address(f"{chance.choice([scheme, scheme.upper()])}://{place}", "failed")
    for chain in (
        "simplecache::https://videos.example/v.mp4", "filecache::s3://bucket/v.mp4", "zip://*.mp4::file:///tmp/a.zip",
        "s3://bucket/v.mp4::file:///etc/passwd", "file:///etc/passwd::zip://x", "tar://a::b::c://d", "::https://x",
        "gs://videos/a.mp4::local:///etc/passwd", "s3://arn:aws:s3:::x/a", "memory://a::memory://b",
    ):  # fmt: skip
        yield Address(chain, "failed")
    for text in (
        "data:video/mp4;base64,AAAA", "javascript:alert(1)", "mailto:a@b", "file:/etc/passwd", "file:v.mp4",
        "about:blank",
        "https:/videos.example/v.mp4", "https//videos.example", "videos.example/v.mp4", "1http://videos.example/",
        "://x",
        "ht tp://videos.example/", "http\u200b://videos.example/", "C:\\v.mp4", "\\\\host\\share\\v.mp4", "concat:a|b",
    ):  # fmt: skip
        yield Address(text, "failed")


def _files(chance: random.Random, folder: Path, video: bytes) -> Iterator[Address]:
    """Paths and file URLs, with the files below `folder` that they name."""
    outside = folder.parent / f"{folder.name}-outside"
    for place in (folder / "deep", outside):
        place.mkdir(parents=True, exist_ok=True)
    for path in (folder / "good.mp4", folder / "a b%41#?*[x].mp4", outside / "v.mp4"):
        path.write_bytes(video)
    links = {"in.mp4": "deep/../good.mp4", "out.mp4": outside / "v.mp4", "folder": outside, "gone.mp4": "nothing.mp4"}
    links |= {"loop.mp4": "loop.mp4", "proc.mp4": "/proc/self/pagemap", "zero.mp4": "/dev/zero", "up": ".."}
    for name, to in links.items():
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(to)
    if not (folder / "pipe.mp4").exists():
        os.mkfifo(folder / "pipe.mp4")
        with socket.socket(socket.AF_UNIX) as end:
            end.bind(os.path.relpath(folder / "socket.mp4"))
    quoted = urllib.parse.quote("a b%41#?*[x].mp4")
    for url in ("good.mp4", "in.mp4", "./deep/../good.mp4", "a b%41#?*[x].mp4", f"file://{folder}/{quoted}"):
        yield Address(url, "allowed")
    yield Address(f"FILE://localhost{folder}/%67ood.mp4", "allowed")
    for url in (
        "out.mp4", "folder/v.mp4", "up/v.mp4", f"../{outside.name}/v.mp4", f"{outside}/v.mp4",
        f"up/{outside.name}/v.mp4",
        f"file://{folder}/%2e%2e/{outside.name}/v.mp4", f"file://{outside}/v.mp4", "zero.mp4", "..", "/",
        "//host/v.mp4",
        "/etc/shadow", "/etc/passwd", "FILE:///etc/passwd", "/dev/zero", "/dev/stdin/../tty", "/root/.ssh/id_rsa",
        "/dev/mem",
        "/home/../etc/passwd", "file:////etc/passwd", "file:///etc%2fpasswd", "/..%2f", f"{folder}-outside/v.mp4",
        "../" * 30 + "etc/passwd", "deep/" + "../" * 40 + "etc/passwd",
    ):  # fmt: skip
        yield Address(url, "refused")
    for url in (
        "proc.mp4", "/proc/self/pagemap", "/proc/self/environ", "/proc/kcore", "/sys/kernel/notes", "/proc",
        "/sys", "/./proc/self/maps", "file:///%70roc/self/mem", "/proc/self/fd/1", "/proc/self/root/etc/passwd",
        "gone.mp4", "loop.mp4", "pipe.mp4", "socket.mp4", "deep", ".", "good.mp4/x", "*.mp4", "[g]ood.mp4", "g?od.mp4",
        "{good,in}.mp4", "**", "GOOD.mp4 x", "~/v.mp4", "~root/v.mp4", "$HOME/v.mp4", "${PATH}", "`id`", "$(id)", "-rf",
        "good%2emp4", "a%20b%41#?*[x].mp4", f"file://{folder}/a b%41#?*[x].mp4",
        f"file://{folder}/{quoted.replace('%', '%25')}",
        f"file://{folder}/%2fetc%2fpasswd", "//proc/self/fd/1", f"file://{folder}/good.mp4%00.txt",
        f"file://{folder}/%0agood.mp4",
        f"file://{folder}/%ff%fe.mp4", "file://videos.example/v.mp4", "file://~/v.mp4", "file://127.0.0.1/etc/passwd",
        "file://", "x" * 300 + ".mp4", "d/" * 3000 + "v.mp4", "x" * 9_000, "good.mp4\x00", "good\n.mp4", "", " ",
    ):  # fmt: skip
        yield Address(url, "refused" if url == "file://" else "failed")


def _stores() -> Iterator[Address]:
    """Objects, for a crawl on the local disk."""
    for url in ("gs://videos/a.mp4", "GCS://videos/x/a b.mp4", "s3a://mirror/part/a%2e", "gs://videos/*"):
        yield Address(url, "allowed")
    for url in (
        "s3://bucket/v.mp4", "S3://mirror/v.mp4", "s3://mirror/partly/v.mp4", "gs://videos2/a.mp4",
        "gs://other/videos/a",
        "az://videos/a.mp4", "abfss://c@account.example/a", "memory://videos/a.mp4", "s3://key:secret@mirror/part/a",
        "s3://arn:aws:s3:eu:1:accesspoint/x/a", "gs:///other/a", "s3://mirror%2fpart/a", "s3://bücket/v", "gs://*/a",
    ):  # fmt: skip
        yield Address(url, "refused")
    for url in ("s3://", "gs:///", "s3://mirror/part/../v.mp4", "gs://videos/./../a", "s3://../x", "gs://videos/\x00"):
        yield Address(url, "failed")


def _garbage(chance: random.Random) -> Iterator[Address]:
    """Random text without `/`, so it could only be a file of the folder."""
    letters = "abcXYZ019 :;@?#[]{}()<>%&=+$*!~^|`'\"\\,.-_éß漢字😀"
    for _ in range(30):
        yield Address("x" + "".join(chance.choices(letters, k=chance.randrange(1, 60))) + "y", "failed")


if __name__ == "__main__":
    for row in addresses(int(sys.argv[2]) if len(sys.argv) > 2 else 0, Path(sys.argv[1])):
        print(f"{row.decision:8} {row.url[:150]!r}")
