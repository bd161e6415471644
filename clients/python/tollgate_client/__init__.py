"""Call models that are sold by Tollgate.

from tollgate_client import Tollgate

with Tollgate("tg_live_…", "https://inference.example.com") as tollgate:
    prediction = tollgate.predict("wine", [[14.2, 1.7, 2.4, 15.6, 127, 2.8, 3.1, ...]])
    print(prediction.predictions, prediction.receipt.amount)
"""

from tollgate_client.answers import Explanation, Explanations, Prediction, Receipt
from tollgate_client.async_client import AsyncTollgate
from tollgate_client.client import Tollgate
from tollgate_client.errors import (
    AuthenticationError,
    InvalidInputError,
    NotFoundError,
    Partial,
    PaymentRequiredError,
    RateLimitError,
    TollgateError,
    UnavailableError,
)
from tollgate_client.transport import VERSION as __version__

__all__ = [
    "AsyncTollgate",
    "AuthenticationError",
    "Explanation",
    "Explanations",
    "InvalidInputError",
    "NotFoundError",
    "Partial",
    "PaymentRequiredError",
    "Prediction",
    "RateLimitError",
    "Receipt",
    "Tollgate",
    "TollgateError",
    "UnavailableError",
    "__version__",
]
