"""TLS of the listening socket: from files to a context, and from renewed files to a new one without a restart."""

import ssl
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import structlog
from uvicorn.config import STARTUP_FAILURE

from service.settings import Settings

log = structlog.get_logger(__name__)

LOOK_EVERY_S = 1.0
"""How often the files are looked at, at most: a handshake costs a thousand times more than the look."""


class TlsError(ValueError):
    """The files cannot be used; the message says which, and why."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Where the certificate is (PEM, the chain after it), its key, and who signs the clients' certificates, if any."""

    certificate: Path
    key: Path
    key_password: str | None = field(repr=False)
    client_ca: Path | None

    @classmethod
    def of(cls, settings: Settings) -> Self | None:
        """Return what the settings name; None where the service is to speak plain HTTP."""
        if settings.tls_certificate is None:
            return None
        password = settings.tls_key_password
        return cls(
            certificate=settings.tls_certificate,
            key=settings.tls_key or settings.tls_certificate,
            key_password=None if password is None else password.get_secret_value(),
            client_ca=settings.tls_client_ca,
        )

    def context(self) -> ssl.SSLContext:
        """Return the context of a server that shows this certificate. Raises `TlsError`.

        With `client_ca` a client without a certificate of that authority is refused.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._require_readable()
        try:
            # A password is always given: OpenSSL would ask for it on the terminal.
            context.load_cert_chain(self.certificate, self.key, password=lambda: self.key_password or "")
        except ssl.SSLError as error:
            raise TlsError(self._why(error)) from None
        if self.client_ca is not None:
            try:
                context.load_verify_locations(self.client_ca)
            except ssl.SSLError:
                raise TlsError(f"CONVEYOR_TLS_CLIENT_CA, {self.client_ca}, holds no certificate (PEM)") from None
            context.verify_mode = ssl.CERT_REQUIRED
            context.num_tickets = 0  # a resumed session would not be asked for its certificate again
            context.options |= ssl.OP_NO_TICKET
        return context

    def stamps(self) -> tuple[object, ...]:
        """Return what changes when a file is replaced or written."""
        stamps: list[object] = []
        for path in (self.certificate, self.key, self.client_ca):
            with suppress(OSError):
                found = path.stat() if path else None
                stamps.append(found and (found.st_ino, found.st_size, found.st_mtime_ns))
        return tuple(stamps)

    def _require_readable(self) -> None:
        named = {"CERTIFICATE": self.certificate, "KEY": self.key, "CLIENT_CA": self.client_ca}
        for name, path in named.items():
            if path is not None:
                try:
                    path.open("rb").close()
                except OSError as error:
                    raise TlsError(f"CONVEYOR_TLS_{name}, {path}, cannot be read: {error.strerror}") from None

    def _why(self, error: ssl.SSLError) -> str:
        """Say what is wrong with the certificate or its key: of most that can be, OpenSSL only says "PEM lib"."""
        if error.reason == "KEY_VALUES_MISMATCH":
            return f"the key in {self.key} (CONVEYOR_TLS_KEY) is not that of the certificate in {self.certificate}"
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(self.certificate)
        except ssl.SSLError:
            return f"CONVEYOR_TLS_CERTIFICATE, {self.certificate}, holds no certificate (PEM)"
        if b"ENCRYPTED" in self.key.read_bytes():
            given = "does not open it" if self.key_password else "is needed"
            return f"the key in {self.key} is encrypted: CONVEYOR_TLS_KEY_PASSWORD {given}"
        if error.reason:
            return f"the certificate in {self.certificate} cannot be used: {error.reason}"
        return f"CONVEYOR_TLS_KEY, {self.key}, holds no private key (PEM)"


class RenewingContext:
    """Gives each handshake the context of the newest files that are usable.

    They are looked at when somebody connects: no timer, no signal. Connections that stand keep what they began with.
    Files that do not go together, as in the middle of a renewal, are told once, and the last good ones stay.
    """

    def __init__(self, files: TlsFiles) -> None:
        """Raises `TlsError`."""
        self._files = files
        self._stamps = files.stamps()
        self._looked_at = time.monotonic()
        self._newest = self.listening = files.context()
        # Called for every ClientHello, also for one without a server name.
        self.listening.sni_callback = self._choose

    def _choose(self, connection: ssl.SSLObject, _name: str | None, _listening: ssl.SSLContext) -> None:
        if (now := time.monotonic()) > self._looked_at + LOOK_EVERY_S:
            self._looked_at = now
            self._look()
        if self._newest is not self.listening:
            connection.context = self._newest

    def _look(self) -> None:
        if (stamps := self._files.stamps()) == self._stamps:
            return
        self._stamps = stamps
        try:
            self._newest = self._files.context()
            log.info("the TLS certificate was renewed", certificate=str(self._files.certificate))
        except (TlsError, OSError) as error:
            log.error("the TLS files have changed and cannot be used; the ones before stay", reason=str(error))


def listening_context(files: TlsFiles, *_uvicorn: object) -> ssl.SSLContext:
    """Return the context that a process listens with. Ends the process where the files cannot be used."""
    try:
        return RenewingContext(files).listening
    except TlsError as error:
        log.error("TLS cannot be offered", reason=str(error))
        sys.exit(STARTUP_FAILURE)
