"""What a client may be given to show, and what it never shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from serendipity.channel.client import AdminClient, Credentials

FILE = Path("file.pem")


def test_a_token_goes_with_calls_and_into_no_log() -> None:
    credentials = Credentials(token="secret")
    assert credentials.metadata == (("authorization", "Bearer secret"),)
    assert "secret" not in repr(credentials)
    assert Credentials().metadata == ()


def test_files_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(ValueError, match="certificate, key: found one of them"):
        Credentials(FILE, certificate=FILE)
    with pytest.raises(ValueError, match="found no ca beside it"):
        Credentials(certificate=FILE, key=FILE)


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"ca\.pem"):
        AdminClient("localhost:1", credentials=Credentials(tmp_path / "ca.pem"))


@pytest.mark.parametrize("token", ["secret\n", "one\ntwo", "gehéim"])
def test_a_token_that_no_header_can_carry_is_refused_and_not_repeated(token: str) -> None:
    with pytest.raises(ValueError, match="token: found characters that are not visible ASCII") as refused:
        Credentials(token=token)
    assert token not in str(refused.value)
