"""Hooks of the docs site (mkdocs.yml): pages made from the code, and pages without inline scripts.

The console serves the site under a Content-Security-Policy that allows scripts from files only.
"""

import re
from hashlib import sha256
from os.path import relpath
from pathlib import Path
from urllib.parse import unquote

from docs_api import api_pages
from docs_reference import commands_page, metrics_page, settings_page
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
BESIDE_DOCS = {
    "../deploy/helm/tollgate/README.md": "chart.md",
    "../.env.example": "reference/settings.md",
}
"""Links from docs/ to other files of the repository, and the page of the site that has them."""
INLINE_SCRIPT = re.compile(r"<script>(?P<text>.*?)</script>", re.DOTALL)
INLINE_IMAGE = re.compile(r'url\("data:image/svg\+xml;charset=utf-8,(?P<text>.*?)"\)')


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made from the code, and the chart's README."""
    chart = (ROOT / "deploy/helm/tollgate/README.md").read_text()
    pages = {
        "chart.md": chart.replace("../../../docs/", ""),
        "reference/settings.md": settings_page((ROOT / ".env.example").read_text()),
        "reference/commands.md": commands_page(),
        "reference/metrics.md": metrics_page(ROOT / "services"),
        **api_pages(),
    }
    for path, text in pages.items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(
    markdown: str,
    *,
    page: Page,
    config: MkDocsConfig,
    files: Files,
) -> str:
    """Turn links to other files of the repository into links to the pages that have them."""
    for link, target in BESIDE_DOCS.items():
        markdown = markdown.replace(f"]({link})", f"]({target})")
    return markdown


def on_post_build(config: MkDocsConfig) -> None:
    """Move inline scripts, and images inside style sheets, into files of their own."""
    site = Path(config.site_dir)
    for path in site.rglob("*.html"):
        _move_out(path, INLINE_SCRIPT, folder=site / "assets/javascripts", suffix=".js")
    for path in site.rglob("*.css"):
        _move_out(path, INLINE_IMAGE, folder=site / "assets/images", suffix=".svg")


def _move_out(path: Path, inline: re.Pattern[str], *, folder: Path, suffix: str) -> None:
    """Write each match's text to a file in `folder`, and refer to it instead."""

    def move(found: re.Match[str]) -> str:
        text = found["text"] if suffix == ".js" else unquote(found["text"])
        file = folder / f"{sha256(text.encode()).hexdigest()[:12]}{suffix}"
        file.write_text(text)
        url = relpath(file, path.parent)
        return f'<script src="{url}"></script>' if suffix == ".js" else f'url("{url}")'

    path.write_text(inline.sub(move, path.read_text()))
