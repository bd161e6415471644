"""Keys: one signs, several are trusted."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from services.common.model_store import (
    StoreError,
    TrustedKeys,
    create_signing_key,
    load_signing_key,
)


class TestKeys:
    def test_processes_at_once_agree_on_one_key(self, tmp_path: Path) -> None:
        private, trusted = tmp_path / "keys/signing.pem", tmp_path / "keys/trusted"
        with ThreadPoolExecutor(8) as pool:
            made = list(pool.map(lambda _: create_signing_key(private, trusted), range(8)))

        assert len({key.private_bytes_raw() for key in made}) == 1
        assert private.stat().st_mode & 0o777 == 0o600
        assert len(list(trusted.iterdir())) == 1
        assert TrustedKeys.load(trusted).verify(b"data", made[0].sign(b"data"))

    def test_a_file_of_one_key_is_trusted_as_a_folder_is(self, tmp_path: Path) -> None:
        key = create_signing_key(tmp_path / "signing.pem", tmp_path / "trusted")
        [file] = (tmp_path / "trusted").iterdir()

        assert TrustedKeys.load(file).verify(b"data", key.sign(b"data"))

    def test_what_is_no_key_is_told_by_name_not_by_path(self, tmp_path: Path) -> None:
        (tmp_path / "bad.pem").write_text("no key")

        for load in (TrustedKeys.load, load_signing_key):
            with pytest.raises(StoreError, match=r"key bad\.pem cannot be read") as failure:
                load(tmp_path / "bad.pem")
            assert str(tmp_path) not in str(failure.value)
        with pytest.raises(StoreError):
            TrustedKeys.load(tmp_path / "nowhere")
