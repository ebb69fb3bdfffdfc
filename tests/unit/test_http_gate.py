"""Who may ask over HTTP, with and without a key."""

import pytest
from aiohttp.test_utils import make_mocked_request

from paceline.errors import ConfigError
from paceline.http_gate import RefusedError, check_host, check_opening, check_request
from paceline.settings import Address

LOOPBACK = Address(host="127.0.0.1", port=8080)
EVERYWHERE = Address(host="0.0.0.0", port=8080)
KEY = "correct horse"


def status(
    method: str = "GET", *, listen: Address = LOOPBACK, key: str | None = None, **headers: str
) -> int:
    request = make_mocked_request(
        method, "/", headers={name.replace("_", "-"): value for name, value in headers.items()}
    )
    try:
        check_request(request, listen=listen, api_key=key)
    except RefusedError as error:
        return error.status
    return 200


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "localhost:1", "LOCALHOST", "[::1]:8080"])
def test_without_a_key_this_machine_comes_in(host: str) -> None:
    assert status(Host=host) == 200


@pytest.mark.parametrize(
    "host",
    ["", ":8080", "rebound.example", "localhost.example", "127.0.0.1.example", "[", "\x7f"],
)
def test_without_a_key_no_other_name_does(host: str) -> None:
    assert status(Host=host) == 403


def test_another_origins_page_cannot_post_unasked() -> None:
    # What a page may send across origins without a preflight.
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; x=y"):
        assert status("POST", Host="localhost", Content_Type=kind) == 415
    assert status("POST", Host="localhost") == 415
    assert status("POST", Host="localhost", Content_Type="application/json; charset=utf-8") == 200


def test_with_a_key_only_the_key_counts() -> None:
    for listen in (LOOPBACK, EVERYWHERE):
        assert (
            status(listen=listen, key=KEY, Host="x.example", Authorization=f"bearer {KEY} ") == 200
        )
        for wrong in ("", KEY, f"Basic {KEY}", f"Bearer {KEY}x", "Bearer", "Bearer \u00e9"):
            assert status(listen=listen, key=KEY, Authorization=wrong) == 401
    check_host(make_mocked_request("GET", "/"), listen=EVERYWHERE, api_key=None)


def test_nobody_opens_to_other_machines_by_accident() -> None:
    check_opening(LOOPBACK, api_key=None, is_insecure=False, risk="x")
    check_opening(EVERYWHERE, api_key=KEY, is_insecure=False, risk="x")
    check_opening(EVERYWHERE, api_key=None, is_insecure=True, risk="x")
    with pytest.raises(ConfigError, match=r"^--listen 0\.0\.0\.0:8080: other machines could steer"):
        check_opening(EVERYWHERE, api_key=None, is_insecure=False, risk="steer")
    with pytest.raises(ConfigError, match="--api-key is too short"):
        check_opening(LOOPBACK, api_key="1234567", is_insecure=True, risk="x")
