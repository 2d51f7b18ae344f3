"""The certificates with which the programs of a node know each other: one authority, and a pair for each program."""

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFETIME = timedelta(days=7)


class Authority:
    """A certificate authority whose files are in one folder: `ca.crt`, and `NAME.crt` and `NAME.key` for each pair."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name("previts-node")
        constraints = x509.BasicConstraints(ca=True, path_length=0)
        certificate = _builder(self._name, self._name, self._key.public_key()).add_extension(constraints, critical=True)
        _write(folder / "ca.crt", _pem(certificate.sign(self._key, hashes.SHA256())))

    def issue(self, file: str, user: str, group: str = "", hosts: tuple[str, ...] = ()) -> None:
        """Write a certificate and its key.

        Args:
            file: Name of the two files, without suffix.
            user: Name of the user for Kubernetes.
            group: Group of the user, or "".
            hosts: Names and addresses under which the owner serves; without any, it is only a client.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        usage = [ExtendedKeyUsageOID.CLIENT_AUTH, *([ExtendedKeyUsageOID.SERVER_AUTH] if hosts else [])]
        builder = _builder(_name(user, group), self._name, key.public_key())
        builder = builder.add_extension(x509.ExtendedKeyUsage(usage), critical=False)
        if hosts:
            places = x509.SubjectAlternativeName([_host(host) for host in hosts])
            builder = builder.add_extension(places, critical=False)
        _write(self.folder / f"{file}.crt", _pem(builder.sign(self._key, hashes.SHA256())))
        write_key(self.folder / f"{file}.key", key)

    def kubeconfig(self, file: str, server: str) -> Path:
        """Write a kubeconfig for the owner of a pair, and return its path."""
        path = self.folder / f"{file}.kubeconfig"
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {"name": "node", "cluster": {"server": server, "certificate-authority": str(self.folder / "ca.crt")}}
            ],
            "users": [
                {
                    "name": file,
                    "user": {
                        "client-certificate": str(self.folder / f"{file}.crt"),
                        "client-key": str(self.folder / f"{file}.key"),
                    },
                }
            ],
            "contexts": [{"name": "node", "context": {"cluster": "node", "user": file}}],
            "current-context": "node",
        }
        _write(path, yaml.safe_dump(document).encode())
        return path


def write_key(path: Path, key: ec.EllipticCurvePrivateKey | None = None) -> None:
    """Write a private key, by default a new one."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    form = serialization.PrivateFormat.TraditionalOpenSSL
    _write(path, key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
    builder = builder.serial_number(x509.random_serial_number())
    return builder.not_valid_before(now - timedelta(hours=1)).not_valid_after(now + LIFETIME)


def _name(user: str, group: str = "") -> x509.Name:
    parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group)] if group else []
    return x509.Name([*parts, x509.NameAttribute(NameOID.COMMON_NAME, user)])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _write(path: Path, content: bytes) -> None:
    path.touch(mode=0o600)
    path.write_bytes(content)
