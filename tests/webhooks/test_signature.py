"""The Standard Webhooks headers, judged by the standard's own library."""

from __future__ import annotations

import base64
import time
from urllib.parse import unquote

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from beeq.webhooks.signature import PrivateKey, SharedSecret, decoded, message_id, webhook_signature

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def key_of(secret: str) -> SharedSecret:
    decoded_secret = decoded(secret, "whsec_")
    assert decoded_secret is not None
    return SharedSecret(decoded_secret)


def headers(secret: str, webhook_id: str, body: bytes) -> dict[str, str]:
    timestamp_s = int(time.time())
    return {
        "webhook-id": webhook_id,
        "webhook-timestamp": str(timestamp_s),
        "webhook-signature": webhook_signature([key_of(secret)], webhook_id, timestamp_s, body),
    }


def test_the_standards_example_gets_the_standards_signature() -> None:
    sent_id, body = "msg_p5jXN8AQM9LWM0D4loKWxJek", b'{"test": 2432232314}'
    signature = webhook_signature([key_of(SECRET)], sent_id, 1614265330, body)

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


def test_a_receiver_verifies_with_the_public_key() -> None:
    key = PrivateKey(bytes(range(32)))
    version, signature = webhook_signature([key], "7", 1614265330, b"{}").split(",")

    public = decoded(key.of_receiver(), "whpk_")
    assert version == "v1a"
    assert public is not None
    Ed25519PublicKey.from_public_bytes(public).verify(base64.b64decode(signature), b"7.1614265330.{}")


def test_a_private_key_may_bring_its_own_public_key_only() -> None:
    alone = PrivateKey(bytes(range(32)))
    public = decoded(alone.of_receiver(), "whpk_") or b""

    assert PrivateKey(bytes(range(32)) + public).of_receiver() == alone.of_receiver()
    for wrong in (bytes(range(32)) + bytes(32), bytes(31), bytes(range(32)) + public[:-1]):
        with pytest.raises(ValueError, match="32|another"):
            PrivateKey(wrong)


def test_keys_never_show_themselves() -> None:
    shown = repr([key_of(SECRET), PrivateKey(b"0123456789abcdef" * 2)])
    assert SECRET.removeprefix("whsec_") not in shown
    assert "0123456789" not in shown


@pytest.mark.parametrize(
    ("job_id", "expected"),
    [
        ("42", "42"),
        ("5e1b0cf7-9f2a-4c0e-8f3c-1f6f1d0a9f11", "5e1b0cf7-9f2a-4c0e-8f3c-1f6f1d0a9f11"),
        ("a b/c%20:~", "a b/c%2520:~"),
        ("v1.2", "v1%2E2"),
        ("7.1614265330", "7%2E1614265330"),
        ("%C3%A9", "%25C3%25A9"),
        ("é", "%C3%A9"),
        ("%2E", "%252E"),
        ("zażółć", "za%C5%BC%C3%B3%C5%82%C4%87"),
        ("100% é", "100%25%20%C3%A9"),
        (" padded ", "%20padded%20"),
        ("two\r\nlines: x", "two%0D%0Alines:%20x"),
        ("tab\tnul\0", "tab%09nul%00"),
        ("del\x7f", "del%7F"),
        ("half \ud83d", "half%20%ED%A0%BD"),
    ],
)
def test_an_id_that_could_be_misread_is_percent_encoded(job_id: str, expected: str) -> None:
    assert message_id(job_id) == expected
    assert unquote(expected, errors="surrogatepass") == job_id


@given(st.text(st.characters()), st.text(st.characters()))
def test_no_two_ids_become_one(one: str, other: str) -> None:
    sent = message_id(one)

    assert unquote(sent, errors="surrogatepass") == one
    assert (sent == message_id(other)) is (one == other)
    assert "." not in sent
    assert sent.isascii()
    assert sent.isprintable() or not sent


def test_a_signature_is_of_one_id_time_and_body_only() -> None:
    key = [key_of(SECRET)]
    signed = webhook_signature(key, message_id("x.1700000000"), 1700000001, b"{}")

    assert signed != webhook_signature(key, message_id("x"), 1700000000, b"1700000001.{}")
