"""Both clients behind one interface, so that one test shows that they behave the same."""

import asyncio
from typing import Any, Self

from tollgate_client import AsyncTollgate, Tollgate

KINDS = ("sync", "async")


class Caller:
    """A client whose methods return when the call is over; close it, or use a `with` block."""

    def __init__(self, kind: str, api_key: str, base_url: str, **options: Any) -> None:
        self._runner = asyncio.Runner() if kind == "async" else None
        make = AsyncTollgate if kind == "async" else Tollgate
        self.client: Any = make(api_key, base_url, **options)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._runner is None:
            self.client.close()
        else:
            self._runner.run(self.client.aclose())
            self._runner.close()

    def predict(self, *arguments: Any, **options: Any) -> Any:
        """Call `predict`."""
        return self._call("predict", *arguments, **options)

    def explain(self, *arguments: Any, **options: Any) -> Any:
        """Call `explain`."""
        return self._call("explain", *arguments, **options)

    def models(self) -> Any:
        """Call `models`."""
        return self._call("models")

    def usage(self, **parameters: Any) -> Any:
        """Call `usage`."""
        return self._call("usage", **parameters)

    def balance(self) -> Any:
        """Call `balance`."""
        return self._call("balance")

    def _call(self, method: str, *arguments: Any, **options: Any) -> Any:
        called = getattr(self.client, method)(*arguments, **options)
        return called if self._runner is None else self._runner.run(called)
