"""What `tollgate up` prints once everything is ready."""

from pathlib import Path

from cli.local.quickstart import table

CREDENTIALS = Path("/home/me/.tollgate/credentials.json")


def test_the_table_is_aligned_and_lists_the_console_first() -> None:
    urls = {"auth": "http://127.0.0.1:8001", "console": "http://127.0.0.1:80"}

    lines = table(urls, credentials=CREDENTIALS, seconds=2.34).splitlines()

    assert lines[1] == "  Ready in 2.3 s. Ctrl-C stops everything."
    assert lines[3:6] == [
        "  service  URL                    docs",
        "  console  http://127.0.0.1:80",
        "  auth     http://127.0.0.1:8001  http://127.0.0.1:8001/docs",
    ]
    assert f"  Credentials: {CREDENTIALS}" in lines


def test_without_a_console_the_services_keep_their_order() -> None:
    urls = {name: f"http://{name}" for name in ("auth", "inference", "billing")}

    lines = table(urls, credentials=CREDENTIALS, seconds=0).splitlines()

    assert [line.split()[0] for line in lines[4:7]] == ["auth", "inference", "billing"]
