"""The files of TLS: which are usable, and what is said of those that are not."""

import ssl
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from cryptography.hazmat.primitives.serialization import load_pem_private_key as load_key

from service.tls import TlsFiles
from tests.e2e.command import conveyor
from tests.security.certificates import Authority, SecureServer


def test_nothing_older_than_tls_1_2_is_spoken_whatever_the_system_allows(certificate: Path) -> None:
    context = TlsFiles(certificate, certificate, None, None).context()
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2


def encrypted(key: Path, password: bytes, to: Path) -> Path:
    private = load_key(key.read_bytes(), None)
    to.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(password)))
    return to


def test_a_key_may_be_encrypted(authority: Authority, certificate: Path, tmp_path: Path) -> None:
    key = encrypted(certificate, b"s3cret-of-the-key", tmp_path / "key.pem")
    with SecureServer(
        redis_url="memory://",
        tls_certificate=certificate,
        tls_key=key,
        tls_key_password="s3cret-of-the-key",
        trusted=authority.trusted(),
    ) as service:
        assert service.is_ready()
        assert "s3cret" not in service.output()


BAD_FILES = {
    "no such certificate": ({"tls_certificate": "{none}"}, ("CONVEYOR_TLS_CERTIFICATE, {none}, cannot be read",)),
    "no such key": (
        {"tls_certificate": "{good}", "tls_key": "{none}"},
        ("CONVEYOR_TLS_KEY, {none}, cannot be read: No such file",),
    ),
    "no certificate in the file": ({"tls_certificate": "{junk}"}, ("{junk}, holds no certificate (PEM)",)),
    "no key in the file": ({"tls_certificate": "{good}", "tls_key": "{ca}"}, ("{ca}, holds no private key (PEM)",)),
    "another one's key": (
        {"tls_certificate": "{good}", "tls_key": "{other}"},
        ("the key in {other}", "is not that of the certificate in {good}"),
    ),
    "a key without its password": (
        {"tls_certificate": "{good}", "tls_key": "{locked}"},
        ("{locked} is encrypted: CONVEYOR_TLS_KEY_PASSWORD is needed",),
    ),
    "a key with another password": (
        {"tls_certificate": "{good}", "tls_key": "{locked}", "tls_key_password": "s3cret-guess"},
        ("{locked} is encrypted: CONVEYOR_TLS_KEY_PASSWORD does not open it",),
    ),
    "no client authority in the file": (
        {"tls_certificate": "{good}", "tls_client_ca": "{junk}"},
        ("CONVEYOR_TLS_CLIENT_CA, {junk}, holds no certificate",),
    ),
    "a key alone": ({"tls_key": "{good}"}, ("set CONVEYOR_TLS_CERTIFICATE",)),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_files_that_cannot_be_used_are_named_at_the_start(
    name: str, authority: Authority, certificate: Path, tmp_path: Path
) -> None:
    files = {
        "good": certificate,
        "other": authority.issue("other"),
        "ca": authority.file,
        "junk": tmp_path / "junk",
        "none": tmp_path / "none",
        "locked": encrypted(certificate, b"right", tmp_path / "locked.pem"),
    }
    files["junk"].write_text("no PEM")
    settings, says = BAD_FILES[name]
    done = conveyor(
        "serve",
        "--port",
        "0",
        data_dir=tmp_path / "data",
        **{setting: value.format(**files) for setting, value in settings.items()},
    )
    assert done.returncode not in (0, None), done.stdout
    for fragment in says:
        assert done.stderr.count(fragment.format(**files)) == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "s3cret" not in done.stderr
