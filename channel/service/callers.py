"""Who may call what, and how much: callers that a file names, known by their tokens or their certificates.

[shop]
role = "host"
tokens = ["9f86d081…"]                 # SHA-256 of each, in hex; two while one replaces the other
calls_at_once = 64
calls_per_second = 200

[release]
role = "operator"
certificates = ["release.internal"]    # a name in the certificate that the caller shows
"""

from __future__ import annotations

import hashlib
import hmac
import math
import time
import tomllib
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

import grpc
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from serendipity.channel.errors import Overloaded, PermissionDenied, Unauthenticated
from serendipity.channel.service.reread import CredentialsUnusable, Reread

_AUTHORIZATION = "authorization"
"""Metadata key of a caller's token, as "Bearer TOKEN"."""

Role = Literal["host", "operator"]
"""A host calls SerendipityChannel, an operator SerendipityAdmin; neither the other's."""

_LOOK_SECONDS = 1.0
_ROUNDING_SECONDS = 1e-6
_EXPECTED = "expected 'Bearer TOKEN' in the metadata's authorization, or a client certificate, of a caller"


class Rights(BaseModel):
    """What the file says of a caller."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    role: Role
    tokens: tuple[Annotated[str, Field(pattern="^[0-9a-f]{64}$")], ...] = ()
    certificates: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    calls_at_once: int | None = Field(default=None, ge=1)
    calls_per_second: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _can_be_known(self) -> Self:
        if not self.tokens and not self.certificates:
            raise ValueError("found neither tokens nor certificates, expected at least one")
        return self


class Caller:
    """A caller, and the calls that it makes of one worker. `with caller:` is one of them.

    Raises Overloaded for a call beyond its limits. Of a second's calls all may come at once. clock: seconds.
    """

    def __init__(self, name: str, rights: Rights, clock: Callable[[], float] = time.monotonic) -> None:
        self.name, self.role = name, rights.role
        self._at_once, self._running = rights.calls_at_once or math.inf, 0
        self._a_second, self._clock = rights.calls_per_second, clock
        self._booked_until = 0.0

    def __enter__(self) -> None:
        if self._running >= self._at_once:
            raise Overloaded(f"{self.name}: {self._at_once:g} calls are being answered, as many as it may make at once")
        if self._a_second:
            # Each call books its part of a second; what is booked is at most a second ahead.
            now, each = self._clock(), 1 / self._a_second
            booked_until = max(self._booked_until, now) + each
            wait = booked_until - now - max(1.0, each)
            if wait > _ROUNDING_SECONDS:
                raise Overloaded(f"{self.name}: called more often than {self._a_second:g} times a second", wait)
            self._booked_until = booked_until
        self._running += 1

    def __exit__(self, *_: object) -> None:
        self._running -= 1


ANYBODY = Caller("anybody", Rights.model_construct(role="host"))
"""Who calls where there is no file of callers: without limits."""


class Callers:
    """The callers of one server, which must have a role. The file is read again within a second of its change.

    Raises CredentialsUnusable for a file that cannot be used at the start. clock: seconds.
    """

    def __init__(self, path: Path, role: Role, clock: Callable[[], float] = time.monotonic) -> None:
        self._role, self._clock = role, clock
        self._known = Reread([path], lambda: _Known(path, clock))
        self._next_look = clock() + _LOOK_SECONDS

    def of(self, metadata: Mapping[str, str | bytes], context: grpc.aio.ServicerContext) -> Caller:
        """Tell who makes a call. Raises Unauthenticated, or PermissionDenied for a caller of another role."""
        if self._clock() >= self._next_look:
            self._next_look = self._clock() + _LOOK_SECONDS
            self._known.changed()
        known, told = self._known.value, metadata.get(_AUTHORIZATION)
        caller = known.by_certificate(context) if told is None else known.by_token(told)
        if caller.role != self._role:
            raise PermissionDenied(f"{caller.name}: found role {caller.role}, expected {self._role}")
        return caller


class _Known:
    """The callers of a file. Raises CredentialsUnusable."""

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        self._by_digest: dict[bytes, Caller] = {}
        self._by_certificate: dict[bytes, Caller] = {}
        for name, rights in _read(path).items():
            caller = Caller(name, rights, clock)
            self._by_digest |= {bytes.fromhex(token): caller for token in rights.tokens}
            self._by_certificate |= {certificate.encode(): caller for certificate in rights.certificates}

    def by_token(self, authorization: str | bytes) -> Caller:
        """Tell whose token it is. Raises Unauthenticated."""
        scheme, _, token = str(authorization).partition(" ")
        if scheme.lower() != "bearer":
            raise Unauthenticated(f"found another authorization, {_EXPECTED}")
        digest, found = hashlib.sha256(token.encode()).digest(), None
        for known, caller in self._by_digest.items():
            # All are compared, each in constant time: how long it takes tells nothing of any token.
            if hmac.compare_digest(known, digest):
                found = caller
        if found is None:
            raise Unauthenticated(f"found a token that is nobody's, {_EXPECTED}")
        return found

    def by_certificate(self, context: grpc.aio.ServicerContext) -> Caller:
        """Tell whose certificate the connection showed, by its alternative names, or its common name if it has none.

        Raises Unauthenticated.
        """
        names = context.peer_identities() or ()
        for name in names:
            if name in self._by_certificate:
                return self._by_certificate[name]
        shown = b", ".join(names).decode(errors="replace")
        raise Unauthenticated(f"found {f'the certificate of {shown}' if shown else 'no token'}, {_EXPECTED}")


def _read(path: Path) -> dict[str, Rights]:
    try:
        callers = TypeAdapter(dict[str, Rights]).validate_python(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise CredentialsUnusable(f"{path}: cannot be read ({error.strerror})") from error
    except ValidationError as error:
        wrong = error.errors()[0]
        where = ".".join(map(str, wrong["loc"]))
        # What is found is not repeated: it may be a token that was written where its digest is expected.
        raise CredentialsUnusable(f"{path}: {where}: {wrong['msg'].removeprefix('Value error, ')}") from error
    except ValueError as error:
        raise CredentialsUnusable(f"{path}: found no TOML ({error})") from error
    shown = Counter(proof for rights in callers.values() for proof in (*rights.tokens, *rights.certificates))
    if twice := [proof for proof, count in shown.items() if count > 1]:
        raise CredentialsUnusable(f"{path}: found {twice[0]} more than once, expected each of one caller")
    return callers
