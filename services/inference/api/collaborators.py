"""What a prediction needs from the rest of the service, in groups."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from services.common.identity.tokens import TokenVerifier
from services.inference.api.admission import ConcurrencyLimiter, MemoryLimiter
from services.inference.api.metrics import PredictMetrics
from services.inference.api.unbilled import UnbilledRates
from services.inference.metering.billing_client import BillingClient
from services.inference.metering.journal.journal import Journal
from services.inference.metering.leases.manager import LeaseManager
from services.inference.models.engine import Engine
from services.inference.models.loader import Loader
from services.inference.models.table import ModelTable
from services.inference.monitoring.drift import DriftMonitor
from services.inference.monitoring.recent_predictions import RecentPredictions
from services.inference.rollouts.canary import Canaries
from services.inference.rollouts.shadow import Shadows

if TYPE_CHECKING:
    from services.common.telemetry.tracing import Tracing


@dataclass(frozen=True, slots=True)
class Admission:
    """Who may predict, and how much at once.

    Args:
        limiter: predictions at once, and how long the last one waits; requests beyond this or the
            account's share get 503.
        memory: bytes of requests in memory at once; likewise.
        unbilled: the rate limits of test keys.
        max_body_bytes: larger bodies get 413.
        max_rows: requests with more rows are invalid.
    """

    verifier: TokenVerifier
    limiter: ConcurrencyLimiter
    memory: MemoryLimiter
    unbilled: UnbilledRates
    max_body_bytes: int
    max_rows: int


@dataclass(frozen=True, slots=True)
class Models:
    """The versions in memory, what loads others, and what runs them."""

    table: ModelTable
    loader: Loader
    engine: Engine


@dataclass(frozen=True, slots=True)
class Metering:
    """Prices and credit, and the journal of what is billed.

    Args:
        billing: its clock dates the usage events.
        tracing: continues the traces of requests in their usage events.
    """

    leases: LeaseManager
    journal: Journal
    billing: BillingClient
    tracing: "Tracing | None" = None


@dataclass(frozen=True, slots=True)
class Rollouts:
    """Versions that are tried beside the live one."""

    canaries: Canaries
    shadows: Shadows


@dataclass(frozen=True, slots=True)
class Monitoring:
    """What learns of every answered prediction."""

    metrics: PredictMetrics
    drift: DriftMonitor
    recent: RecentPredictions
