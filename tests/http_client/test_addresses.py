"""Which addresses are public, which names are asked for, and what the allow list allows."""

from __future__ import annotations

import pytest

from beeq.http_client.addresses import AllowedHosts, is_public, may_resolve


@pytest.mark.parametrize(
    "address",
    [
        "1.1.1.1",
        "8.8.8.8",
        "100.63.255.255",
        "100.128.0.1",
        "172.15.255.255",
        "172.32.0.1",
        "198.17.255.255",
        "198.20.0.1",
        "223.255.255.254",
        "2606:4700:4700::1111",
        "2a00:1450:4001:80e::200e",
        "::ffff:8.8.8.8",
        "64:ff9b::8.8.8.8",
    ],
)
def test_an_address_of_the_internet_is_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        # this network, loopback, private, link-local
        "0.0.0.0",
        "0.1.2.3",
        "127.0.0.1",
        "127.255.255.254",
        "10.0.0.1",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.0.1",
        "169.254.0.1",
        # metadata and platform services
        "169.254.169.254",
        "169.254.170.2",
        "100.100.100.200",
        "168.63.129.16",
        "192.0.0.192",
        "fd00:ec2::254",
        "fd20:ce::254",
        # carrier-grade NAT, protocol assignments, benchmarking, documentation
        "100.64.0.1",
        "100.127.255.255",
        "192.0.0.9",
        "192.0.0.170",
        "192.88.99.1",
        "198.18.0.1",
        "198.19.255.255",
        "192.0.2.1",
        "198.51.100.1",
        "203.0.113.1",
        # multicast, reserved, broadcast
        "224.0.0.1",
        "239.255.255.255",
        "240.0.0.1",
        "255.255.255.255",
        # IPv6: unspecified, loopback, link-local, site-local, unique local, multicast
        "::",
        "::1",
        "fe80::1",
        "fe80::1%eth0",
        "2606:4700::1%2",
        "fec0::1",
        "fc00::1",
        "fdff::1",
        "ff02::1",
        "ff0e::1",
        # IPv6: documentation, benchmarking, ORCHID, discard, segment routing, not given out
        "2001:db8::1",
        "3fff::1",
        "2001:2::1",
        "2001:10::1",
        "2001:20::1",
        "100::1",
        "5f00::1",
        "4000::1",
        "8000::1",
        # IPv4 inside IPv6: mapped, compatible, translated, NAT64, 6to4, Teredo
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::ffff:169.254.169.254",
        "::ffff:224.0.0.1",
        "::ffff:100.64.0.1",
        "::127.0.0.1",
        "::8.8.8.8",
        "::ffff:0:127.0.0.1",
        "64:ff9b::127.0.0.1",
        "64:ff9b::10.0.0.1",
        "64:ff9b::169.254.169.254",
        "64:ff9b:1::8.8.8.8",
        "64:ff9b:1::10.0.0.1",
        "2002:7f00:1::",
        "2002:a00:1::",
        "2002:808:808::",
        "2001:0:7f00:1::",
        "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    ],
)
def test_an_address_nearer_than_the_internet_is_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "host",
    [
        "example.com",
        "example.com.",
        "my_service",
        "a.b-c.d",
        "xn--mnchen-3ya.de",
        "1.2.3.4.example",
        "0xface.example",
        "8.8.8.8",
        "10.0.0.1",
        "::1",
    ],
)
def test_names_and_addresses_are_resolved_before_judgement(host: str) -> None:
    assert may_resolve(host)


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "localhost.",
        "evil.localhost",
        "evil.localhost.",
        "2130706433",
        "0177.0.0.1",
        "0x7f.0.0.1",
        "0x7f000001",
        "0x",
        "127.1",
        "0",
        "127.0.0.1.",
        "8.8.8.8.",
        "010.8.8.8",
        "1.2.3.4.5",
        "256.1.1.1",
        "fe80::1%eth0",
        "ex%61mple.com",
        "a%00b",
        "a,b",
        "*",
        ".",
        "",
        "①②⑦.⓪.⓪.①",
    ],
)
def test_local_names_and_odd_spellings_are_never_asked_for(host: str) -> None:
    assert not may_resolve(host)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("localhost", "localhost", 80),
        ("localhost", "localhost", 8080),
        ("localhost:8080", "localhost", 8080),
        (" a.example , localhost:8080 ", "localhost", 8080),
        ("Hooks.Example", "hooks.example", 443),
        ("hooks.example", "HOOKS.example.", 443),
        ("hooks.example.", "hooks.example", 443),
        ("my_service:80", "my_service", 80),
        ("münchen.example", "xn--mnchen-3ya.example", 80),
        ("10.0.0.5", "10.0.0.5", 80),
        ("10.0.0.5:81", "10.0.0.5", 81),
        ("[::1]:8080", "::1", 8080),
        ("[::1]", "::1", 1),
        ("::1", "::1", 1),
        ("[FD00:0:0::A]:1", "fd00::a", 1),
        ("fd00::a", "fd00:0::a", 1),
    ],
)
def test_a_listed_host_is_allowed(text: str, host: str, port: int) -> None:
    assert AllowedHosts.parse(text).allows(host, port)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("", "localhost", 80),
        (" , ,", "", 80),
        ("localhost:8080", "localhost", 80),
        ("localhost", "127.0.0.1", 80),
        ("127.0.0.1", "localhost", 80),
        ("127.0.0.1", "127.1", 80),
        ("127.0.0.1", "2130706433", 80),
        ("127.0.0.1", "::ffff:127.0.0.1", 80),
        ("10.0.0.5", "10.0.0.6", 80),
        ("example.com", "sub.example.com", 80),
        ("example.com", "notexample.com", 80),
        ("[::1]:8080", "::1", 80),
    ],
)
def test_a_host_that_is_not_listed_is_not_allowed(text: str, host: str, port: int) -> None:
    assert not AllowedHosts.parse(text).allows(host, port)


@pytest.mark.parametrize(
    "entry",
    [
        "*",
        "*.example.com",
        "http://a",
        "a/b",
        "a:b",
        "a:0",
        "a:65536",
        "a:999999",
        "a:",
        ":80",
        "[::1",
        "[::1]80",
        "::1]:80",
        "[a]:1",
        "10.0.0.0/8",
        "u@a",
        "a b",
        "ａ.com",
    ],
)
def test_an_entry_not_a_host_is_refused_with_setting_and_entry(entry: str) -> None:
    with pytest.raises(ValueError, match="BEEQ_WEBHOOK_ALLOW_HOSTS") as caught:
        AllowedHosts.parse(f"fine.example,{entry}")

    assert repr(entry) in str(caught.value)
