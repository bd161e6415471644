"""The chart refuses values that cannot work, with a message that names the value."""

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
        (["tls.enabled=true"], "tls.enabled: a certificate needs a name; set domain too."),
        (["domain=https://example.com"], 'domain: "https://example.com" is not a DNS name'),
        (
            ["domain=example.com", "tls.secretName=a", "tls.clusterIssuer=b"],
            "tls.secretName: tls.clusterIssuer is set too",
        ),
        (["expose=gateway"], "gateway.className: set it to create a Gateway"),
        (
            ["expose=gateway", "gateway.className=c", "gateway.namespace=net"],
            "gateway.namespace: it applies only to an existing Gateway",
        ),
        (
            ["domain=example.com", "expose=gateway", "gateway.name=g", "tls.clusterIssuer=all"],
            "gateway.name: the Gateway's owner manages its certificates",
        ),
        (
            ["auth.autoscaling.minReplicas=7"],
            "auth.autoscaling.minReplicas: 7 exceeds maxReplicas (6).",
        ),
        (
            ["inference.autoscaling.maxReplicas=1"],
            "inference.autoscaling.minReplicas: 2 exceeds maxReplicas (1).",
        ),
        (
            ["inference.journal.maxBytes=3221225473"],
            "inference.journal.maxBytes: together with models.cacheMaxBytes it exceeds the limit",
        ),
        (
            ["inference.journal.volume.enabled=true", "inference.journal.volume.size=1Gi"],
            "inference.journal.volume.size: 1Gi must exceed maxBytes (1073741824).",
        ),
        (
            ["mysql.bufferPoolSize=1600M"],
            "mysql.bufferPoolSize: 1600M exceeds three quarters of the memory limit",
        ),
        (
            ["externalDatabase.existingSecret=urls"],
            "externalDatabase: mysql.enabled is true too",
        ),
        (EXTERNAL[1:], "externalDatabase: mysql.enabled is true too"),
        (["mysql.enabled=false"], "externalDatabase.authUrl: mysql.enabled is false; set this"),
        (EXTERNAL[:2], "externalDatabase.billingUrl: mysql.enabled is false; set this"),
        (
            [*EXTERNAL, "externalDatabase.authUrl=postgresql://db/auth"],
            "externalDatabase.authUrl: must be mysql+aiomysql://",
        ),
        (
            [*EXTERNAL, "externalDatabase.billingUrl=mysql+aiomysql://a:p@db/auth"],
            "externalDatabase.billingUrl: it equals authUrl",
        ),
        ([*EXTERNAL, "externalDatabase.existingSecret=urls"], "externalDatabase.existingSecret:"),
        (["nameOverride=My_App"], 'nameOverride: "My_App" is not a valid Service name'),
        (["fullnameOverride=1st"], 'fullnameOverride: "1st" is not a valid Service name'),
        (["modelStore.url=s3://models"], 'modelStore.url: "s3://models" must be gs://bucket'),
        (["modelStore.url=gs://Models"], 'modelStore.url: "gs://Models" must be gs://bucket'),
        (
            ["modelStore.url=gs://models", "modelStore.volume.enabled=true"],
            "modelStore.volume.enabled: modelStore.url is set too",
        ),
        (
            ["sampleModel.enabled=true", "modelStore.trustedKeysSecret=keys"],
            "sampleModel.signingKeySecret: modelStore.trustedKeysSecret is set; set this too.",
        ),
        (
            ["sampleModel.enabled=true", "sampleModel.signingKeySecret=key"],
            "modelStore.trustedKeysSecret: sampleModel.signingKeySecret is set; set this too.",
        ),
        (
            ["sampleModel.enabled=true", "inference.affinity.nodeAffinity.x=y"],
            "inference.affinity: a ReadWriteOnce modelStore.volume already decides",
        ),
    ],
)
def test_a_combination_that_cannot_work_is_refused(settings: list[str], sentence: str) -> None:
    with pytest.raises(Refused) as refused:
        render(*settings)

    assert sentence in str(refused.value)
    assert str(refused.value).count("\n") <= 3  # helm adds its own hint


@pytest.mark.parametrize(
    "settings",
    [
        ["inference.journal.maxBytes=3221225472"],
        ["inference.journal.maxBytes=8589934592", "inference.resources=null"],
        ["inference.journal.maxBytes=2000000000", "inference.journal.volume.enabled=true"],
        ["mysql.bufferPoolSize=5G", "mysql.resources.limits.memory=8e9"],
    ],
)
def test_sizes_that_fit_are_accepted(settings: list[str]) -> None:
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
def test_an_unknown_key_or_a_value_of_the_wrong_type_is_refused(setting: str, named: str) -> None:
    with pytest.raises(Refused, match=named):
        render(setting)
