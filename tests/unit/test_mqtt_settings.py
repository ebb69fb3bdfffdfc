"""How a program is told its broker."""

from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from harness.certificates import make_certificates

from paceline.errors import ConfigError
from paceline.mqtt.options import broker_options, broker_settings
from paceline.mqtt.settings import BrokerSettings, tls_context
from paceline.settings import Address

HERE = Address(host="127.0.0.1", port=1883)
THERE = Address(host="broker.example", port=8883)


@pytest.mark.parametrize(
    ("fields", "uses_tls"),
    [
        ({"address": HERE}, False),
        ({"address": HERE, "ca_file": Path("ca.pem")}, True),
        ({"address": THERE}, True),
        ({"address": THERE, "insecure": True}, False),
        ({"address": THERE, "insecure": True, "ca_file": Path("ca.pem")}, True),
    ],
)
def test_plain_text_stays_on_this_machine_unless_asked_for(
    fields: dict[str, Any], uses_tls: bool
) -> None:
    assert BrokerSettings(**fields).uses_tls is uses_tls


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"address": Address(host="a", port=0)}, "address: got a:0"),
        ({"password": "hush"}, "password: got one without a user"),
        ({"cert_file": Path("c.pem")}, "cert_file, key_file: got one"),
        ({"keepalive_s": 4}, "keepalive_s: got 4"),
        ({"keepalive_s": 601}, "keepalive_s: got 601"),
        ({"timeout_s": 0.0}, "timeout_s: got 0"),
        ({"first_retry_s": 0.0}, "first_retry_s, max_retry_s: got 0"),
        ({"first_retry_s": 11.0}, "first_retry_s, max_retry_s: got 11"),
    ],
)
def test_settings_out_of_range_are_refused_by_name(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError, match=field):
        BrokerSettings(**{"address": HERE} | fields)


def test_the_password_is_never_shown() -> None:
    settings = BrokerSettings(address=HERE, user="kiosk", password="hush-hush")
    assert "hush" not in repr(settings)
    assert "kiosk" in repr(settings)


def test_certificates_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "junk.pem").write_text("junk")
    for name in ("missing.pem", "junk.pem"):
        with pytest.raises(ConfigError, match=f"ca_file: .*{name}"):
            tls_context(BrokerSettings(address=THERE, ca_file=tmp_path / name))
        with pytest.raises(ConfigError, match=f"cert_file, key_file: .*{name}"):
            tls_context(
                BrokerSettings(
                    address=THERE, cert_file=tmp_path / name, key_file=tmp_path / "key.pem"
                )
            )


def test_tls_checks_the_broker(tmp_path: Path) -> None:
    made = make_certificates(tmp_path)
    context = tls_context(
        BrokerSettings(
            address=THERE,
            ca_file=made.authority,
            cert_file=made.client,
            key_file=made.client_key,
        )
    )
    assert context is not None
    assert context.check_hostname
    assert tls_context(BrokerSettings(address=HERE)) is None


def _settings(*arguments: str) -> BrokerSettings | None:
    found: list[BrokerSettings | None] = []

    @click.command()
    @broker_options
    @click.option("--insecure", is_flag=True)
    def program(**values: Any) -> None:
        found.append(broker_settings(values))

    result = CliRunner().invoke(program, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return found[0]


def test_no_broker_no_settings() -> None:
    assert _settings() is None


def test_options_make_settings(tmp_path: Path) -> None:
    for name in ("ca.pem", "cert.pem", "key.pem"):
        (tmp_path / name).touch()
    (tmp_path / "password").write_text("hush\n")
    assert _settings(
        *("--broker", "broker.example:8883", "--broker-ca", str(tmp_path / "ca.pem")),
        *("--broker-cert", str(tmp_path / "cert.pem"), "--broker-key", str(tmp_path / "key.pem")),
        *("--broker-user", "kiosk", "--broker-password-file", str(tmp_path / "password")),
        "--insecure",
    ) == BrokerSettings(
        address=THERE,
        user="kiosk",
        password="hush",
        insecure=True,
        ca_file=tmp_path / "ca.pem",
        cert_file=tmp_path / "cert.pem",
        key_file=tmp_path / "key.pem",
    )


@pytest.mark.parametrize("content", ["", "\n", "one\ntwo\n", "\u00e9".encode("latin-1")])
def test_a_password_file_holds_one_line(tmp_path: Path, content: str | bytes) -> None:
    file = tmp_path / "password"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError, match="--broker-password-file: "):
        _settings("--broker", "a:1", "--broker-user", "u", "--broker-password-file", str(file))


def test_details_without_a_broker_are_a_mistake() -> None:
    with pytest.raises(ConfigError, match="--broker-user: got it without --broker"):
        _settings("--broker-user", "kiosk")
