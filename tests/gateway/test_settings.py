"""The gateway's configuration: where settings come from, which goes first, and what mistakes are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from speko_anyio.gateway.settings import PREFIX, Settings, SettingsError, load_settings

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
        ("PORT", "70000", "port is wrong (Expected `int` <= 65535)"),
        ("PORT", "soon", "port is wrong"),
        ("METRICS", "maybe", "metrics is wrong"),
        ("LOG_FORMAT", "yaml-s3cr3t", "log_format is wrong (not one of the choices)"),
        ("SECRET", "s3cr3t", "secret is wrong (Expected `str` of length >= 32)"),
        ("DRAIN_SECONDS", "-1", "drain_seconds is wrong (Expected `float` >= 0.0)"),
        ("DRIAN_SECONDS", "1", "there is no setting drian_seconds; did you mean drain_seconds?"),
        ("XYZZY", "1", "there is no setting xyzzy; there are host, port"),
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
        ("port = '8000'", "port is wrong (Expected `int`, got `str`)"),
        ("prot = 8000", "there is no setting prot; did you mean port?"),
        ("port =", "is no TOML"),
        ("[gateway]\nport = 1", "there is no setting gateway"),
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
