from pathlib import Path

from cli.local import sample
from registry.store import ModelStore
from trainer.settings import TrainerSettings


def test_a_configured_store_with_other_models_gets_no_sample(tmp_path: Path) -> None:
    store = f"file://{tmp_path}/shared"
    (tmp_path / "shared" / "beer" / "versions").mkdir(parents=True)
    reported: list[str] = []

    settings = TrainerSettings(home=tmp_path / "home", model_store=store)
    sample.ensure_released(settings, report=reported.append)

    assert ModelStore(store).list_models() == ["beer"]
    assert reported == []
