"""TLS of the service's ports: the certificate that it shows, and whose certificates it takes from callers."""

from __future__ import annotations

import ssl
from pathlib import Path

import grpc

from serendipity.channel.service.reread import CredentialsUnusable, Reread
from serendipity.channel.service.settings import ServerSettings


def server_credentials(settings: ServerSettings) -> grpc.ServerCredentials | None:
    """Make the credentials of one server; None without a certificate: plain text.

    gRPC looks at the files before every handshake, so a renewed certificate serves the next connection. Raises
    CredentialsUnusable.
    """
    certificate, key, client_ca = settings.tls_certificate, settings.tls_key, settings.tls_client_ca
    if certificate is None or key is None:
        return None
    files = [certificate, key, *([client_ca] if client_ca else [])]
    certificates = Reread(files, lambda: _read(certificate, key, client_ca))

    def renewed() -> grpc.ServerCertificateConfiguration | None:
        return certificates.value if certificates.changed() else None

    return grpc.dynamic_ssl_server_credentials(certificates.value, renewed, client_ca is not None)


def _read(certificate: Path, key: Path, client_ca: Path | None) -> grpc.ServerCertificateConfiguration:
    try:
        pair = key.read_bytes(), certificate.read_bytes()
        roots = client_ca.read_bytes() if client_ca else None
    except OSError as error:
        raise CredentialsUnusable(f"{error.filename}: cannot be read ({error.strerror})") from error
    # Python's own TLS tells what is wrong; gRPC would say no more than that handshakes fail.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key, password="")
    except ssl.SSLError as error:
        raise CredentialsUnusable(
            f"{certificate}, {key}: found {error.reason or error}, expected a certificate chain and its key, in PEM"
        ) from error
    try:
        if roots is not None:
            context.load_verify_locations(cadata=roots.decode("ascii", "ignore"))
    except (ssl.SSLError, ValueError) as error:
        raise CredentialsUnusable(f"{client_ca}: found no certificates in PEM ({error})") from error
    return grpc.ssl_server_certificate_configuration([pair], roots)
