from pathlib import Path

from cli.local import sample
from registry.store import ModelStore
from trainer.data.config import parse_dataset_config
from trainer.settings import TrainerSettings


def test_a_configured_store_with_other_models_gets_no_sample(tmp_path: Path) -> None:
    store = f"file://{tmp_path}/shared"
    (tmp_path / "shared" / "beer" / "versions").mkdir(parents=True)
    reported: list[str] = []

    settings = TrainerSettings(home=tmp_path / "home", model_store=store)
    sample.ensure_released(settings, report=reported.append)

    assert ModelStore(store).list_models() == ["beer"]
    assert reported == []


def test_the_sample_model_is_public_and_has_a_card(tmp_path: Path) -> None:
    sample.seed(tmp_path)

    config = parse_dataset_config((tmp_path / "wine/dataset.json").read_bytes())
    assert config.target == "class"
    assert config.card is not None
    assert config.card.public
    assert config.card.title
    assert config.card.summary
    assert len(config.card.limitations) >= 3
