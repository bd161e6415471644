"""Run the pods of a component on this machine, because the simulated nodes start no container.

It does a kubelet's work for them: run the container's command with the pod's own arguments and
variables, serve its log to the API server, and report how it ended.
"""

import os
import re
import ssl
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread

from tests.e2e.cluster.api import Api
from tests.e2e.cluster.control_plane import RUN_BY_TESTS, Cluster
from tests.integration.deploy.chart import Manifest

LOOK_S = 0.1
RUN_S = 60
NOBODY = "http://127.0.0.1:1"


@dataclass
class Kubelet:
    """The pods of `RUN_BY_TESTS` in a namespace; a test may change the rest at any time."""

    api: Api
    namespace: str
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables that differ from those of the pod, such as paths on this machine."""
    served: dict[str, str] = field(default_factory=dict)
    """URLs of the processes that stand for pods, by pod; nothing listens for any other pod."""
    fate: str = "run"
    """What happens to the next pods: `run`, or `hang`, or `die` before they print anything."""
    logs: dict[str, str] = field(default_factory=dict)
    """What the pods printed, by pod."""

    def work(self) -> None:
        """Run the pods that the nodes show as running, once each."""
        if self.fate == "hang":
            return
        label = f"app.kubernetes.io/component={RUN_BY_TESTS}"
        for pod in self.api.find("v1", "Pod", namespace=self.namespace, labels=label):
            name = pod["metadata"]["name"]
            if pod["status"]["phase"] == "Running" and name not in self.logs:
                code, self.logs[name] = (137, "") if self.fate == "die" else self._run(pod)
                self._report(pod, code)

    def _run(self, pod: Manifest) -> tuple[int, str]:
        [container] = pod["spec"]["containers"]
        assert container["command"] == ["tollgate"]
        variables = {each["name"]: each["value"] for each in container["env"] if "value" in each}
        words = [_expand(word, variables) for word in container["args"]]
        result = subprocess.run(
            [sys.executable, "-m", "cli.main", *self._resolve(words)],
            env={"PATH": os.environ["PATH"], **variables, **self.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=RUN_S,
        )
        return result.returncode, result.stdout

    def _resolve(self, words: list[str]) -> list[str]:
        """Replace the name of a headless Service with its pods, as the cluster's DNS does."""
        if "--resolve" not in words:
            return words
        place = words.index("--resolve")
        service = re.fullmatch(r"http://([\w-]+)\.([\w-]+)\.svc:8002", words[place + 1])
        assert service is not None
        assert service[2] == self.namespace
        addresses = [
            word
            for pod in self.endpoints(service[1])
            for word in ("--url", self.served.get(pod, NOBODY))
        ]
        return words[:place] + addresses + words[place + 2 :] if addresses else words

    def endpoints(self, service: str) -> list[str]:
        """Return the ready pods that a Service leads to."""
        label = f"kubernetes.io/service-name={service}"
        where = {"namespace": self.namespace, "labels": label}
        return sorted(
            endpoint["targetRef"]["name"]
            for each in self.api.find("discovery.k8s.io/v1", "EndpointSlice", **where)
            for endpoint in each["endpoints"] or []
            if endpoint["conditions"]["ready"]
        )

    def _report(self, pod: Manifest, code: int) -> None:
        [status] = pod["status"]["containerStatuses"]
        ended = {"exitCode": code, "reason": "Error" if code else "Completed"}
        status |= {"ready": False, "started": False, "state": {"terminated": ended}}
        change = {"phase": "Failed" if code else "Succeeded", "containerStatuses": [status]}
        self.set_status(pod, change)

    def set_status(self, pod: Manifest, change: Manifest) -> None:
        """Change a pod's status in the API server."""
        self.api.patch(
            "v1",
            "Pod",
            pod["metadata"]["name"],
            {"status": change},
            namespace=self.namespace,
            part="status",
        )


def _expand(text: str, variables: Mapping[str, str]) -> str:
    """Expand `$(NAME)` as Kubernetes does."""
    return re.sub(r"\$\((\w+)\)", lambda found: variables.get(found[1], found[0]), text)


@contextmanager
def running_kubelet(cluster: Cluster, namespace: str) -> Iterator[Kubelet]:
    """Run the pods of a namespace for as long as the block runs."""
    kubelet, ended = Kubelet(cluster.api, namespace), Event()
    server = ThreadingHTTPServer(("127.0.0.1", cluster.kubelet_port), _handler(kubelet))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*cluster.certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True)

    def work() -> None:
        while not ended.wait(LOOK_S):
            kubelet.work()

    threads = [Thread(target=server.serve_forever), Thread(target=work)]
    for thread in threads:
        thread.start()
    try:
        yield kubelet
    finally:
        ended.set()
        server.shutdown()
        for thread in threads:
            thread.join()
        server.server_close()


def _handler(kubelet: Kubelet) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            """Return a container's log: /containerLogs/<namespace>/<pod>/<container>."""
            content = kubelet.logs.get(Path(self.path).parent.name, "").encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Discard the log line."""

    return Handler
