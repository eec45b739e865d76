"""The gateway's configuration: where settings come from, which goes first, and what mistakes are told."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from speko_anyio.gateway._settings import PREFIX, Settings, SettingsError

from .support import load_settings

SECRET = "0123456789abcdef0123456789abcdef"


def written(folder: Path, text: str) -> Path:
    file = folder / "gateway.toml"
    file.write_text(text)
    return file


def test_nothing_given_is_the_defaults() -> None:
    loaded = load_settings(None, {"PATH": "/bin", "SPEKO_API_KEY": "sk"})
    assert loaded.settings == Settings()
    assert loaded.sources == {}


def test_the_environment_goes_before_the_file(tmp_path: Path) -> None:
    file = written(tmp_path, 'port = 9000\nhost = "0.0.0.0"\nkeys = ["a", "b"]\nmetrics = true\n')
    loaded = load_settings(file, {"SPEKO_GATEWAY_PORT": "9001"})
    assert loaded.settings == Settings(port=9001, host="0.0.0.0", keys=("a", "b"), metrics=True)
    assert loaded.sources["port"] == "SPEKO_GATEWAY_PORT"
    assert loaded.sources["host"] == str(file)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("KEYS", "one, two,,", ("one", "two")),
        ("METRICS", "true", True),
        ("METRICS", "0", False),
        ("PLAYGROUND", "false", False),
        ("DRAIN_SECONDS", "2.5", 2.5),
        ("TRANSCRIPT_DAYS", "30", 30.0),
        ("TRANSCRIPT_DAYS", "", None),
        ("LOG_FORMAT", "json", "json"),
        ("DATABASE", "postgresql://u:p@db/speko", "postgresql://u:p@db/speko"),
        ("MODELS", "openai=a, xai = b,openai=c,", {"openai": ("a", "c"), "xai": ("b",)}),
        ("MODELS", "", {}),
        ("PROVIDER_OPTIONS", '{"openai": {"speed": 1.2}}', {"openai": {"speed": 1.2}}),
        ("PROVIDER_OPTIONS", " ", {}),
    ],
)
def test_a_variable_is_read_as_its_setting_s_type(name: str, text: str, value: object) -> None:
    loaded = load_settings(None, {PREFIX + name: text})
    assert getattr(loaded.settings, name.lower()) == value


def test_a_secret_may_stand_in_a_file_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(SECRET + "\n")
    loaded = load_settings(None, {"SPEKO_GATEWAY_SECRET_FILE": str(tmp_path / "secret")})
    assert loaded.settings.secret == SECRET


def test_secrets_are_never_shown() -> None:
    loaded = load_settings(
        None,
        {
            "SPEKO_GATEWAY_SECRET": SECRET,
            "SPEKO_GATEWAY_KEYS": "sk_one",
            "SPEKO_GATEWAY_DATABASE": "postgresql://me:hunter2@db/x",
        },
    )
    shown = repr(loaded.settings) + str(loaded.settings.shown())
    for secret in (SECRET, "sk_one", "hunter2"):
        assert secret not in shown
    assert ("secret", "(set)") in loaded.settings.shown()
    assert ("public_url", "(not set)") in loaded.settings.shown()


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("PORT", "70000", "port is invalid; it must be a whole number from 0 to 65535"),
        ("PORT", "soon", "port is invalid; it must be a whole number"),
        ("PORT", "tcp:10.96.7.8", "port is invalid; it must be a whole number"),
        ("METRICS", "maybe", "metrics is invalid; it must be true or false"),
        ("LOG_FORMAT", "yaml-s3cr3t", "log_format is invalid; it must be json or text"),
        ("SECRET", "s3cr3t", "secret is invalid; it must be text of 32 characters or more"),
        ("DRAIN_SECONDS", "-1", "drain_seconds is invalid; it must be a number, 0 or more"),
        ("DRAIN_SECONDS", "nan", "drain_seconds is invalid; it must be a number, 0 or more"),
        ("TRANSCRIPT_DAYS", "0", "transcript_days is invalid; it must be a number above 0"),
        ("TOKEN_SECONDS", "1.5", "token_seconds is invalid; it must be a whole number, 1 or more"),
        ("DRIAN_SECONDS", "1", "unknown setting drian_seconds; did you mean drain_seconds?"),
        ("XYZZY", "1", "unknown setting xyzzy; choose from host, port"),
        ("SERVICE_HOSTS", "10.96.7.8", "unknown setting service_hosts"),
        ("METRICS_PORT", "9090", "unknown setting metrics_port"),
        ("NAME", "my-gateway", "unknown setting name"),
        ("DATABASE_FILE", "a\0b", "names a file that can't be read"),
        ("SECRET_FILE", "/no/such/file", "names a file that can't be read"),
    ],
)
def test_a_wrong_variable_is_named_and_its_value_is_not(name: str, text: str, says: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(None, {PREFIX + name: text})
    message = str(caught.value)
    assert message.startswith(PREFIX + name)
    assert says in message
    assert "s3cr3t" not in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("port = '8000'", "port is invalid; it must be a whole number from 0 to 65535"),
        ("prot = 8000", "unknown setting prot; did you mean port?"),
        ("port =", "is not valid TOML"),
        ("[gateway]\nport = 1", "unknown setting gateway"),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, text: str, says: str) -> None:
    file = written(tmp_path, text)
    with pytest.raises(SettingsError) as caught:
        load_settings(file, {})
    assert str(caught.value).startswith(str(file))
    assert says in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"none\.toml can't be read: No such file"):
        load_settings(tmp_path / "none.toml", {})


def test_every_fault_is_told(tmp_path: Path) -> None:
    file = written(tmp_path, "port = '8000'\nprot = 1\n")
    with pytest.raises(SettingsError) as caught:
        load_settings(file, {"SPEKO_GATEWAY_METRICS": "maybe", "SPEKO_GATEWAY_HANDLERS": "a,b,c=m:f"})
    assert len(caught.value.faults) == 5
    assert str(caught.value).splitlines() == list(caught.value.faults)
    assert load_settings(None, {}).faults == ()


# As Kubernetes sets them for the services "speko-gateway" and "speko-gateway-metrics", and Docker for a link
SERVICE_LINKS = {
    "SPEKO_GATEWAY_SERVICE_HOST": "10.96.7.8",
    "SPEKO_GATEWAY_SERVICE_PORT": "8000",
    "SPEKO_GATEWAY_SERVICE_PORT_HTTP": "8000",
    "SPEKO_GATEWAY_SERVICE_PORT_SECRET_FILE": "8000",
    "SPEKO_GATEWAY_PORT": "tcp://10.96.7.8:8000",
    "SPEKO_GATEWAY_PORT_8000_TCP": "tcp://10.96.7.8:8000",
    "SPEKO_GATEWAY_PORT_8000_TCP_PROTO": "tcp",
    "SPEKO_GATEWAY_PORT_8000_TCP_PORT": "8000",
    "SPEKO_GATEWAY_PORT_8000_TCP_ADDR": "10.96.7.8",
    "SPEKO_GATEWAY_PORT_53_UDP": "udp://10.96.7.8:53",
    "SPEKO_GATEWAY_METRICS_SERVICE_HOST": "None",
    "SPEKO_GATEWAY_METRICS_SERVICE_PORT": "9090",
    "SPEKO_GATEWAY_METRICS_PORT": "tcp://[fd00::7]:9090",
    "SPEKO_GATEWAY_METRICS_PORT_9090_TCP_ADDR": "fd00::7",
    "SPEKO_GATEWAY_NAME": "/client/speko-gateway",
    "SPEKO_GATEWAY_ENV_PATH": "/bin",
}


def test_variables_of_a_service_named_like_the_gateway_are_ignored() -> None:
    for variable, text in SERVICE_LINKS.items():
        loaded = load_settings(None, {variable: text})
        assert (loaded.settings, loaded.sources) == (Settings(), {}), variable
        assert loaded.service_links == (variable,)
    loaded = load_settings(None, SERVICE_LINKS | {"SPEKO_GATEWAY_HOST": "::", "SPEKO_GATEWAY_PORT": "9000"})
    assert loaded.settings == Settings(host="::", port=9000)
    assert len(loaded.service_links) == len(SERVICE_LINKS) - 1


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_byte_order_mark_and_line_ends_are_part_of_no_setting(tmp_path: Path, encoding: str) -> None:
    file = tmp_path / "gateway.toml"
    file.write_bytes(f'secret = "\ufeff{SECRET}\\n"\r\nkeys = [" sk_é\\r\\n"]\r\n'.encode(encoding))
    settings = load_settings(file, {}).settings
    assert (settings.secret, settings.keys) == (SECRET, ("sk_é",))
    for name, text, value in (("secret", SECRET, SECRET), ("keys", "sk_a,\ufeffsk_b", ("sk_a", "sk_b"))):
        (tmp_path / "value").write_bytes(f"\ufeff{text} \r\n".encode(encoding))
        from_file = load_settings(None, {f"{PREFIX}{name.upper()}_FILE": str(tmp_path / "value")})
        plain = load_settings(None, {f"{PREFIX}{name.upper()}": f"\ufeff{text}\n"})
        assert getattr(from_file.settings, name) == getattr(plain.settings, name) == value


def test_a_variable_is_text_in_utf8_whatever_the_locale_is() -> None:
    if sys.getfilesystemencoding() != "utf-8":
        pytest.skip("this locale's encoding is another")
    # How Python represents bytes that the locale can't decode
    for text in ("\udcff" * 40, "\udce9"):
        with pytest.raises(SettingsError, match="secret is invalid; it must be UTF-8 text"):
            load_settings(None, {"SPEKO_GATEWAY_SECRET": text})
    assert load_settings(None, {"SPEKO_GATEWAY_SECRET": "ż" * 32}).settings.secret == "ż" * 32
    assert load_settings(None, {"SPEKO_GATEWAY_DATABASE": "\udcff.db"}).settings.database == "\udcff.db"


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("MODELS", "gpt-realtime-2.1", "'gpt-realtime-2.1' is not a model; write provider=model"),
        ("MODELS", "openai=", "'openai=' is not a model; write provider=model"),
        ("PROVIDER_OPTIONS", "openai", "provider_options is not valid JSON"),
        ("PROVIDER_OPTIONS", "[]", "it must be a table of options for each provider"),
    ],
)
def test_models_and_options_that_can_not_be_read(name: str, text: str, complaint: str) -> None:
    with pytest.raises(SettingsError, match=complaint):
        load_settings(None, {PREFIX + name: text})


def test_models_are_shown_and_options_are_not(tmp_path: Path) -> None:
    """A server tool among the options may hold a credential."""
    file = written(
        tmp_path,
        '[models]\nopenai = ["a", "b"]\n[[provider_options.openai.server_tools]]\ntype = "mcp"\n'
        'settings = {authorization = "hidden"}\n',
    )
    settings = load_settings(file, {}).settings
    shown = dict(settings.shown())
    assert shown["models"] == "openai=a|b"
    assert shown["provider_options"] == "(set)"
    assert "hidden" not in repr(settings)
