"""Server and model metadata of the Open Inference Protocol v2."""

import httpx


class TestMetadata:
    async def test_of_numeric_models_has_one_input_and_of_others_one_per_column(
        self, client: httpx.AsyncClient, bearer: dict[str, str]
    ) -> None:
        plain = (await client.get("/v2/models/numbers", headers=bearer)).json()
        other = (await client.get("/v2/models/mixed", headers=bearer)).json()
        price = (await client.get("/v2/models/price", headers=bearer)).json()

        assert plain["inputs"] == [{"name": "features", "datatype": "FP32", "shape": [-1, 3]}]
        assert plain["outputs"] == [
            {"name": "predict", "datatype": "INT64", "shape": [-1]},
            {"name": "predict_proba", "datatype": "FP64", "shape": [-1, 2]},
        ]
        assert other["inputs"] == [
            {"name": "size", "datatype": "FP32", "shape": [-1, 1]},
            {"name": "colour", "datatype": "BYTES", "shape": [-1, 1]},
            {"name": "sold", "datatype": "BOOL", "shape": [-1, 1]},
        ]
        assert price["outputs"] == [{"name": "predict", "datatype": "FP64", "shape": [-1]}]

    async def test_of_the_live_version_matches_the_model(
        self, client: httpx.AsyncClient, bearer: dict[str, str]
    ) -> None:
        model = (await client.get("/v2/models/mixed", headers=bearer)).json()
        [version] = model["versions"]

        named = await client.get(f"/v2/models/mixed/versions/{version}", headers=bearer)
        ready = await client.get(f"/v2/models/mixed/versions/{version}/ready", headers=bearer)

        assert named.json() == model
        assert ready.json() == {"name": "mixed", "ready": True}

    async def test_of_the_server_names_the_extensions(
        self, client: httpx.AsyncClient, bearer: dict[str, str]
    ) -> None:
        answer = await client.get("/v2", headers=bearer)
        with_slash = await client.get("/v2/", headers=bearer)

        assert answer.json() == with_slash.json()
        assert answer.json()["name"] == "tollgate"
        assert "binary_tensor_data" in answer.json()["extensions"]

    async def test_lists_the_models(
        self, client: httpx.AsyncClient, bearer: dict[str, str]
    ) -> None:
        answer = await client.get("/v2/models", headers=bearer)

        assert answer.json() == {"models": ["mixed", "numbers", "price"]}

    async def test_health_needs_no_token_and_the_rest_does(self, client: httpx.AsyncClient) -> None:
        live = await client.get("/v2/health/live")
        ready = await client.get("/v2/health/ready")
        closed = [await client.get(path) for path in ("/v2", "/v2/models", "/v2/models/numbers")]

        assert live.json() == {"live": True}
        assert ready.json() == {"live": True, "ready": True}
        for answer in closed:
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"].startswith("Bearer")
            assert answer.json().keys() == {"error"}

    async def test_the_index_says_which_version_is_live(
        self, client: httpx.AsyncClient, bearer: dict[str, str]
    ) -> None:
        answer = await client.post("/v2/repository/index", headers=bearer)

        by_name = {entry["name"]: entry for entry in answer.json()}
        assert by_name.keys() == {"mixed", "numbers", "price"}
        assert all(entry["live"] and entry["state"] == "READY" for entry in by_name.values())

    async def test_an_invalid_index_request_gets_an_error_in_the_protocols_format(
        self, client: httpx.AsyncClient, bearer: dict[str, str]
    ) -> None:
        answer = await client.post("/v2/repository/index", content=b"{", headers=bearer)

        assert answer.status_code == 400
        assert answer.json().keys() == {"error"}

    async def test_the_docs_show_the_calls(self, client: httpx.AsyncClient) -> None:
        paths = (await client.get("/openapi.json")).json()["paths"]

        assert "post" in paths["/v2/models/{model}/infer"]
        assert "post" in paths["/v2/models/{model}/versions/{version}/infer"]
        assert "post" in paths["/v1/models/{model}:predict"]
