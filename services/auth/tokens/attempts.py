"""How many wrong passwords are taken, from whom, and when a log-in is refused for them.

Failures are counted three times, in the database, over all processes:

- those of a user from one address: ten are taken within a few minutes;
- those of a user from all addresses: so many more that one stranger never reaches the limit;
- those from an address for all users: against one password tried on many users.

An address from which the user has logged in before has the first limit alone, so whatever
strangers do elsewhere, the owner still gets in. An unknown e-mail is counted like a known one.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import IPv6Address, ip_address
from typing import NamedTuple

from services.auth.accounts.emails import fold_email, normalise_email

PER_USER = 10
"""A user's limit over all addresses, as a multiple of that for one address."""
PER_ADDRESS = 30
"""An address's limit over all users, likewise."""

KNOWN_FOR = timedelta(days=90)
"""How long after a log-in its address counts as known."""
MAX_KNOWN = 20
"""Known addresses of a user; beyond them the least recent is forgotten."""

_SUBNET_BITS = 64
"""The part of an IPv6 address that names a customer's network; the rest each host makes up."""


class LoginKeys(NamedTuple):
    """What the failures of a log-in are counted under: digests, which name nobody."""

    pair: str
    """The user at the address."""
    user: str
    address: str


@dataclass(frozen=True, slots=True)
class Failures:
    """The failures under one key within its current window."""

    count: int
    window_ends_at: datetime


def login_keys(username: str, *, client: str) -> LoginKeys:
    """Return the keys of a log-in.

    Args:
        username: an e-mail as it was typed; every spelling that may be one user's counts as one.
        client: the caller's IP address.
    """
    user, address = fold_email(normalise_email(username)), _network(client)
    return LoginKeys(
        pair=_digest("pair", user, address),
        user=_digest("user", user),
        address=_digest("address", address),
    )


def find_lock(
    keys: LoginKeys, failures: Mapping[str, Failures], *, known: bool, limit: int, counted: bool
) -> datetime | None:
    """Return when the lock ends that refuses a log-in, or None if nothing refuses it.

    Args:
        failures: those of each key that has any.
        known: whether the user has logged in from this address before.
        limit: failures that a user may have from one address.
        counted: whether this log-in is among the failures.
    """
    limits = {keys.pair: limit}
    if not known:
        limits |= {keys.user: limit * PER_USER, keys.address: limit * PER_ADDRESS}
    ends = [
        found.window_ends_at
        for key, most in limits.items()
        if (found := failures.get(key)) is not None and found.count >= most + counted
    ]
    return max(ends, default=None)


def _network(client: str) -> str:
    """An IPv4 address, or the /64 that an IPv6 address is in; other text as it is."""
    try:
        address = ip_address(client)
    except ValueError:
        return client
    if not isinstance(address, IPv6Address):
        return str(address)
    if address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return f"{int(address) >> _SUBNET_BITS:x}::/{_SUBNET_BITS}"


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
