"""Bucket failures that folders do not have: outages, hangs, and changes during a read."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness.faulty_proxy import Fault, Proxy
from harness.gcs import Emulator
from harness.issuer import new_private_key, private_pem
from harness.ports import free_port
from harness.stores import FIRST, SECOND, SignedStore, manifest, new_signed_store
from registry.records import RunRecord, StoreError, VersionRefused
from registry.storage import gcs as gcs_module
from registry.storage.filesystems import open_filesystem
from registry.store import ModelStore

_TEST_DEADLINE_S = 60
"""Much longer than any call may take here; fails a call that never ends."""


@pytest.fixture
def proxy(gcs: Emulator, bucket_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """A proxy between the test's stores and the emulator."""
    with Proxy(port=free_port()) as proxy:
        proxy.upstream = gcs.port
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", proxy.url)
        yield proxy


@contextmanager
def short_deadlines() -> Iterator[None]:
    """Limit calls to one second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gcs_module, "CALL_DEADLINE_S", 1.0)
        patch.setattr(gcs_module, "SLOWEST_BYTES_PER_S", 1 << 30)
        yield


@pytest.fixture
def signed_store(tmp_path: Path, bucket_url: str, proxy: Proxy) -> SignedStore:
    """A store with one version, released."""
    signed_store = new_signed_store(tmp_path, f"{bucket_url}/models")
    signed_store.publish()
    signed_store.release(FIRST)
    return signed_store


def calls(signed_store: SignedStore) -> dict[str, Callable[[], object]]:
    """Make every kind of call that the services and the trainer make."""
    store, published = signed_store.store, manifest(FIRST)
    signed = store.open_version("wine", FIRST, signed_store.trusted)
    return {
        "list_models": store.list_models,
        "list_versions": lambda: store.list_versions("wine"),
        "list_releases": lambda: store.list_releases("wine"),
        "find_release": lambda: store.find_release("wine", 1),
        "live_release": lambda: store.live_release("wine", signed_store.trusted),
        "open_version": lambda: store.open_version("wine", FIRST, signed_store.trusted),
        "read_file": lambda: store.read_file(signed, "model.onnx"),
        "publish": lambda: store.publish(published, {"model.onnx": b"onnx"}, signed_store.key),
        "record_run": lambda: store.record_run("wine", "key", RunRecord(version=FIRST)),
    }


class TestFaults:
    @pytest.mark.parametrize("fault", ["hang", "trickle", "403", "429", "500", "reset"])
    def test_every_call_ends_with_one_clear_sentence_and_works_again_afterwards(
        self, signed_store: SignedStore, proxy: Proxy, fault: Fault
    ) -> None:
        wanted = calls(signed_store)
        proxy.fail(fault)
        with short_deadlines(), ThreadPoolExecutor(len(wanted)) as pool:
            futures = {name: pool.submit(call) for name, call in wanted.items()}
            failures = {name: call.exception(_TEST_DEADLINE_S) for name, call in futures.items()}

        for failure in failures.values():
            # Not VersionRefused, which is permanent: the bucket's failures are temporary.
            assert type(failure) is StoreError
            assert "http" not in str(failure)
            assert "\n" not in str(failure)
        proxy.pass_on()
        for call in wanted.values():
            call()

    def test_a_refused_connection_is_reported_too(
        self, signed_store: SignedStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{free_port()}")

        with short_deadlines(), pytest.raises(StoreError, match="no response within 1 s"):
            signed_store.store.list_models()

    def test_a_write_whose_response_was_lost_succeeds_on_retry(
        self, signed_store: SignedStore, proxy: Proxy
    ) -> None:
        store, wanted = signed_store.store, manifest(SECOND)
        proxy.fail("reply lost")
        with short_deadlines(), pytest.raises(StoreError):
            store.publish(wanted, {"model.onnx": b"onnx"}, signed_store.key)
        assert proxy.hits
        proxy.pass_on()

        store.publish(wanted, {"model.onnx": b"onnx"}, signed_store.key)

        assert store.list_versions("wine") == [FIRST, SECOND]

    def test_a_writer_without_delete_permission_still_detects_an_existing_object(
        self, signed_store: SignedStore, proxy: Proxy
    ) -> None:
        proxy.fail("403 to writes")

        signed_store.publish()  # exactly the existing bytes
        with pytest.raises(StoreError, match="already exists"):
            signed_store.publish(metrics={"other": 1})
        with pytest.raises(StoreError, match="Forbidden"):
            signed_store.publish(SECOND)

    def test_a_missing_bucket_is_not_treated_as_empty(self, bucket_url: str) -> None:
        for url in (f"{bucket_url}-2", "gs://", f"{bucket_url}-2/models"):
            with pytest.raises(StoreError):
                ModelStore(url).list_models()


class TestCredentials:
    def test_without_credentials_the_store_does_not_open(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "nothing.json"))

        with pytest.raises(StoreError, match="Cannot open the store"):
            ModelStore("gs://tollgate-models")

    def test_a_hanging_token_server_does_not_block_the_call(
        self, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        proxy.fail("hang")
        monkeypatch.delenv("STORAGE_EMULATOR_HOST")
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "account.json"))
        (tmp_path / "account.json").write_text(json.dumps(service_account(f"{proxy.url}/token")))

        with short_deadlines(), pytest.raises(StoreError, match="no response within 1 s"):
            ModelStore("gs://tollgate-models").list_models()

    def test_a_reader_only_requests_read_access(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "account.json"))
        account = service_account("http://127.0.0.1/token")
        (tmp_path / "account.json").write_text(json.dumps(account))

        for read_only, scope in ((True, "read_only"), (False, "read_write")):
            filesystem, _ = open_filesystem("gs://tollgate-models", read_only=read_only)
            [requested] = filesystem.credentials.credentials.scopes
            assert requested == f"https://www.googleapis.com/auth/devstorage.{scope}"


def service_account(token_url: str) -> dict[str, str]:
    """Return the key file of a service account whose tokens come from `token_url`."""
    return {
        "type": "service_account",
        "client_email": "reader@example.com",
        "private_key": private_pem(new_private_key()),
        "token_uri": token_url,
    }


class TestLargeFiles:
    @pytest.mark.costly
    def test_a_file_of_many_pieces_is_written_once_and_read_completely(
        self, bucket_store: SignedStore
    ) -> None:
        content = bytes(range(256)) * (1 << 18)  # 64 MiB: gcsfs sends it in two parts
        store = bucket_store.store
        store.publish(manifest(FIRST), {"model.onnx": content}, bucket_store.key)

        found = store.open_version("wine", FIRST, bucket_store.trusted)
        assert store.read_file(found, "model.onnx") == content
        with pytest.raises(StoreError, match="already exists"):
            store.publish(manifest(FIRST), {"model.onnx": content[::-1]}, bucket_store.key)

    @pytest.mark.costly
    @pytest.mark.parametrize("versioning", [True, False])
    def test_a_file_overwritten_during_a_read_is_never_mixed(
        self, gcs: Emulator, bucket_url: str, tmp_path: Path, versioning: bool
    ) -> None:
        signed_store = new_signed_store(tmp_path, gcs.new_bucket(versioning=versioning))
        ours, theirs = b"a" * (9 << 20), b"b" * (9 << 20)
        signed = signed_store.store.publish(manifest(FIRST), {"model.onnx": ours}, signed_store.key)
        blob = signed_store.path(FIRST, "model.onnx")

        def overwrite() -> None:
            for content in [theirs, ours] * 6:
                blob.write_bytes(content)

        found: set[object] = set()
        with ThreadPoolExecutor(1) as pool:
            writing = pool.submit(overwrite)
            while not writing.done():
                found.add(
                    outcome(lambda: signed_store.store.read_file(signed, "model.onnx") == ours)
                )
                found.add(outcome(lambda: blob.read_bytes() in (ours, theirs)))
            writing.result()

        assert found <= {True, "digest", "the object was replaced while being read"}
        assert True in found

    def test_an_old_generation_can_be_read_while_it_exists(self, bucket_store: SignedStore) -> None:
        blob = bucket_store.path(SECOND, "part.csv")
        blob.write_bytes(b"old")
        generation = blob.filesystem.info(blob.path)["generation"]
        blob.write_bytes(b"new")

        assert blob.filesystem.cat_file(blob.path, generation=generation) == b"old"
        assert blob.read_bytes() == b"new"
        with pytest.raises(FileNotFoundError):
            blob.filesystem.cat_file(blob.path, generation="1")


def outcome(read: Callable[[], bool]) -> object:
    """Return the result of `read`, or why it failed."""
    try:
        return read()
    except VersionRefused as refusal:
        return refusal.reason
    except (StoreError, OSError) as error:
        return str(error).rpartition(": ")[2].removesuffix(".")
