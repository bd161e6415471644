"""One search box for whatever an operator has in hand: it leads straight to what it names."""

import asyncio
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote

from fastapi import Request, Response

from services.common.http.routing import new_router
from services.console.admin.events import find_owner
from services.console.admin.forms import is_account
from services.console.admin.invoices import find_run
from services.console.apis import admin_auth, admin_inference
from services.console.apis.billing import Document
from services.console.apis.calls import Api, Part, load
from services.console.design.pages import see_other, show
from services.console.sessions.guards import Administrator
from services.console.sessions.visitors import Session
from services.console.state import Apis, AppApis
from services.console.usage.figures import offered_months

router = new_router(tag="administration")

_MAX_FOUND = 10
_MAX_CHARS = 200
_INVOICE = re.compile(r"[A-Z]{1,8}-\d{1,12}")


@dataclass(frozen=True, slots=True)
class Found:
    """Models and users that a text may mean."""

    models: Part[list[str]]
    users: Part[list[Document]]

    @property
    def addresses(self) -> list[str]:
        """The pages of everything found."""
        return [_model_page(each) for each in self.models.value or ()] + [
            _account_page(each["id"]) for each in self.users.value or ()
        ]

    @property
    def is_complete(self) -> bool:
        """Whether both were searched."""
        return self.models.problem is None and self.users.problem is None


@router.get("/admin/search")
async def search_page(
    request: Request, session: Administrator, apis: AppApis, q: str = ""
) -> Response:
    """Lead to an account, event, invoice or model; show a list if a text may mean several."""
    text = q.strip()[:_MAX_CHARS]
    if is_account(text.lower()):
        return see_other(await _page_of_id(apis, session, text.lower()))
    number = text.upper()
    if _INVOICE.fullmatch(number):
        invoice = await load(_find_invoice(apis.billing, session, number))
        if invoice.value is not None:
            return see_other(f"/admin/invoices/{invoice.value}")
    found = await _find(apis, session, text) if text else Found(Part([]), Part([]))
    if text in (found.models.value or ()):
        return see_other(_model_page(text))
    if len(found.addresses) == 1 and found.is_complete:
        return see_other(found.addresses[0])
    return show(request, "admin/search.html.j2", text=text, found=found)


async def _page_of_id(apis: Apis, session: Session, text: str) -> str:
    """Return the page of a UUID: a user's account, an event, or else an account without a user."""
    user = await load(admin_auth.find_user(apis.auth, token=session.token, user_id=text))
    if user.value is None:
        owner = await load(find_owner(apis.billing, session, text))
        if owner.value is not None:
            return f"/admin/events/{text}?account={owner.value}"
    return _account_page(text)


async def _find_invoice(billing: Api, session: Session, number: str) -> str | None:
    """Return the id of an invoice, which billing lists by account or by month only.

    Each seller numbers its invoices by itself: if the seller has changed, the newest one is meant.
    """
    for month in offered_months(today=datetime.now(UTC).date())[1:]:
        run = await find_run(billing, session, month)
        issued = run["invoices"] if run else ()
        found = next((each["id"] for each in issued if each["number"] == number), None)
        if found is not None:
            return str(found)
    return None


async def _find(apis: Apis, session: Session, text: str) -> Found:
    versions, users = await asyncio.gather(
        load(admin_inference.list_versions(apis.inference, token=session.token)),
        load(
            admin_auth.search_users(
                apis.auth, token=session.token, text=text, cursor="", limit=_MAX_FOUND
            )
        ),
    )
    names = sorted({each["name"] for each in versions.value or ()})
    wanted = text.casefold()
    return Found(
        models=Part([each for each in names if wanted in each.casefold()][:_MAX_FOUND])
        if versions.value is not None
        else Part(problem=versions.problem),
        users=Part(users.value.users) if users.value is not None else Part(problem=users.problem),
    )


def _model_page(name: str) -> str:
    return f"/admin/models/{quote(name, safe='')}"


def _account_page(account: str) -> str:
    return f"/admin/accounts/{account}"
