"""What routes take from the state of the app."""

from typing import Annotated

from fastapi import Depends, Request

from services.auth.passwords import PasswordHasher
from services.auth.tokens.service import Issuer


async def _hasher(request: Request) -> PasswordHasher:
    hasher: PasswordHasher = request.app.state.hasher
    return hasher


async def _issuer(request: Request) -> Issuer:
    issuer: Issuer = request.app.state.issuer
    return issuer


AppHasher = Annotated[PasswordHasher, Depends(_hasher)]
AppIssuer = Annotated[Issuer, Depends(_issuer)]
