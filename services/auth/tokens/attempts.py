"""Limits on failed sign-ins: how failures are counted, and when a sign-in is refused.

Failures are counted in the database, across all processes, in three ways:

- for a user from one address: ten are allowed within a few minutes;
- for a user from all addresses: a limit too high for one attacker's address to reach;
- from one address for all users: to stop one password from being tried on many users.

Only the first limit applies to an address that the user has signed in from before, so attacks from
elsewhere never lock the user out. Unknown addresses are counted like known ones.

Each time in a row that a limit is reached, the next window is twice as long, up to an hour. The
windows of a user from all addresses do not grow: otherwise a few strangers could keep the user's
new devices out at little cost.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import IPv6Address, ip_address
from typing import NamedTuple

from services.auth.users.emails import fold_email, normalise_email

PER_USER = 10
"""A user's limit across all addresses, as a multiple of the limit for one address."""
PER_ADDRESS = 30
"""An address's limit across all users, as the same kind of multiple."""

KNOWN_FOR = timedelta(days=90)
"""How long an address counts as known after a sign-in."""
KNOWN_TO_WITHIN = timedelta(hours=1)
"""How exactly the last sign-in from an address is stored; a sign-in soon after writes nothing."""
LONGEST_WINDOW_S = 3600
"""Where windows stop growing; a longer window of the settings stays as long as it is."""
MAX_DOUBLINGS = 6
LOCKS_REMEMBERED_FOR = timedelta(days=1)
"""How long after its end a window that reached its limit makes the next one longer."""

MAX_KNOWN = 20
"""Maximum number of known addresses of a user; the least recent ones are forgotten."""

_SUBNET_BITS = 64
"""The network part of an IPv6 address; hosts choose the rest themselves."""


class LoginKeys(NamedTuple):
    """The keys under which a sign-in's failures are counted; digests without personal data."""

    pair: str
    """The user and the address."""
    user: str
    address: str


@dataclass(frozen=True, slots=True)
class Failures:
    """The failures counted under one key in its current window."""

    count: int
    window_ends_at: datetime


def login_keys(username: str, *, client: str, purpose: str = "") -> LoginKeys:
    """Return the keys of a sign-in.

    Args:
        username: the e-mail address as typed; all spellings that may be the same user share a key.
        client: the caller's IP address.
        purpose: what else is counted, apart from sign-ins.
    """
    user, address = fold_email(normalise_email(username)), _network(client)
    return LoginKeys(
        pair=_digest(f"{purpose}pair", user, address),
        user=_digest(f"{purpose}user", user),
        address=_digest(f"{purpose}address", address),
    )


def address_keys(*, client: str, purpose: str) -> LoginKeys:
    """Return the keys of what is counted for an address alone: other addresses share none of them.

    Args:
        client: the caller's IP address.
        purpose: what is counted, apart from sign-ins.
    """
    address = _network(client)
    return LoginKeys(
        pair=_digest(f"{purpose}pair", address),
        user=_digest(f"{purpose}user", address),
        address=_digest(f"{purpose}address", address),
    )


def key_limits(keys: LoginKeys, *, limit: int) -> dict[str, int]:
    """Return the limit of each key.

    Args:
        limit: failures allowed for a user from one address.
    """
    return {keys.pair: limit, keys.user: limit * PER_USER, keys.address: limit * PER_ADDRESS}


def window_ends(now: datetime, *, window_s: int) -> list[datetime]:
    """Return when a window that starts now ends, by the number of locks in a row before it."""
    longest_s = max(window_s, LONGEST_WINDOW_S)
    return [
        now + timedelta(seconds=min(window_s * 2**locks, longest_s))
        for locks in range(MAX_DOUBLINGS + 1)
    ]


def find_lock(
    keys: LoginKeys, failures: Mapping[str, Failures], *, known: bool, limit: int, counted: bool
) -> datetime | None:
    """Return when the lock on a sign-in ends, or None if it is not locked.

    Args:
        failures: by key; keys without failures may be missing.
        known: whether the user has signed in from this address before.
        limit: failures allowed for a user from one address.
        counted: whether `failures` already include this sign-in.
    """
    limits = {keys.pair: limit} if known else key_limits(keys, limit=limit)
    ends = [
        recorded.window_ends_at
        for key, allowed in limits.items()
        if (recorded := failures.get(key)) is not None and recorded.count >= allowed + counted
    ]
    return max(ends, default=None)


def _network(client: str) -> str:
    """Return an IPv4 address unchanged, an IPv6 address as its /64, and other text unchanged."""
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
