"""Who is let in, and as whom."""

from pathlib import Path

import pytest

from cloud.tenants import Doorkeeper, Peer, TenantSettings, read_tokens
from paceline.errors import ConfigError, UnauthenticatedError

ALICE, BOB = "a" * 20, "b" * 20
TOKENS = {ALICE: "alice", BOB: "bob"}


def admit(settings: TenantSettings, authorization: str | None, name: str | None = None) -> Peer:
    return Doorkeeper(settings).admit(authorization=authorization, certificate_name=name)


def test_a_token_names_its_tenant() -> None:
    settings = TenantSettings(tokens=TOKENS)
    assert admit(settings, f"Bearer {BOB}") == Peer(tenant="bob", namespace="bob")
    assert admit(settings, f"bearer {ALICE}").tenant == "alice"


@pytest.mark.parametrize(
    "authorization", [None, "", f"Basic {ALICE}", "Bearer", f"Bearer {ALICE}x"]
)
def test_others_stay_out(authorization: str | None) -> None:
    with pytest.raises(UnauthenticatedError, match="authorization") as caught:
        admit(TenantSettings(tokens=TOKENS), authorization, "alice")
    assert ALICE not in str(caught.value)


def test_a_certificate_names_its_tenant_where_no_token_is_asked_for() -> None:
    assert admit(TenantSettings(), None, "edge-7") == Peer(tenant="edge-7", namespace="edge-7")


def test_nobody_has_to_say_who_they_are_by_default() -> None:
    assert admit(TenantSettings(anonymous_namespace="local"), None) == Peer(
        tenant="", namespace="local"
    )


def test_tokens_are_not_shown() -> None:
    assert ALICE not in repr(TenantSettings(tokens=TOKENS))


@pytest.mark.parametrize("tokens", [{"short": "x"}, {"a b" * 10: "x"}, {ALICE: ""}])
def test_tokens_are_checked(tokens: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="token") as caught:
        TenantSettings(tokens=tokens)
    assert next(iter(tokens)) not in str(caught.value).split()


def test_token_file(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text(f"# who may\n\nalice {ALICE}\n  bob\t{BOB}\n", encoding="utf-8")
    assert read_tokens(path) == TOKENS


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (f"alice {ALICE}\nbob\n", "line 2"),
        (f"alice {ALICE} more\n", "line 1"),
        (f"alice {ALICE}\nbob {ALICE}\n", "line 2"),
        ("# nobody\n", "no token"),
    ],
)
def test_token_file_is_checked(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "tokens"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=message) as caught:
        read_tokens(path)
    assert ALICE not in str(caught.value)


def test_missing_token_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        read_tokens(tmp_path / "none")
