"""Every public path that the chart, Caddy or the docs name has a route in its service."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute, iter_route_contexts

from harness.every_service import create_every_app
from tests.integration.deploy.chart import ROOT, SERVICES, render

Routes = dict[str, set[str]]

METHODS = "GET|POST|PUT|PATCH|DELETE"
DOCUMENTED = re.compile(rf"\b(?:{METHODS})(?:[·|](?:{METHODS}))* (/[\w./{{}}:-]*[\w}}])")
ADDRESS = re.compile(
    r"https?://(?:127\.0\.0\.1:(800[123])|(auth|inference|billing)\.[\w.-]+)(/[\w./:-]+)"
)
PROBES = {"/healthz", "/readyz", "/metrics"}
INSIDE = PROBES | {"/revocations", "/rejections", "/events", "/leases", "/design"}
"""What only the cluster calls."""
PORTS = {"8001": "auth", "8002": "inference", "8003": "billing"}
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.fixture(scope="module")
def routes(tmp_path_factory: pytest.TempPathFactory) -> Routes:
    """Return the paths of each service, those of pages included."""
    home = tmp_path_factory.mktemp("routes")
    apps = create_every_app(home)
    beside = {"/docs", "/openapi.json", "/healthz", "/readyz", "/metrics"}
    return {name: beside | set(app.openapi()["paths"]) | _pages(app) for name, app in apps.items()}


def _pages(app: FastAPI) -> set[str]:
    """Return the paths that the OpenAPI document leaves out."""
    contexts = iter_route_contexts(app.routes)
    return {str(each.path_format) for each in contexts if isinstance(each.original_route, APIRoute)}


def has_route(path: str, known: set[str]) -> bool:
    """Return whether a path is a route or the beginning of one, whatever its parameters."""
    words = _words(path)
    return any(
        len(words) <= len(route)
        and all(
            one == other or "{" in one + other for one, other in zip(words, route, strict=False)
        )
        for route in map(_words, known)
    )


def _words(path: str) -> list[str]:
    return re.split("[/:]", path)


def test_a_path_is_found_by_its_beginning_and_its_parameters() -> None:
    known = {"/v1/models/{model}:predict", "/accounts/{id}/plan"}

    assert has_route("/v1", known)
    assert has_route("/v1/models/wine:predict", known)
    assert has_route("/accounts/{account}/plan", known)
    assert not has_route("/v", known)
    assert not has_route("/accounts/{id}/plans", known)


@pytest.mark.costly
@pytest.mark.parametrize(
    "settings",
    [
        ("domain=example.com",),
        ("expose=ingress",),
        ("domain=example.com", "expose=gateway", "gateway.className=any"),
    ],
    ids=["names", "one address", "gateway"],
)
def test_every_path_of_an_ingress_or_gateway_has_a_route(
    settings: tuple[str, ...], routes: Routes
) -> None:
    exposed = list(_exposed(settings))

    assert len(exposed) > len(SERVICES)
    assert [each for each in exposed if not has_route(each[1], routes[each[0]])] == []


def test_every_route_is_public_unless_it_is_for_the_cluster_only(routes: Routes) -> None:
    exposed = list(_exposed(("domain=example.com",)))

    hidden = {
        route
        for service, known in routes.items()
        for route in known - INSIDE
        if not any(
            has_route(path, {route}) for name, path in exposed if name == service and path != "/"
        )
    }

    assert hidden == {"/", "/openapi.json"}  # the console's start page is public; it has no API


def test_services_that_share_an_address_share_no_path() -> None:
    paths = [path for _, path in _exposed(("expose=ingress",))]

    assert len(paths) == len(set(paths))


def _exposed(settings: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Yield the service and the path of each public rule."""
    rendered = render(*settings)
    for ingress in rendered.of("Ingress"):
        for rule in ingress["spec"]["rules"]:
            for path in rule["http"]["paths"]:
                name = path["backend"]["service"]["name"]
                yield name.removeprefix("t-tollgate-"), path["path"]
    for route in rendered.of("HTTPRoute"):
        for rule in route["spec"]["rules"]:
            for match in rule["matches"]:
                name = rule["backendRefs"][0]["name"]
                yield name.removeprefix("t-tollgate-"), match["path"]["value"]


def test_a_gateway_accepts_the_number_of_rules_and_matches() -> None:
    """As the standard channel of the Gateway API limits them; its schemas are not here."""
    rules = [route["spec"]["rules"] for route in render(scenario="gateway").of("HTTPRoute")]

    assert rules
    assert max(map(len, rules)) <= 16
    assert max(len(rule["matches"]) for route in rules for rule in route) <= 8


@pytest.mark.parametrize("service", SERVICES)
def test_every_path_of_caddy_has_a_route(service: str, routes: Routes) -> None:
    caddyfile = (ROOT / "deploy" / "compose" / "Caddyfile").read_text()
    [matcher] = re.findall(rf"^\timport service {service}:\d+ (.*)$", caddyfile, re.MULTILINE)

    paths = [path.removesuffix("*") for path in matcher.split()]

    assert paths
    assert [path for path in paths if not has_route(path, routes[service])] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(Path(page).name))
def test_every_path_in_the_docs_has_a_route(page: Path, routes: Routes) -> None:
    text = page.read_text()
    everywhere = set().union(*routes.values())

    unknown = [path for path in DOCUMENTED.findall(text) if not has_route(path, everywhere)]
    for port, name, path in ADDRESS.findall(text):
        if not has_route(path.rstrip(".:"), routes[name or PORTS[port]]):
            unknown.append(path)

    assert unknown == []


def test_the_docs_name_paths() -> None:
    paths = [path for page in PAGES for path in DOCUMENTED.findall(page.read_text())]

    assert len(paths) > 10
