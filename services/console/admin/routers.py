"""The routers of the pages for administrators."""

from services.console.admin.accounts import router as accounts
from services.console.admin.events import router as events
from services.console.admin.invoices import router as invoices
from services.console.admin.models import router as models
from services.console.admin.notes import router as notes
from services.console.admin.operations import router as operations
from services.console.admin.overview import router as overview
from services.console.admin.plans import router as plans
from services.console.admin.recalls import router as recalls
from services.console.admin.search import router as search

ADMIN = (overview, search, accounts, notes, models, plans, invoices, recalls, events, operations)
