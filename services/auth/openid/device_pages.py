"""The pages on which people approve a device without a browser."""

from html import escape

from fastapi.responses import HTMLResponse

from services.auth.openid.devices import WaitingDevice, show_user_code
from services.auth.openid.pages import Field, form, scope_list
from services.auth.openid.returns import DEVICE
from services.auth.pages.html import breakable, page


def user_code_page(
    *, secret: str, user_code: str, problem: str | None = None, status: int = 200
) -> HTMLResponse:
    """Return the page that asks for the code that a device shows.

    Args:
        secret: that of the browser's cookie.
        user_code: fills the field in.
    """
    attributes = (
        'required maxlength="20" autocomplete="off" autocapitalize="characters" spellcheck="false"'
    )
    field = Field("user_code", "Code", "text", attributes, value=user_code)
    content = form(
        DEVICE, secret=secret, hidden={}, fields=[field], buttons=[("continue", "Continue")]
    )
    return page(
        "Sign in a device",
        "Enter the code that your device shows.",
        problem=problem,
        content=content,
        status=status,
    )


def confirm_page(
    *, secret: str, user_code: str, waiting: WaitingDevice, email: str
) -> HTMLResponse:
    """Return the page that asks a person to approve a device.

    Args:
        user_code: normalised.
    """
    content = (
        f"{scope_list(waiting.scope)}\n"
        f"<p>Its code is <strong>{escape(show_user_code(user_code))}</strong>. Allow it only if "
        "your own device shows this code now: someone else may have sent you here.</p>\n"
        + form(
            f"{DEVICE}/confirm",
            secret=secret,
            hidden={"user_code": user_code},
            buttons=[("allow", "Allow"), ("deny", "Deny")],
        )
        + f"\n<p>You are signed in as {breakable(email + '.')}</p>"
    )
    return page(
        f"Allow {waiting.client_name}?",
        f"A device with “{waiting.client_name}” would like to:",
        content=content,
    )
