"""What auth stores about a user, for the user to take along."""

from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from services.auth.api_keys.credentials import list_keys_of
from services.auth.audit.chain import entry_document
from services.auth.audit.service import list_about, record
from services.auth.callers import FIRST_PARTY
from services.auth.clients.credentials import list_clients_of
from services.auth.models import User
from services.auth.notes.service import list_notes
from services.auth.openid.service import list_consents_of
from services.auth.organisations.memberships import list_organisations_of
from services.auth.providers.service import list_identities_of
from services.auth.sessions.service import list_sessions_of
from services.auth.tokens.logins import list_logins


async def export_user(session: AsyncSession, *, user: User, address: str) -> dict[str, Any]:
    """Return everything that auth stores about a user, without secrets, as JSON values."""
    clients = await list_clients_of(session, account_id=user.id)
    keys = await list_keys_of(session, account_id=user.id)
    logins = await list_logins(session, user_id=user.id)
    consents = await list_consents_of(session, user_id=user.id)
    identities = await list_identities_of(session, user_id=user.id)
    browsers = await list_sessions_of(session, user_id=user.id)
    organisations = await list_organisations_of(session, user_id=user.id)
    notes = await list_notes(session, account_id=user.id)
    entries = await list_about(session, user_id=user.id)
    await record(session, "user_exported", actor=user.id, target=user.id, address=address)
    return {
        "user": {
            "id": user.id,
            "email": user.email,
            "email_verified_at": user.email_verified_at,
            "name": user.name,
            "is_admin": user.is_admin,
            "created_at": user.created_at,
            "totp_confirmed_at": user.totp_confirmed_at,
        },
        "organisations": [
            {
                "id": organisation.id,
                "name": organisation.name,
                "role": membership.role,
                "joined_at": membership.created_at,
            }
            for organisation, membership in organisations
        ],
        "clients": [
            {
                "client_id": client.client_id,
                "type": client.type,
                "name": client.name,
                "redirect_uris": client.redirect_uris,
                "post_logout_redirect_uris": client.post_logout_redirect_uris,
                "scope": client.scope,
                "created_at": client.created_at,
                "expires_at": client.expires_at,
            }
            for client in clients
        ],
        "api_keys": [
            {
                "id": key.id,
                "prefix": key.prefix,
                "name": key.name,
                "scope": key.scope,
                "models": key.models,
                "allowed_ips": key.allowed_ips,
                "mode": key.mode,
                "created_at": key.created_at,
                "expires_at": key.expires_at,
                "last_used_at": key.last_used_at,
            }
            for key in keys
        ],
        "log_ins": [
            {
                "client_id": each.client_id or FIRST_PARTY,
                "account": each.organisation_id or user.id,
                "scope": each.scope,
                "created_at": each.created_at,
                "expires_at": each.expires_at,
            }
            for each in logins
        ],
        "consents": [
            {"client_id": each.client_id, "scope": each.scope, "created_at": each.created_at}
            for each in consents
        ],
        "provider_identities": [
            {"issuer": each.issuer, "subject": each.subject, "created_at": each.created_at}
            for each in identities
        ],
        "browser_sessions": [
            {"created_at": each.created_at, "expires_at": each.expires_at} for each in browsers
        ],
        "notes": [{"text": note.text, "created_at": note.created_at} for note, _ in notes],
        "audit": [entry_document(entry) for entry in entries],
    }
