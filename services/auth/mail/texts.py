"""The texts of e-mails, as plain text and simple HTML."""

import html
from dataclasses import dataclass, replace
from datetime import datetime

from services.auth.mail.queue import Kind


@dataclass(frozen=True, slots=True)
class Text:
    """The text of one kind of message; `path` is where its link leads, if it has one."""

    subject: str
    before: str
    after: str
    path: str | None = None

    def with_request(self, *, at: datetime, address: str | None) -> "Text":
        """Return the text with when (UTC) and from where it was requested, if known.

        Args:
            address: the IP address of the request.
        """
        if address is None:
            return self
        line = f"This was requested on {at.day} {at:%B %Y at %H:%M} UTC from {address}."
        return replace(self, after=f"{self.after} {line}")

    def about(self, organisation: str) -> "Text":
        """Return the text with the name of an organisation."""
        return replace(self, before=self.before.replace("{organisation}", organisation))


_IGNORE = "If you did not request this, ignore this e-mail; nothing changes."
_ALARM = "If it was not you, reset your password at once and contact the operator of this service."

TEXTS = {
    Kind.REGISTRATION: Text(
        "Confirm your e-mail address",
        "Someone, probably you, wants to register with this e-mail address. To confirm it within "
        "24 hours, open this link:",
        _IGNORE,
        "/verify-email",
    ),
    Kind.VERIFICATION: Text(
        "Confirm your e-mail address",
        "To confirm that this e-mail address is yours, open this link within 24 hours:",
        _IGNORE,
        "/verify-email",
    ),
    Kind.INVITATION: Text(
        "You are invited",
        "An administrator invites you to register. Open this link within 7 days:",
        "If you do not want to register, ignore this e-mail.",
        "/register",
    ),
    Kind.JOIN: Text(
        "You are invited to an organisation",
        "You are invited to join the organisation “{organisation}”. Open this link within 7 days:",
        "If you do not want to join, ignore this e-mail.",
        "/invitations/accept",
    ),
    Kind.ADDED: Text(
        "You were added to an organisation",
        "You are now a member of the organisation “{organisation}”.",
        "You can leave it at any time.",
    ),
    Kind.RESET: Text(
        "Reset your password",
        "To choose a new password, open this link within an hour:",
        _IGNORE,
        "/password-reset",
    ),
    Kind.PASSWORD_CHANGED: Text(
        "Your password was changed",
        "Your password was changed, and you have been signed out everywhere.",
        _ALARM,
    ),
    Kind.EMAIL_CHANGE_REQUESTED: Text(
        "A change of your e-mail address was requested",
        "Someone who is signed in as you, probably you, wants to replace this e-mail address. It "
        "changes once the link that was sent to the new address is opened. A new password cancels "
        "the change.",
        _ALARM,
    ),
    Kind.EMAIL_CHANGED: Text(
        "Your e-mail address was changed",
        "This is no longer the e-mail address you sign in with.",
        _ALARM,
    ),
    Kind.TOTP_CHANGED: Text(
        "Your second factor was changed",
        "Your second factor was turned on or off.",
        _ALARM,
    ),
}

ALREADY_REGISTERED = Text(
    "You are already registered",
    "Someone, probably you, wants to register with this e-mail address, but you are already "
    "registered. Sign in with your password; if you forgot it, request a new one.",
    _IGNORE,
)


def render_plain(text: Text, *, link: str | None, token: str | None) -> str:
    """Return a message's plain text; for programs it also contains the token by itself."""
    parts = [text.before]
    if link is not None:
        parts += [link, f"Programs may send this token instead: {token}"]
    return "\n\n".join([*parts, text.after]) + "\n"


def render_html(text: Text, *, link: str | None) -> str:
    """Return a message's HTML, without images, styles or scripts."""
    parts = [f"<p>{html.escape(text.before)}</p>"]
    if link is not None:
        parts.append(f'<p><a href="{html.escape(link)}">{html.escape(link)}</a></p>')
    parts.append(f"<p>{html.escape(text.after)}</p>")
    title, body = html.escape(text.subject), "\n".join(parts)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"</head>\n<body>\n{body}\n</body></html>\n"
    )
