"""The limits of an API key, besides its scopes."""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from services.common.errors import ServiceError

Network = IPv4Network | IPv6Network


class AddressNotAllowed(ServiceError):
    """The API key is limited to other addresses."""

    status = 403
    code = "address_not_allowed"
    detail = "This API key is limited to other addresses."


@dataclass(frozen=True, slots=True)
class KeyLimits:
    """What an API key may not do although its scopes allow it.

    Args:
        models: the only models that it may use; None for all.
        networks: the only networks that may use it; None for all.
        is_test: whether its predictions are not billed.
    """

    models: frozenset[str] | None = None
    networks: tuple[Network, ...] | None = None
    is_test: bool = False

    @property
    def is_only_of_models(self) -> bool:
        """Whether the models are the only limit."""
        return self.networks is None and not self.is_test

    def allows_model(self, model: str) -> bool:
        """Return whether the key may use a model."""
        return self.models is None or model in self.models

    def check_address(self, address: str) -> None:
        """Check that the key may be used from an IP address.

        Raises:
            AddressNotAllowed: it may not.
        """
        if self.networks is not None and not _is_within(address, self.networks):
            raise AddressNotAllowed()


def read_limits(
    *, models: Iterable[str] | None, allowed_ips: Iterable[str] | None, is_test: bool
) -> KeyLimits | None:
    """Return the limits of a key, or None if it has none.

    Raises:
        ValueError: an address is not one.
    """
    if models is None and allowed_ips is None and not is_test:
        return None
    return KeyLimits(
        None if models is None else frozenset(models),
        None if allowed_ips is None else tuple(ip_network(each) for each in allowed_ips),
        is_test,
    )


def _is_within(address: str, networks: Iterable[Network]) -> bool:
    """Return whether an address is in a network; text that is not an address is in none."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped:
        parsed = parsed.ipv4_mapped
    return any(parsed in network for network in networks)
