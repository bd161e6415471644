"""A caller that counts its answers, to compare them with the bill."""

from typing import Any
from uuid import uuid4

import httpx

from harness.plans import LOCAL_PLAN
from harness.samples import PREDICT, WINE
from harness.services import ServiceProcesses


class Caller:
    """A caller with its own account."""

    def __init__(self, platform: ServiceProcesses) -> None:
        self._platform = platform
        self._token = platform.new_token()
        self.answered = 0
        assert self.predict().status_code == 200  # inference knows its terms from now on

    def predict(self) -> httpx.Response:
        with self._platform.client("inference", self._token) as inference:
            answer = inference.post(
                PREDICT,
                json={"instances": [WINE]},
                headers={"Idempotency-Key": str(uuid4())},
            )
        self.answered += answer.status_code == 200
        return answer

    def predict_until(self, status: int, *, at_most: int) -> httpx.Response:
        """Predict over one connection until a response has the given status."""
        headers = {"Content-Type": "application/json"}
        with self._platform.client("inference", self._token) as inference:
            for _ in range(at_most):
                answer = inference.post(PREDICT, json={"instances": [WINE]}, headers=headers)
                self.answered += answer.status_code == 200
                if answer.status_code == status:
                    return answer
        raise AssertionError(f"never answered {status}")

    def usage(self) -> httpx.Response:
        with self._platform.client("billing", self._token) as billing:
            return billing.get("/usage")

    def all_billed(self) -> bool:
        """Return whether exactly the answered predictions are billed."""
        answer = self.usage()
        return answer.status_code == 200 and answer.json()["total"]["requests"] == self.answered


def new_plan() -> dict[str, Any]:
    """Return a plan that is not stored yet."""
    return LOCAL_PLAN | {"name": str(uuid4())}
