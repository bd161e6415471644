"""The whole path with both buckets on a GCS emulator: data, version, release, prediction."""

import json
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from harness.gcs import Emulator
from harness.platform import running
from harness.samples import PREDICT, WINE
from harness.stores import PlatformStore
from harness.waiting import eventually
from registry.storage.filesystems import open_filesystem


@pytest.mark.slow  # each part is tested on a bucket by itself: the store, trainings, canaries
def test_a_model_trained_into_a_bucket_is_served_from_it(
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
    stated = json.loads((home / "data/wine/dataset.json").read_bytes())
    quick = json.dumps(stated | {"estimators": ["linear"]}).encode()
    filesystem.pipe_file(f"{bucket}/data/wine/dataset.json", quick)

    with running(home, environment) as platform:
        with platform.client("inference", platform.new_token()) as inference:
            assert answering_version(inference) is None

            trained = json.loads(platform.run("train", "wine", "--release", "--json").stdout)
            eventually(lambda: answering_version(inference) == trained["version"])

            # The running service trusts the next key as well.
            platform.run("keys", "rotate").check_returncode()
            again = PlatformStore(home, f"{bucket_url}/models").publish_copy("wine")
            platform.run("models", "release", "wine", "--to", again).check_returncode()
            eventually(lambda: answering_version(inference) == again)

        verified = platform.run("models", "verify", "--json")
        assert (verified.returncode, json.loads(verified.stdout)["failures"]) == (0, [])
        document = json.loads(platform.run("models", "show", "wine", "--json").stdout)
        assert all(each["generation"] for each in document["data"])


def answering_version(inference: httpx.Client) -> str | None:
    """Return the version that answers a prediction, if one does."""
    answer = inference.post(PREDICT, json={"instances": [WINE]})
    if answer.status_code == 404:
        return None
    assert answer.json() == {"predictions": [0]}
    return answer.headers["X-Model-Version"]
