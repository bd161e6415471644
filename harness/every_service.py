"""The apps of all services, created but not started."""

from pathlib import Path

from fastapi import FastAPI

from harness.stores import new_signed_store
from services.auth.app import create_app as create_auth
from services.auth.settings import AuthSettings
from services.billing.app import create_app as create_billing
from services.billing.settings import BillingSettings
from services.console.app import create_app as create_console
from services.console.settings import ConsoleSettings
from services.inference.api.front import InferenceApp
from services.inference.app import create_app as create_inference
from services.inference.settings import InferenceSettings


def create_every_app(home: Path) -> dict[str, FastAPI]:
    """Return the app of each service, by name.

    Args:
        home: an empty state folder.
    """
    new_signed_store(home, f"file://{home}/models")
    inference = create_inference(
        InferenceSettings(
            client_id="inference",
            client_secret="secret",
            home=home,
            trusted_keys=home / "keys/trusted",
        )
    )
    assert isinstance(inference, InferenceApp)
    return {
        "auth": create_auth(AuthSettings(home=home)),
        "inference": inference.app,
        "billing": create_billing(BillingSettings(home=home)),
        "console": create_console(ConsoleSettings(home=home)),
    }
