"""How people install the chart: each a set of values that must give sound objects."""

from typing import Any

import pytest

DIGEST = "sha256:" + "4f" * 32
OWN_DATABASE = {"postgresql": {"enabled": False}, "database": {"existingSecret": "mycluster-app"}}
APART = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "noisy"}}}
SOMEWHERE: dict[str, Any] = {
    "podAnnotations": {"team": "vision"},
    "nodeSelector": {"disk": "ssd"},
    "tolerations": [{"key": "gpu", "operator": "Exists"}],
    "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [APART]}},
    "priorityClassName": "system-cluster-critical",
}

SCENARIOS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "some namespaces": {"watchNamespaces": ["research", "team-vision"]},
    "a namespace admin": {
        "watchNamespaces": ["research"],
        "crds": {"enabled": False},
        "userRoles": {"enabled": False},
        "admissionPolicies": {"operator": False},
    },
    "restricted pod templates": {
        "podTemplates": "restricted",
        "podTemplateSecrets": ["checkpoints-s3"],
        "imagePullSecrets": ["registry-credentials"],
    },
    "no admission policies": {"podTemplates": "restricted", "admissionPolicies": {"operator": False}},
    "own database in parts": OWN_DATABASE,
    "own database by URI": {
        **OWN_DATABASE,
        "database": {
            "existingSecret": "mycluster-app",
            "format": "uri",
            "host": "mycluster-rw",
            "name": "app",
            "workerHost": "mycluster-rw.databases.svc",
            "workerPort": 6432,
        },
    },
    "own database with a certificate": {
        **OWN_DATABASE,
        "database": {
            "existingSecret": "mycluster-app",
            "caSecret": {"name": "mycluster-ca"},
            "namespaceConnections": 40,
        },
    },
    "own database without encryption": {
        **OWN_DATABASE,
        "database": {"existingSecret": "mycluster-app", "sslMode": "disable"},
    },
    "no encryption": {"database": {"sslMode": "disable"}},
    "ingress with TLS": {
        "charts": {
            "ingress": {
                "enabled": True,
                "host": "tuning.example.com",
                "tlsSecretName": "tuning-tls",
                "className": "nginx",
                "annotations": {"cert-manager.io/cluster-issuer": "letsencrypt"},
            }
        }
    },
    "ingress without TLS": {"charts": {"ingress": {"enabled": True, "host": "tuning.example.com"}}},
    "a URL of one's own": {
        "charts": {"externalUrl": "https://tuning.example.com/", "service": {"type": "LoadBalancer", "port": 8080}}
    },
    "another port": {"charts": {"service": {"port": 8080}}},
    "a port of the nodes": {"charts": {"service": {"type": "NodePort", "nodePort": 30080}}},
    "more environment": {
        "operator": {
            "extraEnv": [
                {"name": "HTTPS_PROXY", "value": "http://proxy.example:3128"},
                {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            ]
        },
        "charts": {"extraEnv": [{"name": "TZ", "value": "Europe/Paris"}]},
    },
    "pinned images": {
        "image": {"digest": DIGEST, "pullPolicy": ""},
        "trial": {"image": {"digest": DIGEST, "pullPolicy": ""}},
        "postgresql": {"image": {"digest": DIGEST, "pullPolicy": "Always"}},
        "imagePullSecrets": ["registry-credentials", "more-credentials"],
    },
    "monitoring": {
        "monitoring": {
            "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}, "interval": "1m"},
            "prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}},
        }
    },
    "alerts alone": {"monitoring": {"prometheusRule": {"enabled": True}}},
    "no network policies": {"networkPolicy": {"enabled": False}},
    "bounded connections": {
        "watchNamespaces": ["research", "team-vision"],
        "networkPolicy": {
            "metricsFrom": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}],
            "egress": {
                "enabled": True,
                "apiServer": {"cidrs": ["10.0.0.1/32"], "ports": [6443]},
                "workers": {"enabled": True, "to": [{"cidr": "10.0.4.0/24", "ports": [443, 9000]}]},
            },
        },
    },
    "bounded connections to a database of one's own": {
        **OWN_DATABASE,
        "networkPolicy": {"egress": {"enabled": True, "database": {"cidrs": ["10.0.3.0/24"], "ports": [5433]}}},
    },
    "own secrets": {"secrets": {"existingSecret": "my-secrets"}},
    "no CRD": {"crds": {"enabled": False}},
    "a CRD that goes with the release": {"crds": {"keep": False}},
    "a very long name": {"fullnameOverride": "n" * 63, "nameOverride": "m" * 63},
    "names that look like numbers": {
        "fullnameOverride": "t",
        "nameOverride": "123",
        "watchNamespaces": ["2026"],
        "imagePullSecrets": ["1e3"],
        "secrets": {"existingSecret": "0x10"},
        "database": {"existingSecret": "42"},
        "postgresql": {"enabled": False},
    },
    "placed on nodes": {"operator": SOMEWHERE, "charts": {**SOMEWHERE, "replicas": 3}, "postgresql": SOMEWHERE},
    "no charts server": {"charts": {"replicas": 0}},
}

each_scenario = pytest.mark.parametrize("values", SCENARIOS.values(), ids=SCENARIOS.keys())
"""Runs a test once for each way to install the chart."""
