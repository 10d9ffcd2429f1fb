"""A certificate for servers of the tests that speak TLS."""

from __future__ import annotations

import ssl
from pathlib import Path

#: Self-signed for hooks.example, for a hundred years. It protects nothing.
CERTIFICATE = """\
-----BEGIN CERTIFICATE-----
MIIBbjCCAROgAwIBAgIBATAKBggqhkjOPQQDAjAYMRYwFAYDVQQDDA1ob29rcy5l
eGFtcGxlMCAXDTIwMDEwMTAwMDAwMFoYDzIxMjAwMTAxMDAwMDAwWjAYMRYwFAYD
VQQDDA1ob29rcy5leGFtcGxlMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEjYVt
JJ34gZ1dR95+wtkR1ELJ4dOAQctS/cGmX42+p+3m5u0eQszexkgyf/IXttn18Stk
PAcrE5UdqtNttYROPaNMMEowGAYDVR0RBBEwD4INaG9va3MuZXhhbXBsZTAPBgNV
HRMBAf8EBTADAQH/MB0GA1UdDgQWBBQnOoUYPZ8RmSGxTzGwI/n/a7oT/TAKBggq
hkjOPQQDAgNJADBGAiEAhLy98yuxH5Vul9Lpf/1uS+bkPvBLNoKPiTEdj86TWH8C
IQCflrea2+5F9UbouPKCgruoEnKJlAfWunJmcO3y36OYDQ==
-----END CERTIFICATE-----
"""
_KEY = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgUnn3ezenvebrBbPi
ZRtfQDkg+JVgiPBR8rEf/yojlIChRANCAASNhW0knfiBnV1H3n7C2RHUQsnh04BB
y1L9waZfjb6n7ebm7R5CzN7GSDJ/8he22fXxK2Q8BysTlR2q0221hE49
-----END PRIVATE KEY-----
"""


def write_pem(folder: Path) -> Path:
    """Write key and certificate into one file of the folder, and return it."""
    pem = folder / "server.pem"
    pem.write_text(_KEY + CERTIFICATE)
    return pem


def server_context(folder: Path) -> ssl.SSLContext:
    """Return what a server needs to show the certificate; it has to be read from a file."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(write_pem(folder))
    return context
