"""Check that the project's prose is plain English: strings, docstrings, comments and documents.

python scripts/words.py [PATH …]     default: every file that git tracks

Prints each avoided phrase with its location; exits with 1 if there is one.
"""

import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

AVOIDED = {
    r"tells?|told": "say, report, state",
    r"(?:do|does|did) not hold": "is invalid, fails",
    r"is none|are none|none such": "there is no …",
    r"for ever": "forever, without end",
    r"of late": "recently",
    r"in vain": "without success",
    r"as ever": "as before",
    r"lest": "so that … not",
    r"thereof": "of it",
    r"be had": "is available",
    r"know(?:s|ing)? nothing": "the baseline; does not depend on",
    r"stands? at": "is",
    r"comes? of": "follows from, happens to",
    r"who(?:m|so)?ever": "the one who, anyone who",
    r"(?:some|any|no)body else(?:'s)?": "another …, no other …",
    r"asks? anew|afresh": "again",
    r"holds? back": "delays",
    r"means nothing here": "unknown field",
    r"becomes? of": "happens to",
    r"by turns|in turn": "one after the other",
    r"(?<!the )(?<!audit )log in(?! to the registry)|log-ins?|logs in": "sign in",
    r"logg(?:ed|ing)[ -]in": "signed in, signing in",
    r"log(?:s|ged|ging)?[ -]out": "sign out",
}
"""Regular expressions of avoided phrases, and what to write instead."""

SUFFIXES = {".py", ".md", ".yaml", ".yml", ".toml", ".html", ".j2", ".sh", ".tpl", ".txt", ".mako"}
LEFT_OUT = ("requirements/", "scripts/words.py", "CHANGELOG.md", "LICENSE")

_PATTERN = re.compile(
    r"\b(?:" + "|".join(f"(?P<a{n}>{each})" for n, each in enumerate(AVOIDED)) + r")\b",
    re.IGNORECASE,
)
_INSTEAD = list(AVOIDED.values())
_TEMPLATE_CODE = re.compile(r"{[{%#].*?[}%#]}", re.DOTALL)


def main() -> None:
    paths = [Path(each) for each in sys.argv[1:]] or tracked()
    problems_found = [line for path in paths for line in problems(path)]
    sys.stdout.writelines(f"{line}\n" for line in problems_found)
    if problems_found:
        sys.exit(f"error: {len(problems_found)} avoided phrases")


def tracked() -> list[Path]:
    """Return every file of the project that contains prose."""
    listed = subprocess.run(
        ["git", "ls-files"], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    return [
        Path(name)
        for name in listed
        if Path(name).suffix in SUFFIXES
        and not name.startswith(LEFT_OUT)
        and not name.endswith("requirements.txt")
    ]


def problems(path: Path) -> Iterator[str]:
    """Yield one line for each avoided phrase in a file."""
    for number, text in prose(path):
        for match in _PATTERN.finditer(text):
            instead = _INSTEAD[int((match.lastgroup or "a0")[1:])]
            line = number + text.count("\n", 0, match.start())
            yield f"{path}:{line}: {match.group()!r}; write: {instead}"


def prose(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the texts that a person reads, each with its first line's number."""
    text = path.read_text()
    if path.suffix == ".j2":
        text = _TEMPLATE_CODE.sub(lambda code: "\n" * code[0].count("\n"), text)
    if path.suffix != ".py":
        yield 1, text
        return
    texts = {tokenize.STRING, tokenize.COMMENT, getattr(tokenize, "FSTRING_MIDDLE", -1)}
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in texts:
            yield token.start[0], token.string


if __name__ == "__main__":
    main()
