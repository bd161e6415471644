"""A Kubernetes control plane on loopback, from programs that scripts/cluster-tools.sh built.

Everything that decides is real: etcd, kube-apiserver, kube-controller-manager and kube-scheduler.
Only the nodes are simulated, by kwok: a scheduled pod is running and ready at once, a Job's pod
completes at once, and no container starts. Pods of `RUN_BY_TESTS` keep running in the namespace of
that name, until a test's own kubelet ends them.
"""

import base64
import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx
import yaml
from cryptography.hazmat.primitives import serialization

from harness.issuer import new_private_key, private_pem
from harness.ports import free_port
from harness.processes import Process, await_process, start_process, stop_process
from harness.programs import NotInstalled
from harness.waiting import eventually
from tests.e2e.cluster.api import Api
from tests.integration.deploy.chart import ROOT

TOOLS = ROOT / ".tools" / "cluster"
RUN_BY_TESTS = "release-check"
"""The component whose pods `tests.e2e.cluster.kubelet` runs, and the namespace where it does so."""
NODES = 3
_NODE = {"cpu": "16", "memory": "64Gi", "ephemeral-storage": "100Gi", "pods": "110"}
VOLUMES = 24
"""Per storage class; a volume that one scenario claimed is not used again."""

_TOKEN = "administrator"  # of a server that only this machine can reach
_START_DEADLINE_S = 120
_SYNC_S = 0.5


@dataclass(frozen=True)
class Cluster:
    """A running control plane."""

    folder: Path
    """Its state; `kubeconfig` is for its clients, `pki/` has its certificate."""
    api: Api
    kubelet_port: int
    """Where the API server fetches the logs of pods."""

    @property
    def kubeconfig(self) -> Path:
        return self.folder / "kubeconfig"

    @property
    def certificate(self) -> tuple[Path, Path]:
        """Certificate for 127.0.0.1 that the API server made for itself, and its private key."""
        return self.folder / "pki" / "apiserver.crt", self.folder / "pki" / "apiserver.key"


@contextmanager
def running_cluster(folder: Path) -> Iterator[Cluster]:
    """Start a control plane with nodes, volumes and CRDs; stop it after the block.

    Raises:
        NotInstalled: scripts/cluster-tools.sh has not built it.
    """
    if not (TOOLS / "kwok").exists():
        raise NotInstalled("there is no control plane; scripts/cluster-tools.sh builds it")
    etcd_url = f"http://127.0.0.1:{free_port()}"
    port = free_port()
    # The key that signs ServiceAccount tokens, in the older form of RSA keys.
    traditional = serialization.PrivateFormat.TraditionalOpenSSL
    (folder / "accounts.pem").write_text(private_pem(new_private_key(), traditional))
    (folder / "tokens.csv").write_text(f'{_TOKEN},admin,admin,"system:masters"\n')
    with ExitStack() as stack:
        run = _Runner(folder, stack)
        run("etcd", *_etcd(folder, etcd_url))
        run("kube-apiserver", *_apiserver(folder, etcd_url, port))
        certificate = folder / "pki" / "apiserver.crt"
        eventually(certificate.exists, within_s=_START_DEADLINE_S)
        api = stack.enter_context(Api(f"https://127.0.0.1:{port}", certificate, token=_TOKEN))
        run.until("kube-apiserver", lambda: _is_ready(api))
        cluster = Cluster(folder, api, free_port())
        _write_kubeconfig(cluster)
        config = f"--kubeconfig={cluster.kubeconfig}"
        run("kube-controller-manager", config, *_controllers(folder))
        run("kube-scheduler", config, "--leader-elect=false", "--secure-port=0")
        kubelet = ("--node-ip=127.0.0.1", f"--node-port={cluster.kubelet_port}")
        # By default, it would listen on the kubelet's port.
        address = f"--server-address=127.0.0.1:{free_port()}"
        run("kwok", config, "--manage-all-nodes=true", *kubelet, address, *_stages(folder))
        _create_resources(api)
        yield cluster


class _Runner:
    """Starts programs, each with its own log, and stops them with the stack."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder = folder
        self._stack = stack
        self._running: dict[str, Process] = {}

    def __call__(self, name: str, *options: str) -> None:
        process = start_process(
            *(str(TOOLS / name), *options),
            log=self._folder / f"{name}.log",
            environment={"PATH": os.environ["PATH"], "HOME": str(self._folder)},
            folder=self._folder,
        )
        self._running[name] = process
        self._stack.callback(stop_process, process, within_s=10)

    def until(self, name: str, condition: Callable[[], bool]) -> None:
        """Wait until a started program meets a condition.

        Raises:
            AssertionError: it ended, or the condition stayed false; with the end of its log.
        """
        log = self._folder / f"{name}.log"
        await_process(self._running[name], condition, log=log, within_s=_START_DEADLINE_S)


def _is_ready(api: Api) -> bool:
    try:
        return api.client.get("/readyz").is_success
    except httpx.TransportError:
        return False


def _write_kubeconfig(cluster: Cluster) -> None:
    authority = base64.b64encode(cluster.certificate[0].read_bytes()).decode()
    server = {"server": str(cluster.api.client.base_url), "certificate-authority-data": authority}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "clusters": [{"name": "test", "cluster": server}],
        "users": [{"name": "test", "user": {"token": _TOKEN}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
    }
    cluster.kubeconfig.write_text(json.dumps(config))
    cluster.kubeconfig.chmod(0o600)  # otherwise helm warns


def _etcd(folder: Path, url: str) -> list[str]:
    peers = f"http://127.0.0.1:{free_port()}"
    return [
        f"--data-dir={folder / 'etcd'}",
        f"--listen-client-urls={url}",
        f"--advertise-client-urls={url}",
        f"--listen-peer-urls={peers}",
        f"--initial-advertise-peer-urls={peers}",
        f"--initial-cluster=default={peers}",
        "--unsafe-no-fsync",
    ]


def _apiserver(folder: Path, etcd_url: str, port: int) -> list[str]:
    return [
        f"--etcd-servers={etcd_url}",
        "--bind-address=127.0.0.1",
        "--advertise-address=192.0.2.1",  # it must not be loopback; nothing uses it
        "--endpoint-reconciler-type=none",
        f"--secure-port={port}",
        "--kubelet-preferred-address-types=InternalIP",
        f"--cert-dir={folder / 'pki'}",
        f"--token-auth-file={folder / 'tokens.csv'}",
        "--authorization-mode=RBAC",
        "--service-cluster-ip-range=10.96.0.0/16",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={folder / 'accounts.pem'}",
        f"--service-account-signing-key-file={folder / 'accounts.pem'}",
    ]


def _controllers(folder: Path) -> list[str]:
    """Have the autoscaler check often and not wait for pods to settle: they are ready at once.

    Simulated nodes report about once a minute, and must not be given up in between.
    """
    return [
        "--leader-elect=false",
        "--secure-port=0",
        f"--service-account-private-key-file={folder / 'accounts.pem'}",
        "--node-monitor-grace-period=24h",
        f"--horizontal-pod-autoscaler-sync-period={_SYNC_S}s",
        "--horizontal-pod-autoscaler-initial-readiness-delay=1s",
        "--horizontal-pod-autoscaler-cpu-initialization-period=1s",
    ]


def _stages(folder: Path) -> list[str]:
    """Return the life cycle of nodes and pods that kwok's authors recommend, and one exception."""
    paths = sorted(TOOLS.glob("stages/*.yaml"))
    [complete] = [path for path in paths if path.name == "pod-complete.yaml"]
    stage = yaml.safe_load(complete.read_text())
    of = r'"\(.metadata.namespace)/\(.metadata.labels["app.kubernetes.io/component"])"'
    exception = {"key": of, "operator": "NotIn", "values": [f"{RUN_BY_TESTS}/{RUN_BY_TESTS}"]}
    stage["spec"]["selector"]["matchExpressions"].append(exception)
    changed = folder / complete.name
    changed.write_text(yaml.safe_dump(stage))
    return [f"--config={changed if path == complete else path}" for path in paths]


def _create_resources(api: Api) -> None:
    """Create nodes in different zones, storage classes with volumes, and third-party kinds."""
    for number in range(NODES):
        labels = {
            "kubernetes.io/hostname": f"node-{number}",
            "topology.kubernetes.io/zone": f"zone-{number}",
        }
        node = {"apiVersion": "v1", "kind": "Node", "status": {"allocatable": _NODE}}
        api.create(node | {"metadata": {"name": f"node-{number}", "labels": labels}})
    for name in ("standard", "standard-rwo"):
        default = {"storageclass.kubernetes.io/is-default-class": str(name == "standard").lower()}
        storage_class = {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass"}
        metadata = {"name": name, "annotations": default}
        rules = {
            "provisioner": "kubernetes.io/no-provisioner",
            "volumeBindingMode": "WaitForFirstConsumer",
            "allowVolumeExpansion": True,
        }
        api.create(storage_class | {"metadata": metadata} | rules)
        for number in range(VOLUMES):
            spec = {
                "storageClassName": name,
                "capacity": {"storage": "100Gi"},
                "accessModes": ["ReadWriteOnce"],
                "hostPath": {"path": f"/volumes/{number}"},
            }
            volume = {"apiVersion": "v1", "kind": "PersistentVolume"}
            api.create(volume | {"metadata": {"name": f"{name}-{number}"}, "spec": spec})
    for path in sorted(TOOLS.glob("crds/*.yaml")):
        definition = yaml.safe_load(path.read_text())
        api.create(definition)
        spec = definition["spec"]
        version = f"{spec['group']}/{spec['versions'][0]['name']}"
        kind = spec["names"]["kind"]
        eventually(partial(api.serves, version, kind))
