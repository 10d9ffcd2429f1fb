"""The Standard Webhooks headers, judged by the standard's own library."""

from __future__ import annotations

import base64
import time
from urllib.parse import unquote

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from beeq.webhooks.signature import Signer, message_id

pytestmark = pytest.mark.fast

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def headers(secret: str, webhook_id: str, body: bytes) -> dict[str, str]:
    timestamp_s = int(time.time())
    return {
        "webhook-id": webhook_id,
        "webhook-timestamp": str(timestamp_s),
        "webhook-signature": Signer(secret).sign(webhook_id, timestamp_s, body),
    }


def test_the_standards_example_gets_the_standards_signature() -> None:
    signature = Signer(SECRET).sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')

    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize("body", [b"{}", '{"a":"é € 😀"}'.encode(), b'{"a":"' + b"x" * 100_000 + b'"}'])
def test_the_standards_library_accepts_what_is_signed(body: bytes) -> None:
    Webhook(SECRET).verify(body, headers(SECRET, "0192-job.7", body))


def test_the_standards_library_refuses_another_body_id_or_secret() -> None:
    signed = headers(SECRET, "1", b'{"a":1}')
    other = Webhook("whsec_" + base64.b64encode(b"another secret").decode())

    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(b'{"a":2}', signed)
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(b'{"a":1}', signed | {"webhook-id": "2"})
    with pytest.raises(WebhookVerificationError):
        other.verify(b'{"a":1}', signed)


def test_a_secret_without_padding_or_with_blanks_is_the_same() -> None:
    padded = "whsec_" + base64.b64encode(b"twenty-five bytes long ..").decode()
    signature = Signer(padded).sign("1", 1, b"{}")

    assert Signer(padded.rstrip("=")).sign("1", 1, b"{}") == signature
    assert Signer(f" {padded}\n").sign("1", 1, b"{}") == signature


@pytest.mark.parametrize(
    "secret",
    [
        "",
        "whsec_",
        "whsec_not base64",
        "whsec_Zm9v!mFy",
        "whsec_a-_b",
        "whsec_A",
        "whsec_ключ",
        "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "WHSEC_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "whsec_\ud800",
    ],
)
def test_a_bad_secret_is_refused_by_naming_the_setting_only(secret: str) -> None:
    with pytest.raises(ValueError, match="BEEQ_WEBHOOK_SECRET") as caught:
        Signer(secret)

    assert caught.value.__suppress_context__
    rest = secret.removeprefix("whsec_")
    assert len(rest) < 4 or rest not in str(caught.value)


def test_a_signer_never_shows_its_secret() -> None:
    assert SECRET.removeprefix("whsec_") not in repr(Signer(SECRET))
    assert str(base64.b64decode(SECRET.removeprefix("whsec_"))) not in repr(Signer(SECRET))


@pytest.mark.parametrize(
    ("job_id", "expected"),
    [
        ("42", "42"),
        ("5e1b0cf7-9f2a-4c0e-8f3c-1f6f1d0a9f11", "5e1b0cf7-9f2a-4c0e-8f3c-1f6f1d0a9f11"),
        ("a b/c%20:~", "a b/c%20:~"),
        ("zażółć", "za%C5%BC%C3%B3%C5%82%C4%87"),
        ("100% é", "100%25%20%C3%A9"),
        (" padded ", "%20padded%20"),
        ("two\r\nlines: x", "two%0D%0Alines:%20x"),
        ("tab\tnul\0", "tab%09nul%00"),
        ("del\x7f", "del%7F"),
        ("half \ud83d", "half%20%ED%A0%BD"),
    ],
)
def test_an_id_that_no_header_can_hold_is_percent_encoded(job_id: str, expected: str) -> None:
    assert message_id(job_id) == expected
    if expected != job_id:
        assert unquote(expected, errors="surrogatepass") == job_id
