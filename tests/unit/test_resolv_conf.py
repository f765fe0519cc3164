"""resolv.conf: the nameserver lines, IPv4 and IPv6, and lines that name no address."""

from __future__ import annotations

import pytest

from viacheck.parsers.resolv_conf import nameservers


@pytest.mark.parametrize(
    ("text", "addresses"),
    [
        ("", ()),
        ("search example.net\nnameserver 10.0.0.1\n", ("10.0.0.1",)),
        ("nameserver 10.0.0.1\n  nameserver\t2001:db8::1\nnameserver fe80::1%eth0\n",
         ("10.0.0.1", "2001:db8::1", "fe80::1%eth0")),
        ("nameserver 10.0.0.1\nnameserver 10.0.0.1\n", ("10.0.0.1",)),
        ("# nameserver 10.0.0.1\n;nameserver 10.0.0.2\nnameserver\nnameserver example.net\n", ()),
        ("nameserver 10.0.0.1 # the office\n", ("10.0.0.1",)),
    ],
)  # fmt: skip
def test_every_address_of_a_nameserver_line_is_a_resolver(text: str, addresses: tuple[str, ...]) -> None:
    assert nameservers(text) == addresses
