"""An inference service whose model has markup in every text that its owner chooses."""

from typing import Any

from fastapi import FastAPI, Request, Response

HOSTILE = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>&amp;</textarea>{{ 7*7 }}"
MODEL = "hostile"
RESERVED = "csrf"


def hostile_card() -> dict[str, Any]:
    """Return a card like one of inference."""
    return {
        "name": MODEL,
        "title": HOSTILE,
        "summary": HOSTILE,
        "limitations": [HOSTILE],
        "public": True,
        "version": HOSTILE,
        "gate": "passed",
        "task": "classification",
        "target": HOSTILE,
        "classes": [HOSTILE, "b"],
        "columns": [
            _column(HOSTILE, "text", categories=[HOSTILE]),
            _column(RESERVED, "number", example=1.5),
            _column("flag", "boolean", example=True),
        ],
        "metrics": {
            "metric": "accuracy",
            "held_out_rows": 9,
            "this_version": {HOSTILE: 0.5},
            "live_version": None,
            "baseline": {},
        },
        "data": {"as_of": "2026-11-01T00:00:00Z", "rows": 99, "files": 1},
        "price": {"status": "unavailable"},
        "versions": [
            {
                "version": HOSTILE,
                "released_at": "2026-11-01T00:00:00Z",
                "live": True,
                "deprecated_since": None,
                "sunset": None,
            }
        ],
    }


def _column(name: str, kind: str, *, example: Any = HOSTILE, **more: Any) -> dict[str, Any]:
    column = {"name": name, "kind": kind, "description": HOSTILE, "missing": 0.0}
    return column | {"min": None, "max": None, "categories": None, "example": example} | more


def hostile_inference() -> FastAPI:
    """Return the app, which keeps what it is sent in `state.sent`."""
    app = FastAPI(openapi_url=None)
    app.state.sent = []
    app.state.problem = None

    @app.get("/v1/catalogue")
    async def catalogue() -> dict[str, Any]:
        entry = {
            key: hostile_card()[key] for key in ("name", "title", "summary", "version", "task")
        }
        return {"models": [entry | {"columns": hostile_card()["columns"]}]}

    @app.get("/v1/models/{model}/card")
    async def card(model: str) -> Any:
        return hostile_card() if model == MODEL else Response(status_code=404)

    @app.post("/v1/models/{call}")
    async def predict(call: str, request: Request, response: Response) -> Any:
        app.state.sent.append((call, request.headers.get("idempotency-key"), await request.json()))
        if app.state.problem is not None:
            return app.state.problem
        response.headers["X-Usage-Amount"] = "0.0006 USD"
        response.headers["X-Usage-Event"] = HOSTILE.encode().hex()
        if call.endswith(":explain"):
            contributions = {HOSTILE: 0.5, "flag": -0.25}
            explained = {"base": 0.1, "contributions": contributions, "approximate": False}
            return {"predictions": [HOSTILE], "explanations": [explained]}
        return {"predictions": [HOSTILE], "probabilities": [[0.75, 0.25]]}

    return app
