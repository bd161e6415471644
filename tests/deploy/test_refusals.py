"""What cannot work is refused before anything is installed; a sentence names the value."""

import pytest

from tests.deploy.chart import Refused, render

EXTERNAL = (
    "mysql.enabled=false",
    "externalDatabase.authUrl=mysql+aiomysql://a:p@db/auth",
    "externalDatabase.billingUrl=mysql+aiomysql://b:p@db/billing",
)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (["tls.enabled=true"], "tls.enabled: a certificate needs a name, so set domain too."),
        (["domain=https://example.com"], 'domain: "https://example.com" is no DNS name'),
        (
            ["domain=example.com", "tls.secretName=a", "tls.clusterIssuer=b"],
            "tls.secretName: tls.clusterIssuer is set too",
        ),
        (["expose=gateway"], "gateway.className: name a GatewayClass"),
        (
            ["expose=gateway", "gateway.className=c", "gateway.namespace=net"],
            "gateway.namespace: is that of an existing Gateway",
        ),
        (
            ["domain=example.com", "expose=gateway", "gateway.name=g", "tls.clusterIssuer=all"],
            "gateway.name: its certificates are its owner's",
        ),
        (
            ["auth.autoscaling.minReplicas=7"],
            "auth.autoscaling.minReplicas: 7 is more than maxReplicas, 6.",
        ),
        (
            ["inference.autoscaling.maxReplicas=1"],
            "inference.autoscaling.minReplicas: 2 is more than maxReplicas, 1.",
        ),
        (
            ["inference.journal.maxBytes=3221225473"],
            "inference.journal.maxBytes: with models.cacheMaxBytes it is more than the limit",
        ),
        (
            ["inference.journal.volume.enabled=true", "inference.journal.volume.size=1Gi"],
            "inference.journal.volume.size: 1Gi has no room for maxBytes, 1073741824.",
        ),
        (
            ["mysql.bufferPoolSize=1600M"],
            "mysql.bufferPoolSize: 1600M is more than three quarters of the memory limit",
        ),
        (
            ["externalDatabase.existingSecret=urls"],
            "externalDatabase: it is set although mysql.enabled is true",
        ),
        (EXTERNAL[1:], "externalDatabase: it is set although mysql.enabled is true"),
        (["mysql.enabled=false"], "externalDatabase.authUrl: needed when mysql.enabled is false"),
        (EXTERNAL[:2], "externalDatabase.billingUrl: needed when mysql.enabled is false"),
        (
            [*EXTERNAL, "externalDatabase.authUrl=postgresql://db/auth"],
            "externalDatabase.authUrl: must be mysql+aiomysql://",
        ),
        (
            [*EXTERNAL, "externalDatabase.billingUrl=mysql+aiomysql://a:p@db/auth"],
            "externalDatabase.billingUrl: is authUrl too",
        ),
        ([*EXTERNAL, "externalDatabase.existingSecret=urls"], "externalDatabase.existingSecret:"),
        (["nameOverride=My_App"], 'nameOverride: "My_App" is no name of a Service'),
        (["fullnameOverride=1st"], 'fullnameOverride: "1st" is no name of a Service'),
        (["modelStore.url=s3://models"], 'modelStore.url: "s3://models" is no bucket'),
        (["modelStore.url=gs://Models"], 'modelStore.url: "gs://Models" is no bucket'),
        (
            ["modelStore.url=gs://models", "modelStore.volume.enabled=true"],
            "modelStore.volume.enabled: modelStore.url is set too",
        ),
        (
            ["sampleModel.enabled=true", "modelStore.trustedKeysSecret=keys"],
            "sampleModel.signingKeySecret: needed when modelStore.trustedKeysSecret is set.",
        ),
        (
            ["sampleModel.enabled=true", "sampleModel.signingKeySecret=key"],
            "modelStore.trustedKeysSecret: needed when sampleModel.signingKeySecret is set.",
        ),
        (
            ["sampleModel.enabled=true", "inference.affinity.nodeAffinity.x=y"],
            "inference.affinity: a modelStore.volume that is ReadWriteOnce decides",
        ),
    ],
)
def test_a_combination_that_cannot_work_is_one_sentence(settings: list[str], sentence: str) -> None:
    with pytest.raises(Refused) as refused:
        render(*settings)

    assert sentence in str(refused.value)
    assert str(refused.value).count("\n") <= 3  # helm adds a hint of its own


@pytest.mark.parametrize(
    "settings",
    [
        ["inference.journal.maxBytes=3221225472"],
        ["inference.journal.maxBytes=8589934592", "inference.resources=null"],
        ["inference.journal.maxBytes=2000000000", "inference.journal.volume.enabled=true"],
        ["mysql.bufferPoolSize=5G", "mysql.resources.limits.memory=8e9"],
    ],
)
def test_sizes_that_fit_are_taken(settings: list[str]) -> None:
    assert render(*settings).objects


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("replicaCount=3", "replicaCount"),
        ("auth.replica=3", "replica"),
        ("inference.journal.volume.siez=1Gi", "siez"),
        ("expose=nodeport", "expose"),
        ("auth.registration=verify", "registration"),
        ("billing.autoscaling.minReplicas=0", "minReplicas"),
        ("auth.settings.lower_case=x", "lower_case"),
        ("mysql.backup.schedule=every night", "schedule"),
        ("mysql.backup.schedule=17 2 * *", "schedule"),
        ("tracing.endpoint=collector:4318", "endpoint"),
    ],
)
def test_an_unknown_key_or_an_ill_typed_value_is_refused(setting: str, named: str) -> None:
    with pytest.raises(Refused, match=named):
        render(setting)
