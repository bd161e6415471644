"""Cookies that cannot be changed, forms that count once, and returns to own pages only."""

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.console.sessions.once import OnceForms
from services.console.sessions.returns import page_of, safe_return
from services.console.sessions.sealing import Sealer
from services.console.sessions.secret import open_secret
from services.console.settings import ConsoleSettings

SECRET = "x" * 32


class TestSealer:
    def test_what_is_sealed_opens_for_its_purpose_only(self) -> None:
        sealer, document = Sealer(SECRET), {"token": "é"}

        sealed = sealer.seal(document, purpose="session")

        assert sealer.unseal(sealed, purpose="session") == document
        assert sealer.unseal(sealed, purpose="flow") is None
        assert Sealer("y" * 32).unseal(sealed, purpose="session") is None

    @given(st.text(max_size=200))
    def test_anything_else_opens_to_nothing(self, text: str) -> None:
        assert Sealer(SECRET).unseal(text, purpose="session") is None

    @given(st.text(max_size=50))
    def test_only_the_right_code_is_accepted(self, text: str) -> None:
        sealer = Sealer(SECRET)

        assert sealer.is_signed(sealer.sign("a form"), text="a form")
        assert not sealer.is_signed(text, text="a form")


class TestSecret:
    def test_the_first_start_creates_it_and_later_ones_keep_it(self, tmp_path: Path) -> None:
        settings = ConsoleSettings(home=tmp_path)

        first, second = open_secret(settings), open_secret(settings)

        assert first == second
        assert (tmp_path / "keys/console").stat().st_mode & 0o777 == 0o600
        assert [file.name for file in (tmp_path / "keys").iterdir()] == ["console"]

    @pytest.mark.parametrize("secret", ["short", "x" * 31])
    def test_a_short_one_is_refused(
        self, tmp_path: Path, secret: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit):
            open_secret(ConsoleSettings(home=tmp_path, secret=secret))

        assert (
            capsys.readouterr().err == "error: CONSOLE_SECRET: must have at least 32 characters\n"
        )

    def test_a_folder_that_cannot_be_used_is_named(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "keys").write_text("")

        with pytest.raises(SystemExit):
            open_secret(ConsoleSettings(home=tmp_path))

        assert "error: CONSOLE_SECRET: unset, and" in capsys.readouterr().err


class TestReturns:
    @pytest.mark.parametrize(
        "text", ["/", "/usage?period=2026-10&by=model", "/models/a%20b", "/admin/accounts/x"]
    )
    def test_an_own_page_is_returned_to(self, text: str) -> None:
        assert safe_return(text) == text

    @given(st.text(alphabet="/\\.:@?#%\t\n abhttps", max_size=20))
    def test_a_browser_never_leaves_the_console(self, text: str) -> None:
        goal = safe_return(text)

        assert goal.startswith("/")
        assert not goal.startswith(("//", "/\\"))
        assert not set(goal) & set("\\\t\n\r ")

    @pytest.mark.parametrize(
        ("path", "page"),
        [
            ("/keys/x/rotate", "/keys"),
            ("/models/wine", "/models/wine"),
            ("/account", "/organisation"),
            ("/admin/plans/preview", "/admin/plans"),
        ],
    )
    def test_a_form_belongs_to_a_page(self, path: str, page: str) -> None:
        assert page_of(path) == page


class TestOnceForms:
    async def test_a_form_that_is_sent_twice_at_once_is_done_once(self) -> None:
        forms, done = OnceForms(), []

        async def work() -> int:
            await asyncio.sleep(0)
            done.append(True)
            return len(done)

        results = await asyncio.gather(*(forms.run("a", work) for _ in range(5)))

        assert (results, await forms.run("b", work)) == ([1] * 5, 2)

    async def test_a_form_that_failed_can_be_sent_again(self) -> None:
        forms, tries = OnceForms(), []

        async def work() -> str:
            tries.append(True)
            if len(tries) == 1:
                raise ValueError
            return "done"

        with pytest.raises(ValueError):  # noqa: PT011
            await forms.run("a", work)

        assert await forms.run("a", work) == "done"

    async def test_only_the_latest_forms_are_remembered(self) -> None:
        forms = OnceForms()

        async def work() -> None: ...

        for number in range(1200):
            await forms.run(str(number), work)

        assert len(forms._known) == 1000
