"""The routers of the pages for administrators."""

from services.console.admin.accounts import router as accounts
from services.console.admin.overview import router as overview
from services.console.admin.plans import router as plans

ADMIN = (overview, accounts, plans)
