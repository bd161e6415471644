"""The limits of an API key."""

import pytest

from services.common.identity.limits import AddressNotAllowed, KeyLimits, read_limits


def limited(*allowed_ips: str) -> KeyLimits:
    limits = read_limits(models=None, allowed_ips=allowed_ips, is_test=False)
    assert limits is not None
    return limits


def test_a_key_without_limits_has_none() -> None:
    assert read_limits(models=None, allowed_ips=None, is_test=False) is None


@pytest.mark.parametrize(
    "address", ["10.1.2.3", "203.0.113.7", "::ffff:10.1.2.3", "2001:db8:1::1", "2001:DB8::"]
)
def test_an_address_within_a_network_is_allowed(address: str) -> None:
    limited("10.0.0.0/8", "203.0.113.7", "2001:db8::/32").check_address(address)


@pytest.mark.parametrize(
    "address",
    ["11.0.0.1", "203.0.113.8", "2001:db9::1", "::1", "::ffff:11.0.0.1", "", "unix", "é", "10.1"],
)
def test_any_other_address_is_refused(address: str) -> None:
    with pytest.raises(AddressNotAllowed):
        limited("10.0.0.0/8", "203.0.113.7", "2001:db8::/32").check_address(address)


def test_only_the_models_of_the_limit_are_allowed() -> None:
    limits = read_limits(models=["wine"], allowed_ips=None, is_test=False)

    assert limits is not None
    limits.check_address("anywhere")
    assert limits.allows_model("wine")
    assert not any(map(limits.allows_model, ("", "Wine", "wine2", "price")))


def test_an_unreadable_address_is_an_error() -> None:
    with pytest.raises(ValueError, match="nowhere"):
        limited("nowhere")
