"""The child that runs yt-dlp: with the network, but without secrets and without files of others.

Not in the paper. yt-dlp reads web pages of strangers and runs parts of them. `fetch.py` starts this program with a
folder and the arguments of yt-dlp.
"""

import importlib.util
import os
import sys

from previts.ingest import confinement

# What Python, a resolver of names, TLS and the programs that yt-dlp starts read, besides their packages.
_SYSTEM = (
    "/usr", "/bin", "/lib", "/lib64", "/opt", "/etc/ld.so.cache", "/etc/alternatives", "/etc/resolv.conf", "/etc/hosts",
    "/etc/host.conf", "/etc/nsswitch.conf", "/etc/gai.conf", "/etc/services", "/etc/protocols", "/etc/localtime",
    "/etc/mime.types", "/etc/ssl/certs", "/etc/ssl/openssl.cnf", "/etc/ca-certificates", "/etc/pki/tls",
    "/etc/pki/ca-trust", "/dev/urandom",
)  # fmt: skip


def main(folder: str, arguments: list[str]) -> None:
    """Confine this process to a folder, and run yt-dlp in it."""
    trusted = [os.environ[name] for name in ("SSL_CERT_FILE", "SSL_CERT_DIR") if name in os.environ]
    found = importlib.util.find_spec("yt_dlp")
    packages = os.path.dirname(os.path.dirname(found.origin)) if found and found.origin else sys.prefix
    layers = confinement.confine_files([*_SYSTEM, sys.prefix, sys.base_prefix, packages, *trusted], folder)
    confinement.check(layers, network=True)
    os.chdir(folder)
    import yt_dlp

    yt_dlp.main(arguments)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
