"""A service that accepts tokens until auth revokes them."""

from fastapi import FastAPI
from httpx import AsyncClient

from services.common.contracts import RevocationPage
from services.common.errors import Unauthenticated
from services.common.identity.tokens import TokenVerifier
from tests.integration.auth.conftest import ISSUER, Headers


class Verifier:
    """A service that verifies tokens and follows auth's feed, without its waits."""

    def __init__(self, app: FastAPI, client: AsyncClient, as_service: Headers) -> None:
        self._verifier = TokenVerifier(app.state.issuer.keys, issuer=ISSUER)
        self._client, self._headers, self._after = client, as_service, 0

    async def follow(self) -> None:
        answer = await self._client.get(
            "/revocations", params={"after": self._after}, headers=self._headers
        )
        page = RevocationPage.model_validate_json(answer.content)
        self._after = page.last
        await self._verifier.revoke(page.revocations)

    async def accepts(self, token: str) -> bool:
        try:
            await self._verifier.verify(token.encode())
        except Unauthenticated:
            return False
        return True
