"""Which keys sign a message to which endpoint, and that no setting is misread or shown."""

from __future__ import annotations

import base64
import json
import sys
import traceback

import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from standardwebhooks.webhooks import Webhook

from beeq.processors.base import ProcessorSettings
from beeq.processors.webhook import WebhookProcessor
from beeq.webhooks.keys import EndpointKeys, _derived
from beeq.webhooks.urls import target_of

MASTER = "whsec_" + base64.b64encode(b"a master that nobody else has").decode()
OLD = "whsec_" + base64.b64encode(b"the master before that one..").decode()
HOOK = "https://hooks.example.com/films"


def keys_for(keys: EndpointKeys, url: str = HOOK) -> list[str]:
    return [key.of_receiver() for key in keys.of(target_of(url))]


def test_the_first_block_is_that_of_the_standards_derivation() -> None:
    # RFC 5869's function, by another implementation.
    for master in (b"k", bytes(200)):
        hkdf = HKDF(SHA256(), 32, salt=None, info=f"beeq webhook v1 {HOOK}".encode())
        assert _derived(master, "v1", HOOK) == hkdf.derive(master)


def test_by_default_a_key_is_derived_and_is_not_the_secret() -> None:
    (key,) = keys_for(EndpointKeys.parse(MASTER))

    assert keys_for(EndpointKeys.parse(MASTER, use="derived")) == [key]
    assert keys_for(EndpointKeys.parse(MASTER, use="")) == [key]
    assert len(base64.b64decode(key.removeprefix("whsec_"))) == 32
    assert key != MASTER
    assert key == "whsec_u7suHGeqgCNthq9bxUha3NKAyBQUmFDUmfF+D9lmylI="


def test_a_shared_key_is_the_secret_itself_everywhere() -> None:
    keys = EndpointKeys.parse(MASTER, use="shared")
    assert keys_for(keys) == keys_for(keys, "http://other.example/") == [MASTER]


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.example.com/films",
        "https://hooks.example.com:8443/films",
        "https://hooks.example.com/films/",
        "https://hooks.example.com/Films",
        "https://hooks.example.com//films",
        "https://hooks.example.com/x/%2e%2e/films",
        "https://hooks.example.com/films;v=2",
        "https://hooks.example.com/",
        "https://hooks.example.com.evil.example/films",
        "https://hooks.example.co/m/films",
    ],
)
def test_another_endpoint_has_another_key(url: str) -> None:
    keys = EndpointKeys.parse(MASTER, schemes="v1,v1a")
    assert not set(keys_for(keys)) & set(keys_for(keys, url))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (HOOK, "HTTPS://Hooks.Example.COM:443/films"),
        (HOOK, "https://hooks.example.com./films?page=2#top"),
        ("https://bücher.example/é", "https://xn--bcher-kva.example/%C3%A9"),
        ("http://[::1]:8080", "http://[0:0:0:0:0:0:0:1]:8080/"),
        ("http://10.0.0.7:80/", "http://10.0.0.7"),
        ("http://[::ffff:10.0.0.7]/", "http://[::FFFF:A00:7]/"),
    ],
)
def test_one_endpoint_has_one_key_however_it_is_written(one: str, other: str) -> None:
    keys = EndpointKeys.parse(MASTER)
    assert keys_for(keys, one) == keys_for(keys, other)


def test_the_new_and_the_old_secret_both_sign() -> None:
    (new,), (old,) = keys_for(EndpointKeys.parse(MASTER)), keys_for(EndpointKeys.parse(OLD))

    for text in (f"{MASTER} {OLD}", f"{MASTER},{OLD}", f" {MASTER} ,\n{OLD}\t", f"{MASTER} {OLD} {MASTER}"):
        assert keys_for(EndpointKeys.parse(text)) == [new, old]
    assert keys_for(EndpointKeys.parse(f"{MASTER} {OLD}", use="shared")) == [MASTER, OLD]


def test_both_schemes_sign_and_hold_different_keys() -> None:
    both = keys_for(EndpointKeys.parse(MASTER, schemes="v1a, v1"))

    assert [key.partition("_")[0] for key in both] == ["whsec", "whpk"]
    assert both == [
        key for schemes in ("v1", "v1a") for key in keys_for(EndpointKeys.parse(MASTER, schemes=schemes))
    ]
    shared = EndpointKeys.parse(MASTER, use="shared", schemes="v1a")
    assert keys_for(shared) == keys_for(shared, "https://other.example/")
    assert keys_for(shared) != both[1:]


def test_a_mapped_endpoint_has_its_own_keys_and_no_other() -> None:
    private = "whsk_" + base64.b64encode(bytes(range(32))).decode()
    mapped = json.dumps({HOOK: [OLD, private], "https://hooks.example.com/one": OLD.rstrip("=")})
    for use in ("derived", "shared"):
        keys = EndpointKeys.parse(MASTER, use=use, mapped=mapped)
        first, second = keys_for(keys, HOOK + "?x=1")
        assert first == OLD
        assert second.startswith("whpk_")
        assert keys_for(keys, "https://hooks.example.com/one") == [OLD]
        assert keys_for(keys, "https://hooks.example.com/two") == keys_for(
            EndpointKeys.parse(MASTER, use=use), "https://hooks.example.com/two"
        )


def test_without_a_secret_only_mapped_endpoints_are_signed() -> None:
    keys = EndpointKeys.parse(None, mapped=json.dumps({HOOK: OLD}))
    assert keys_for(keys) == [OLD]
    assert keys_for(keys, "https://hooks.example.com/") == []


@pytest.mark.parametrize(
    "secret",
    [
        "", " ", ",", "whsec_", "whsec_not hunter2", "whsec_Zm9v!mFy", "whsec_a-_b", "whsec_A", "whsec_ключ",
        "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "WHSEC_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_\ud800",
        "whsk_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", f"{MASTER} hunter2hunter2", f"{MASTER}{OLD}",
        " ".join("whsec_" + base64.b64encode(b"hunter2" + bytes([n])).decode() for n in range(9)),
    ],
)  # fmt: skip
def test_a_bad_secret_is_refused_by_naming_the_setting_only(secret: str) -> None:
    with pytest.raises(ValueError, match="BEEQ_WEBHOOK_SECRET") as caught:
        EndpointKeys.parse(secret)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    for word in secret.replace(",", " ").split():
        rest = word.removeprefix("whsec_")
        assert len(rest) < 4 or rest not in str(caught.value)


def test_blanks_and_missing_padding_change_no_secret() -> None:
    padded = "whsec_" + base64.b64encode(b"twenty-five bytes long ..").decode()
    key = keys_for(EndpointKeys.parse(padded))
    assert keys_for(EndpointKeys.parse(padded.rstrip("="))) == key
    assert keys_for(EndpointKeys.parse(f" {padded}\n")) == key


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ("keys", "both"),
        ("keys", "Derived"),
        ("signatures", "v2"),
        ("signatures", "v1,v3"),
        ("signatures", ","),
    ],
)
def test_a_choice_that_is_not_known_is_refused(setting: str, text: str) -> None:
    variable = f"BEEQ_WEBHOOK_{setting.upper()}"
    settings = ProcessorSettings.from_environment({"BEEQ_WEBHOOK_SECRET": MASTER, variable: text})
    with pytest.raises(ValueError, match=variable):
        WebhookProcessor(settings)


@pytest.mark.parametrize(
    "text",
    [
        "hunter2",
        '["hunter2"]',
        "[" * 100_000,
        '{"https://a.example/": "hunter2"}',
        '{"https://a.example/": {"whsec_hunter2": "hunter2"}}',
        '{"https://a.example/": {}}',
        '{"https://a.example/": []}',
        '{"https://a.example/": 7, "hunter2": 1}',
        '{"https://a.example/": ["whsec_aHVudGVyMg==", "hunter2"]}',
        '{"https://a.example/": "whsk_hunter2A"}',
        '{"https://a.example": "whsec_aHVu", "https://a.example:443/": "whsec_aHVu"}',
        '{"https://user:hunter2@a.example": "whsec_aHVu"}',
        '{"https://a.example?hunter2": "whsec_aHVu"}',
        '{"https://a.example#hunter2": "whsec_aHVu"}',
        '{"a.example/hunter2": "whsec_aHVu"}',
        '{"ftp://a.example": "whsec_aHVu"}',
        '{"https://[::1": "whsec_aHVu"}',
    ],
)
def test_nonsense_for_endpoints_is_refused_without_its_values(text: str) -> None:
    settings = ProcessorSettings.from_environment({"BEEQ_WEBHOOK_ENDPOINT_KEYS": text})
    with pytest.raises(ValueError, match="BEEQ_WEBHOOK_ENDPOINT_KEYS") as caught:
        WebhookProcessor(settings)
    shown = "".join(traceback.format_exception(caught.value))
    assert "hunter2" not in shown
    assert "aHVu" not in shown


def test_without_cryptography_ed25519_is_refused_at_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.asymmetric", None)
    private = "whsk_" + base64.b64encode(bytes(32)).decode()

    for options in ({"schemes": "v1a"}, {"mapped": json.dumps({HOOK: private})}):
        with pytest.raises(ValueError, match=r"BEEQ_WEBHOOK_.*beequeue\[ed25519\]"):
            EndpointKeys.parse(MASTER, **options)
    assert keys_for(EndpointKeys.parse(MASTER))


def test_nothing_that_is_shown_holds_a_key() -> None:
    environ = {"BEEQ_WEBHOOK_SECRET": MASTER, "BEEQ_WEBHOOK_ENDPOINT_KEYS": json.dumps({HOOK: OLD})}
    settings = ProcessorSettings.from_environment(environ)
    processor = WebhookProcessor(settings)
    shown = repr([settings, vars(processor), vars(processor._sender)])
    assert MASTER.removeprefix("whsec_") not in shown
    assert OLD.removeprefix("whsec_") not in shown


def test_a_secret_that_can_be_guessed_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    WebhookProcessor(ProcessorSettings(webhook_secret=MASTER))
    assert caplog.messages == []
    WebhookProcessor(ProcessorSettings(webhook_secret="whsec_c2VjcmV0"))
    (warning,) = caplog.messages
    assert "BEEQ_WEBHOOK_SECRET has 6 bytes" in warning
    assert "c2VjcmV0" not in warning


def test_a_derived_key_is_one_that_the_standards_library_takes() -> None:
    Webhook(keys_for(EndpointKeys.parse(MASTER))[0])
