"""Pod metrics as autoscalers query them, for a load that a test sets.

It replaces a metrics server and a Prometheus adapter: it serves `metrics.k8s.io/v1beta1` and
`custom.metrics.k8s.io/v1beta2` (k8s.io/metrics, pkg/apis) behind the API server's aggregation.
"""

import json
import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import parse_qs, unquote, urlsplit

from harness.waiting import eventually
from tests.e2e.cluster.api import Api
from tests.e2e.cluster.control_plane import Cluster
from tests.integration.deploy.chart import Manifest

RESOURCE, CUSTOM = "metrics.k8s.io/v1beta1", "custom.metrics.k8s.io/v1beta2"
_KINDS = {RESOURCE: "PodMetrics", CUSTOM: "MetricValueList"}
_COMPONENT = "app.kubernetes.io/component"
_QUERY = re.compile(
    r"/apis/(?P<group>.+/v\w+)/namespaces/(?P<namespace>[^/]+)/pods(?:/\*/(?P<metric>.+))?"
)


@dataclass(frozen=True)
class Load:
    """The total load of a service, shared evenly by its running pods."""

    cpus: float = 0
    in_flight: float = 0


@dataclass
class Meter:
    """The current load; a test may change it at any time."""

    loads: dict[str, Load] = field(default_factory=dict)
    """By service; a service without an entry is idle."""
    silent: set[str] = field(default_factory=set)
    """`RESOURCE` or `CUSTOM`, which then fail."""

    def measure(self, api: Api, *, namespace: str, labels: str, metric: str | None) -> Manifest:
        """Return the response to an autoscaler's query for CPU use, or a metric, of some pods."""
        pods = [
            pod
            for pod in api.find("v1", "Pod", namespace=namespace, labels=labels)
            if pod["status"]["phase"] == "Running"
        ]
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        items = []
        for pod in pods:
            metadata = {"name": pod["metadata"]["name"], "namespace": namespace}
            component = pod["metadata"]["labels"][_COMPONENT]
            load = self.loads.get(component, Load())
            if metric is None:
                usage = {"cpu": f"{load.cpus / len(pods) * 1e9:.0f}n", "memory": "64Mi"}
                containers = [{"name": component, "usage": usage}]
                item = {"metadata": metadata, "window": "1s", "containers": containers}
            else:
                described = metadata | {"kind": "Pod", "apiVersion": "/v1"}
                value = f"{load.in_flight / len(pods) * 1000:.0f}m"
                item = {
                    "describedObject": described,
                    "metric": {"name": metric, "selector": None},
                    "value": value,
                }
            items.append(item | {"timestamp": now})
        kind = "PodMetricsList" if metric is None else "MetricValueList"
        group = RESOURCE if metric is None else CUSTOM
        return {"kind": kind, "apiVersion": group, "metadata": {}, "items": items}


@contextmanager
def running_meter(cluster: Cluster) -> Iterator[Meter]:
    """Serve metrics to the cluster's autoscalers for as long as the block runs."""
    meter = Meter()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(meter, cluster.api))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*cluster.certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        with _aggregated(cluster.api, server.server_port):
            yield meter
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def _aggregated(api: Api, port: int) -> Iterator[None]:
    """Have the API server query 127.0.0.1:port for the metrics."""
    service = {"namespace": "default", "name": "meter"}
    target = {"type": "ExternalName", "externalName": "localhost", "ports": [{"port": port}]}
    manifest = {"apiVersion": "v1", "kind": "Service", "metadata": service, "spec": target}
    api.create(manifest, namespace="default")
    registered = {group: ".".join(reversed(group.split("/"))) for group in (RESOURCE, CUSTOM)}
    for group, name in registered.items():
        spec: Manifest = {
            "group": group.split("/")[0],
            "version": group.split("/")[1],
            "service": service | {"port": port},
            "insecureSkipTLSVerify": True,  # the certificate is for 127.0.0.1, not for the Service
            "groupPriorityMinimum": 100,
            "versionPriority": 100,
        }
        kind = {"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService"}
        api.create(kind | {"metadata": {"name": name}, "spec": spec})
    try:
        eventually(lambda: all(api.serves(*kind) for kind in _KINDS.items()))
        yield
    finally:
        for name in registered.values():
            api.delete("apiregistration.k8s.io/v1", "APIService", name)
        api.delete("v1", "Service", "meter", namespace="default")


def _handler(meter: Meter, api: Api) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            url = urlsplit(self.path)
            path = unquote(url.path)
            if path in (f"/apis/{RESOURCE}", f"/apis/{CUSTOM}"):
                self._answer(200, _listing(path.removeprefix("/apis/")))
            elif not (query := _QUERY.fullmatch(path)):
                self._answer(404, {})
            elif query["group"] in meter.silent:
                self._answer(503, {})
            else:
                labels = parse_qs(url.query).get("labelSelector", [""])[0]
                where = {"namespace": query["namespace"], "labels": labels}
                self._answer(200, meter.measure(api, **where, metric=query["metric"]))

        def _answer(self, status: int, body: Manifest) -> None:
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Discard the log line."""

    return Handler


def _listing(group: str) -> Manifest:
    """Return the discovery document of a group."""
    resource = {
        "name": "pods",
        "singularName": "",
        "kind": _KINDS[group],
        "namespaced": True,
        "verbs": ["get", "list"],
    }
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": group,
        "resources": [resource],
    }
