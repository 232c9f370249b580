"""Why a Redis and this service did not agree on TLS, in words for the one who has to mend it."""

import ssl

_ALERTS = {
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "it asks for a certificate: name one with ssl_certfile and ssl_keyfile",
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "it asks for a certificate, or for other ciphers",
    "TLSV1_ALERT_UNKNOWN_CA": "it does not know who signed the certificate in ssl_certfile",
    "SSLV3_ALERT_BAD_CERTIFICATE": "it refuses the certificate in ssl_certfile",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "the certificate in ssl_certfile has expired",
    "WRONG_VERSION_NUMBER": "it does not speak TLS",
}


def tls_refusal(error: BaseException | None) -> str | None:
    """Return why TLS failed, None where something else did. Looks through what the client library wraps it in."""
    seen = error
    while seen is not None:
        if isinstance(seen, ssl.SSLCertVerificationError):
            return f"its certificate is refused: {seen.verify_message.rstrip('.')}"
        if isinstance(seen, ssl.SSLError):
            return _ALERTS.get(seen.reason or "", f"TLS failed: {seen.reason or seen}")
        seen = seen.__cause__ or seen.__context__
    return None
