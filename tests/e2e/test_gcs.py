"""The whole thread with both buckets at a GCS emulator: data, version, release, prediction."""

import json
from collections.abc import Callable
from pathlib import Path

from services.common.model_store import open_filesystem
from tests.e2e.platform import PREDICT, WINE, eventually, running
from tests.gcs import Emulator


def test_what_is_trained_into_a_bucket_is_served_from_it(
    gcs: Emulator, bucket_url: str, new_home: Callable[[], Path]
) -> None:
    home = new_home()
    environment = {
        "STORAGE_EMULATOR_HOST": gcs.url,
        "INFERENCE_MODEL_STORE": f"{bucket_url}/models",
        "TRAINER_MODEL_STORE": f"{bucket_url}/models",
        "TRAINER_DATA_STORE": f"{bucket_url}/data",
    }
    filesystem, bucket = open_filesystem(bucket_url)
    for file in (home / "data/wine").iterdir():
        filesystem.pipe_file(f"{bucket}/data/wine/{file.name}", file.read_bytes())

    with running(home, environment) as platform:
        token = platform.new_token()
        with platform.client("inference", token) as inference:
            assert inference.post(PREDICT, json={"instances": [WINE]}).status_code == 404

            trained = json.loads(platform.run("train", "wine", "--release", "--json").stdout)
            answer = eventually(
                lambda: (
                    (found := inference.post(PREDICT, json={"instances": [WINE]})).is_success
                    and found
                )
            )

        assert answer.json() == {"predictions": [0]}
        assert answer.headers["X-Model-Version"] == trained["version"]
        verified = platform.run("models", "verify", "--json")
        assert (verified.returncode, json.loads(verified.stdout)["failures"]) == (0, [])
        shown = json.loads(platform.run("models", "show", "wine", "--json").stdout)
        assert all(each["generation"] for each in shown["data"])
