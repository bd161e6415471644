"""The tables of the auth service."""

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, Index, String, Text, UniqueConstraint, false
from sqlalchemy.dialects import mysql
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from services.auth.roles import Role
from services.common.db.columns import Serial, UtcDateTime, ascii_id, new_metadata

NOTE_CHARS = 2000


class Base(DeclarativeBase):
    metadata = new_metadata()


def exact_text(length: int) -> String:
    """Return a column type for Unicode text that every database compares byte for byte."""
    return String(length).with_variant(
        mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin"), "mysql", "mariadb"
    )


class User(Base):
    """A person who signs in; `email` is normalised (see `users.emails`)."""

    __tablename__ = "users"

    id: Mapped[str] = mapped_column(ascii_id(36), primary_key=True)
    email: Mapped[str] = mapped_column(exact_text(254), unique=True)
    folded_email: Mapped[str | None] = mapped_column(exact_text(254), unique=True, index=True)
    """The coarser form that older versions stored. A user who registered as `straße@…` back then
    can still sign in with that spelling. Null for newer users."""
    password_hash: Mapped[str] = mapped_column(ascii_id(255))
    is_admin: Mapped[bool]
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    disabled_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    tokens_from: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """Tokens issued earlier are revoked."""
    name: Mapped[str | None] = mapped_column(exact_text(100))
    email_verified_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    totp_secret: Mapped[str | None] = mapped_column(ascii_id(64))
    """Encrypted: 20 bytes, 12 of a nonce and 16 of a tag, in base64."""
    totp_confirmed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """Since when sign-ins need a code; null while the second factor is not confirmed."""
    totp_last_step: Mapped[int | None] = mapped_column(BigInteger)
    """The time step of the last accepted code: no code of this step or an earlier one is valid."""


class Organisation(Base):
    """An account with members."""

    __tablename__ = "organisations"

    id: Mapped[str] = mapped_column(ascii_id(36), primary_key=True)
    name: Mapped[str] = mapped_column(exact_text(100))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class Membership(Base):
    """A user's role in an organisation."""

    __tablename__ = "memberships"

    organisation_id: Mapped[str] = mapped_column(
        ascii_id(36), ForeignKey("organisations.id", ondelete="CASCADE"), primary_key=True
    )
    user_id: Mapped[str] = mapped_column(
        ascii_id(36), ForeignKey("users.id", ondelete="CASCADE"), primary_key=True, index=True
    )
    role: Mapped[Role] = mapped_column(ascii_id(16))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    tokens_from: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """The user's tokens for the organisation that were issued earlier are revoked."""


class Invitation(Base):
    """An e-mail address whose owner may join an organisation."""

    __tablename__ = "invitations"
    __table_args__ = (UniqueConstraint("organisation_id", "email"),)

    id: Mapped[str] = mapped_column(ascii_id(36), primary_key=True)
    organisation_id: Mapped[str] = mapped_column(
        ascii_id(36), ForeignKey("organisations.id", ondelete="CASCADE")
    )
    email: Mapped[str] = mapped_column(exact_text(254))
    role: Mapped[Role] = mapped_column(ascii_id(16))
    invited_by: Mapped[str | None] = mapped_column(ascii_id(36), index=True)
    """The user who invites, whose right to do so it depends on; null if an older version stored
    it."""
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)


class AccountNote(Base):
    """What an administrator notes on an account: a user's own or an organisation."""

    __tablename__ = "account_notes"
    __table_args__ = (Index(None, "account_id", "created_at"),)

    id: Mapped[str] = mapped_column(ascii_id(36), primary_key=True)
    account_id: Mapped[str] = mapped_column(ascii_id(36))
    author_id: Mapped[str] = mapped_column(ascii_id(36))
    """The user who wrote it; only the id is kept if that user is deleted."""
    text: Mapped[str] = mapped_column(exact_text(NOTE_CHARS))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class Client(Base):
    """An OAuth client: a machine's credentials (confidential), or an app that people sign in to
    (public), which has no secret. A user or an organisation owns it; those of services and of
    Tollgate have no owner.
    """

    __tablename__ = "clients"

    client_id: Mapped[str] = mapped_column(ascii_id(64), primary_key=True)
    owner_id: Mapped[str | None] = mapped_column(
        ascii_id(36), ForeignKey("users.id", ondelete="CASCADE"), index=True
    )
    organisation_id: Mapped[str | None] = mapped_column(ascii_id(36), index=True)
    name: Mapped[str] = mapped_column(exact_text(100))
    secret_sha256: Mapped[str] = mapped_column(ascii_id(64))
    """Empty for a public client: no secret has this digest."""
    scope: Mapped[str] = mapped_column(ascii_id(255))
    """The scopes that its tokens may have, separated by spaces."""
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    tokens_from: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """Tokens issued earlier are revoked."""
    redirect_addresses: Mapped[str | None] = mapped_column(Text)
    """The redirect URIs of a public client, separated by spaces; null for a confidential one."""
    logout_addresses: Mapped[str | None] = mapped_column(Text)
    """Where a public client may send people who signed out, separated by spaces."""
    is_first_party: Mapped[bool] = mapped_column(server_default=false(), default=False)
    """Whether it is part of Tollgate: people need not consent, and may do everything with it."""

    @property
    def type(self) -> str:
        return "confidential" if self.redirect_addresses is None else "public"

    @property
    def redirect_uris(self) -> list[str]:
        return (self.redirect_addresses or "").split()

    @property
    def post_logout_redirect_uris(self) -> list[str]:
        return (self.logout_addresses or "").split()

    @property
    def account_id(self) -> str | None:
        """The account that its tokens are for; None for a service's client."""
        return self.organisation_id or self.owner_id

    def has_expired(self, now: datetime) -> bool:
        """Return whether less than a second is left, the shortest lifetime of a token."""
        return self.expires_at is not None and int(self.expires_at.timestamp()) <= now.timestamp()


class ApiKey(Base):
    """A machine's credentials in one header. It belongs to an account and outlives its creator."""

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(ascii_id(36), primary_key=True)
    account_id: Mapped[str] = mapped_column(ascii_id(36), index=True)
    created_by: Mapped[str | None] = mapped_column(
        ascii_id(36), ForeignKey("users.id", ondelete="SET NULL"), index=True
    )
    name: Mapped[str] = mapped_column(exact_text(100))
    prefix: Mapped[str] = mapped_column(ascii_id(16))
    """The beginning of the key, by which its owner recognizes it."""
    key_sha256: Mapped[str] = mapped_column(ascii_id(64), unique=True)
    mode: Mapped[str] = mapped_column(ascii_id(8))
    scope: Mapped[str] = mapped_column(ascii_id(255))
    """Separated by spaces, as are the models and the addresses."""
    model_names: Mapped[str | None] = mapped_column(Text)
    """The only models that it may use; null for all."""
    addresses: Mapped[str | None] = mapped_column(Text)
    """The only addresses and networks that may use it; null for all."""
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime, index=True)
    last_used_at: Mapped[datetime | None] = mapped_column(UtcDateTime)

    @property
    def models(self) -> list[str] | None:
        """The only models that it may use; None for all."""
        return None if self.model_names is None else self.model_names.split()

    @property
    def allowed_ips(self) -> list[str] | None:
        """The only addresses and networks that may use it; None for all."""
        return None if self.addresses is None else self.addresses.split()

    def has_expired(self, now: datetime) -> bool:
        return self.expires_at is not None and self.expires_at <= now


class RefreshFamily(Base):
    """A sign-in and its chain of refresh tokens.

    A refresh token is `<family id>.<secret>`. Only the newest secret is valid, so reuse of any
    earlier token is detected without storing it. Revoking a family deletes it.
    """

    __tablename__ = "refresh_families"

    id: Mapped[str] = mapped_column(ascii_id(36), primary_key=True)
    user_id: Mapped[str] = mapped_column(
        ascii_id(36), ForeignKey("users.id", ondelete="CASCADE"), index=True
    )
    organisation_id: Mapped[str | None] = mapped_column(ascii_id(36))
    """The account that its tokens are for; null for the user's personal account."""
    client_id: Mapped[str | None] = mapped_column(ascii_id(64))
    """The public client that it was issued to; null for the first-party client. No foreign key: a
    deleted client cannot use it."""
    secret_sha256: Mapped[str] = mapped_column(ascii_id(64))
    scope: Mapped[str] = mapped_column(ascii_id(255))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)


class FamilyToken(Base):
    """An access token of a public client, to be revoked if its refresh family is."""

    __tablename__ = "family_tokens"

    token_id: Mapped[str] = mapped_column(ascii_id(36), primary_key=True)
    family_id: Mapped[str] = mapped_column(ascii_id(36), index=True)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)


class LoginFailures(Base):
    """Failed sign-ins in the current window for one key of `tokens.attempts.LoginKeys`."""

    __tablename__ = "login_failures"

    key_sha256: Mapped[str] = mapped_column("email_sha256", ascii_id(64), primary_key=True)
    """The column keeps its original name because pods of the previous version still use it."""
    failures: Mapped[int]
    window_ends_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)
    locks: Mapped[int] = mapped_column(server_default="0")
    """How many windows in a row have reached their limit."""


class KnownAddress(Base):
    """An address that a user has signed in from, stored as `LoginKeys.pair`."""

    __tablename__ = "known_addresses"

    pair_sha256: Mapped[str] = mapped_column(ascii_id(64), primary_key=True)
    user_id: Mapped[str] = mapped_column(
        ascii_id(36), ForeignKey("users.id", ondelete="CASCADE"), index=True
    )
    last_login_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)


class Revocation(Base):
    """Credentials that the other services must no longer accept; see `revocations.service`."""

    __tablename__ = "revocations"

    sequence: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    kind: Mapped[str] = mapped_column(ascii_id(16))
    target_id: Mapped[str] = mapped_column(ascii_id(64), index=True)
    account_id: Mapped[str | None] = mapped_column(ascii_id(36))
    """The only account whose tokens are revoked; null for all."""
    issued_before: Mapped[datetime] = mapped_column(UtcDateTime)
    until: Mapped[datetime] = mapped_column(UtcDateTime, index=True)


class RevocationCounter(Base):
    """One row: the number of the newest revocation."""

    __tablename__ = "revocation_counter"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    last: Mapped[int] = mapped_column(BigInteger)


class _Audited:
    """Who did what, when and from where; see `audit.service.record`."""

    time: Mapped[datetime] = mapped_column(UtcDateTime)
    actor: Mapped[str | None] = mapped_column(ascii_id(64))
    action: Mapped[str] = mapped_column(ascii_id(64))
    target: Mapped[str | None] = mapped_column(ascii_id(128))
    address: Mapped[str | None] = mapped_column(ascii_id(64))


class PendingAuditEntry(_Audited, Base):
    """An audit entry that was committed with its act and is not part of the chain yet."""

    __tablename__ = "pending_audit_entries"

    id: Mapped[int] = mapped_column(Serial, primary_key=True)


class AuditEntry(_Audited, Base):
    """An entry of the chain. Rows are only ever inserted; `id` counts from 1 without gaps."""

    __tablename__ = "audit_entries"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    actor: Mapped[str | None] = mapped_column(ascii_id(64), index=True)
    target: Mapped[str | None] = mapped_column(ascii_id(128), index=True)
    hash: Mapped[str] = mapped_column(ascii_id(64))


class RecoveryCode(Base):
    """A code that replaces the second factor once; only its digest is stored."""

    __tablename__ = "recovery_codes"

    code_sha256: Mapped[str] = mapped_column(ascii_id(64), primary_key=True)
    user_id: Mapped[str] = mapped_column(
        ascii_id(36), ForeignKey("users.id", ondelete="CASCADE"), index=True
    )


class OneTimeLink(Base):
    """A link sent by e-mail; using it deletes it. Only the digest of its token is stored."""

    __tablename__ = "one_time_links"

    token_sha256: Mapped[str] = mapped_column(ascii_id(64), primary_key=True)
    user_id: Mapped[str | None] = mapped_column(
        ascii_id(36), ForeignKey("users.id", ondelete="CASCADE"), index=True
    )
    """Whose link it is; the administrator who invites, if it registers someone by invitation."""
    purpose: Mapped[str] = mapped_column(ascii_id(32))
    email: Mapped[str] = mapped_column(exact_text(254))
    password_hash: Mapped[str | None] = mapped_column(ascii_id(255))
    """The password of a registration that the link completes."""
    organisation_id: Mapped[str | None] = mapped_column(ascii_id(36), index=True)
    """The organisation that the link invites to."""
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)


class QueuedMail(Base):
    """A message to send. Its text and its link are created when it is sent."""

    __tablename__ = "queued_mails"

    id: Mapped[str] = mapped_column(ascii_id(36), primary_key=True)
    user_id: Mapped[str | None] = mapped_column(
        ascii_id(36), ForeignKey("users.id", ondelete="CASCADE"), index=True
    )
    """As in `OneTimeLink`."""
    kind: Mapped[str] = mapped_column(ascii_id(32))
    email: Mapped[str] = mapped_column(exact_text(254))
    password_hash: Mapped[str | None] = mapped_column(ascii_id(255))
    organisation_id: Mapped[str | None] = mapped_column(ascii_id(36))
    address: Mapped[str | None] = mapped_column(ascii_id(64))
    """The IP address of the request, if the message mentions it."""
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    attempts: Mapped[int]
    next_attempt_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)


class EncryptionKey(Base):
    """One row: the key that encrypts all other secrets at rest; see `signing.vault`."""

    __tablename__ = "encryption_keys"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    wrapped: Mapped[str] = mapped_column(ascii_id(255))


class SigningKey(Base):
    """A key that signs tokens; its row stays when it is retired, so that it never returns."""

    __tablename__ = "signing_keys"

    id: Mapped[str] = mapped_column(ascii_id(64), primary_key=True)
    """The `kid`."""
    private_pem: Mapped[str | None] = mapped_column(Text)
    """Encrypted PKCS #8; null once retired."""
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    """Since when it is published."""
    signs_from: Mapped[datetime] = mapped_column(UtcDateTime)
    retires_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """When its last token has expired; null for the newest key, which no other follows yet."""
