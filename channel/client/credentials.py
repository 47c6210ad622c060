"""What a client shows of itself, and how it knows the service."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc


@dataclass(frozen=True)
class Credentials:
    """For calls over TLS, and for services that ask who calls.

    ca: certificates (PEM), one of which must have signed the service's; without it calls go in plain text. certificate,
    key: the client's own (PEM), where the service asks for one. token: where the service knows its callers by tokens.
    Raises ValueError for a certificate without its key or without ca, and a token that no header can carry.
    """

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    token: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate, key: found one of them, expected both or none")
        if self.certificate and not self.ca:
            raise ValueError("certificate: found no ca beside it, expected one: without it calls go in plain text")
        if not (self.token.isascii() and self.token.isprintable()):
            # Not repeated. The end of a line, as files have it, is what is usually too much.
            raise ValueError("token: found characters that are not visible ASCII, expected a token in one line")

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What goes with every call."""
        return (("authorization", f"Bearer {self.token}"),) if self.token else ()

    def connect(self, grpc_api: Any, address: str, options: Sequence[tuple[str, Any]] = ()) -> Any:
        """Make a connection. grpc_api: `grpc`, or `grpc.aio` for one of an event loop. Raises OSError for the files."""
        if self.ca is None:
            return grpc_api.insecure_channel(address, options=options)
        own = (self.key.read_bytes(), self.certificate.read_bytes()) if self.key and self.certificate else ()
        return grpc_api.secure_channel(
            address, grpc.ssl_channel_credentials(self.ca.read_bytes(), *own), options=options
        )


NO_CREDENTIALS = Credentials()
"""Plain text, and no word of who calls."""
