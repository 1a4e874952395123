"""Over TLS: the name is checked, though an address is dialled; certificates are attested."""

import datetime as dt
import hashlib
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpcore
import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from node.ingest.guard import Network
from node.ingest.http_fetch import HttpFetcher, Request
from node.ingest.location import HostRules, read_url
from tests.ingest.servers import reply
from wire.errors import Unreachable

NAME = "prices.example.org"


@dataclass(frozen=True)
class Certificate:
    """One that signed itself, and its files."""

    der: bytes
    pem: Path


def certificate_of(name: str, folder: Path) -> Certificate:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(dt.datetime(2020, 1, 1, tzinfo=dt.UTC))
        .not_valid_after(dt.datetime(2120, 1, 1, tzinfo=dt.UTC))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = folder / f"{name}.pem"
    pem.write_bytes(
        made.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return Certificate(made.public_bytes(serialization.Encoding.DER), pem)


async def serve(stream: trio.SSLStream[trio.SocketStream]) -> None:
    try:
        await stream.receive_some(65_536)
        await stream.send_all(reply(b"words"))
        await stream.aclose()
    except trio.BrokenResourceError:
        # The client did not like the certificate.
        return


async def loopback(host: str, port: int) -> Sequence[str]:
    return ["127.0.0.1"]


@pytest.mark.parametrize("shown", [NAME, "other.example.org"])
async def test_the_server_has_to_be_who_the_url_names(shown: str, tmp_path: Path) -> None:
    certificate = certificate_of(shown, tmp_path)
    theirs = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    theirs.load_cert_chain(certificate.pem)
    ours = ssl.create_default_context(cafile=certificate.pem)
    fetcher = HttpFetcher(Network(loopback, httpcore.TrioBackend()), ours)
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(
            partial(trio.serve_ssl_over_tcp, serve, 0, theirs, host="127.0.0.1")
        )
        port = listeners[0].transport_listener.socket.getsockname()[1]
        asked = Request(location=read_url(f"https://{NAME}:{port}/"))
        rules = HostRules(allow=(f"{NAME}:{port}",))
        if shown == NAME:
            found = await fetcher.get(asked, rules)
            assert found.body == b"words"
            length = len(certificate.der).to_bytes(4, "big")
            assert found.certificates == hashlib.sha256(length + certificate.der).digest()
        else:
            with pytest.raises(Unreachable, match=r"(?i)certificate|hostname"):
                await fetcher.get(asked, rules)
        nursery.cancel_scope.cancel()
