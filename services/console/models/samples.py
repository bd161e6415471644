"""Code that calls a model, in several languages. Names are quoted for each, whatever they are."""

import json
import shlex
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote


def code_samples(
    *, inference_url: str, model: str, row: Mapping[str, Any]
) -> list[tuple[str, str]]:
    """Return the language and the code of each sample; all read the key from the environment."""
    url = f"{inference_url}/v1/models/{quote(model, safe='')}:predict"
    body = json.dumps({"instances": [dict(row)]}, ensure_ascii=False)
    pretty = json.dumps({"instances": [dict(row)]}, ensure_ascii=False, indent=2)
    return [
        ("curl", _curl(url, body)),
        ("Python", _python(url, row)),
        ("JavaScript", _javascript(url, pretty)),
        ("R", _r(url, body)),
        ("Excel", _excel(url, body)),
        ("Sheets", _sheets(url, row)),
    ]


def _curl(url: str, body: str) -> str:
    return (
        f"curl {shlex.quote(url)} \\\n"
        '  -H "X-API-Key: $TOLLGATE_API_KEY" \\\n'
        "  -H 'Content-Type: application/json' \\\n"
        f"  -d {shlex.quote(body)}"
    )


def _python(url: str, row: Mapping[str, Any]) -> str:
    lines = "\n".join(f"    {name!r}: {value!r}," for name, value in row.items())
    return (
        "import os\n\nimport httpx\n\n"
        f"row = {{\n{lines}\n}}\n"
        "response = httpx.post(\n"
        f"    {url!r},\n"
        '    headers={"X-API-Key": os.environ["TOLLGATE_API_KEY"]},\n'
        '    json={"instances": [row]},\n'
        ")\n"
        "response.raise_for_status()\n"
        'print(response.json()["predictions"], response.headers["X-Usage-Amount"])'
    )


def _javascript(url: str, pretty: str) -> str:
    indented = pretty.replace("\n", "\n  ")
    return (
        f"const response = await fetch({json.dumps(url)}, {{\n"
        '  method: "POST",\n'
        "  headers: {\n"
        '    "X-API-Key": process.env.TOLLGATE_API_KEY,\n'
        '    "Content-Type": "application/json",\n'
        "  },\n"
        f"  body: JSON.stringify({indented}),\n"
        "});\n"
        "if (!response.ok) throw new Error(await response.text());\n"
        'console.log(await response.json(), response.headers.get("X-Usage-Amount"));'
    )


def _r(url: str, body: str) -> str:
    return (
        "library(httr2)\n\n"
        f"response <- request({json.dumps(url)}) |>\n"
        '  req_headers("X-API-Key" = Sys.getenv("TOLLGATE_API_KEY")) |>\n'
        f'  req_body_raw({json.dumps(body, ensure_ascii=False)}, type = "application/json") |>\n'
        "  req_perform()\n"
        "resp_body_json(response)$predictions"
    )


def _excel(url: str, body: str) -> str:
    """Return a query for Data → Get Data → Blank Query → Advanced Editor (Power Query M)."""
    return (
        "// Data > Get Data > From Other Sources > Blank Query > Advanced Editor\n"
        "let\n"
        "  Response = Web.Contents(\n"
        f"    {_m_text(url)},\n"
        "    [\n"
        '      Headers = [#"X-API-Key" = "<your API key>", #"Content-Type" = "application/json"],\n'
        f"      Content = Text.ToBinary({_m_text(body)})\n"
        "    ]\n"
        "  ),\n"
        "  Predictions = Json.Document(Response)[predictions]\n"
        "in\n"
        "  Predictions"
    )


def _sheets(url: str, row: Mapping[str, Any]) -> str:
    """Return a custom function for Extensions → Apps Script, called as `=PREDICT(A2:M2)`."""
    names = json.dumps(list(row), ensure_ascii=False)
    return (
        "// Extensions > Apps Script; then in a cell: =PREDICT(A2:Z2)\n"
        "function PREDICT(range) {\n"
        f"  const columns = {names};\n"
        "  const instances = range.map(values =>\n"
        "    Object.fromEntries(columns.map((name, i) => [name, values[i]])));\n"
        f"  const response = UrlFetchApp.fetch({json.dumps(url)}, {{\n"
        '    method: "post",\n'
        '    contentType: "application/json",\n'
        '    headers: { "X-API-Key": '
        'PropertiesService.getScriptProperties().getProperty("TOLLGATE_API_KEY") },\n'
        "    payload: JSON.stringify({ instances }),\n"
        "  });\n"
        "  return JSON.parse(response.getContentText()).predictions.map(each => [each]);\n"
        "}"
    )


def _m_text(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'
