"""Pickles run code, so they must be signed, allowed, and match the installed scikit-learn."""

import io
import pickle
from pathlib import Path
from typing import Any

import joblib
import pytest
import sklearn
from sklearn.linear_model import LogisticRegression

from services.inference.api.codec import Body
from services.inference.api.v2 import document
from services.inference.models.table import ModelNotFound
from tests.integration.inference.samples import MIXED_ROW, NUMBERS_ROW, Store
from tests.integration.inference.shelf import Shelf


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


@pytest.fixture
async def shelf(samples: Store, tmp_path: Path) -> Shelf:
    """Return a shelf that allows pickles."""
    shelf = Shelf(samples, tmp_path)
    shelf.start(allow_joblib=True, load_waits_s=60)  # scikit-learn and pandas may be imported first
    await shelf.watcher.poll()
    return shelf


class TestAllowed:
    @pytest.mark.parametrize(("model", "row"), [("numbers", NUMBERS_ROW), ("mixed", MIXED_ROW)])
    async def test_a_pickle_predicts_like_its_onnx_export(
        self, shelf: Shelf, model: str, row: Any
    ) -> None:
        version = shelf.publish(model=model, serving="joblib")

        pickled = await shelf.loader.get(model, version)
        exported = await shelf.loader.get(model, None)

        arrays = pickled.inputs.decode([row])
        answers = [m.runtime.run(arrays, probabilities=True) for m in (pickled, exported)]
        assert answers[0].predictions == answers[1].predictions
        assert answers[0].probabilities is not None
        assert answers[1].probabilities is not None
        assert answers[0].probabilities[0] == pytest.approx(answers[1].probabilities[0], abs=1e-5)

    async def test_a_regression_answers_in_the_v2_protocol(self, shelf: Shelf) -> None:
        version = shelf.publish(model="price", serving="joblib")
        model = await shelf.loader.get("price", version)
        tensor = b'{"name": "features", "datatype": "FP32", "shape": [1, 2], "data": [4, 2]}'

        query = document.decode(Body(b'{"inputs": [%s]}' % tensor, None), model, 10)
        answer = model.runtime.run(query.arrays)

        assert answer.predictions == [pytest.approx(10.0, abs=1.0)]


class TestRefused:
    async def _refuses(self, shelf: Shelf, version: str, reason: str) -> None:
        live = shelf.live
        with pytest.raises(ModelNotFound):
            await shelf.loader.get("numbers", version)
        shelf.release(version)
        await shelf.watcher.poll()

        assert shelf.refused(reason) == 2
        assert shelf.live == live

    async def test_unless_the_operator_allowed_it(self, shelf: Shelf, tmp_path: Path) -> None:
        mark = tmp_path / "exploded"
        shelf.start()
        await shelf.watcher.poll()

        version = shelf.publish(serving="joblib", joblib_bytes=pickle.dumps(Bomb(mark)))

        await self._refuses(shelf, version, "joblib")
        assert not mark.exists()

    async def test_unless_a_trusted_key_signed_it(self, shelf: Shelf, tmp_path: Path) -> None:
        mark = tmp_path / "exploded"
        version = shelf.publish(serving="joblib", joblib_bytes=pickle.dumps(Bomb(mark)))
        signature = shelf.folder / "numbers/versions" / version / "manifest.sig"
        signature.write_bytes(bytes(64))

        await self._refuses(shelf, version, "signature")
        assert not mark.exists()

    async def test_unless_its_digest_is_the_one_signed(self, shelf: Shelf, tmp_path: Path) -> None:
        mark = tmp_path / "exploded"
        version = shelf.publish(serving="joblib")
        path = shelf.folder / "numbers/versions" / version / "model.joblib"
        path.write_bytes(pickle.dumps(Bomb(mark)).ljust(path.stat().st_size, b"\0"))

        await self._refuses(shelf, version, "digest")
        assert not mark.exists()

    @pytest.mark.parametrize(
        ("package", "version"), [("scikit-learn", "1.0.0"), ("scikit-learn", ""), ("numpy", "1.26")]
    )
    async def test_unless_it_was_trained_with_the_installed_libraries(
        self, shelf: Shelf, tmp_path: Path, package: str, version: str
    ) -> None:
        mark = tmp_path / "exploded"

        def change(manifest: dict[str, Any]) -> None:
            manifest["environment"][package] = version

        published = shelf.publish(
            serving="joblib", joblib_bytes=pickle.dumps(Bomb(mark)), change=change
        )

        await self._refuses(shelf, published, "runtime")
        assert not mark.exists()

    async def test_when_scikit_learn_reports_another_version(self, shelf: Shelf) -> None:
        [oldest] = shelf.store.list_versions("numbers")
        manifest = shelf.store.open_version("numbers", oldest, shelf.trusted)
        content = shelf.store.read_file(manifest, "model.joblib")
        ours = sklearn.__version__.encode()
        other = content.replace(ours, b"0" + ours[1:])
        assert other != content

        await self._refuses(shelf, shelf.publish(serving="joblib", joblib_bytes=other), "runtime")

    async def test_when_its_columns_do_not_match_its_signature(self, shelf: Shelf) -> None:
        model = LogisticRegression().fit([[0.0, 0.0], [1.0, 1.0]], [0, 1])

        version = shelf.publish(serving="joblib", joblib_bytes=_dump(model))

        await self._refuses(shelf, version, "runtime")


def _dump(model: Any) -> bytes:
    content = io.BytesIO()
    joblib.dump(model, content)
    return content.getvalue()
