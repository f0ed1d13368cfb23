"""Pod templates that a study may and may not have where podTemplates are restricted: one table for both who judge them."""

from typing import Any

from tuning_operator.decide.pod_templates import Restriction

Document = dict[str, Any]

RESTRICTION = Restriction(secrets=frozenset({"checkpoints-s3"}), pull_secrets=frozenset({"registry-credentials"}))
IMAGE = "registry.example/trial:1"


def pod(**spec: Any) -> Document:
    """A template of these fields of the pod."""
    return {"spec": spec}


def trial(**container: Any) -> Document:
    """A template of these fields of the container `trial`."""
    return pod(containers=[{"name": "trial", **container}])


def volume(**source: Any) -> Document:
    """A template with one volume."""
    return pod(volumes=[{"name": "data", **source}])


def env(**source: Any) -> Document:
    """A template with one variable."""
    return trial(env=[{"name": "A", **source}])


TOKEN = {"serviceAccountToken": {"path": "token", "expirationSeconds": 7200}}
ROOT = {"name": "root", "image": "busybox", "command": ["id"]}
GROUP_OF_CLAIM = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}

ALLOWED: dict[str, Document] = {
    "nothing": {},
    "labels and annotations of one's own": {
        "metadata": {"labels": {"team": "vision"}, "annotations": {"note": "a/b"}, "creationTimestamp": None}
    },
    "where it runs": pod(
        nodeSelector={"gpu": "a100", "kubernetes.io/arch": "amd64"},
        tolerations=[{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
        affinity={
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [{"matchExpressions": [{"key": "disk", "operator": "Exists"}]}]
                }
            }
        },
        topologySpreadConstraints=[
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": {"team": "vision"}},
            }
        ],
        priorityClassName="low",
        runtimeClassName="nvidia",
        schedulerName="volcano",
    ),
    "resources": trial(resources={"requests": {"cpu": "4", "memory": "16Gi"}, "limits": {"memory": "32Gi"}}),
    "environment": trial(
        env=[
            {"name": "A", "value": "1"},
            {"name": "EMPTY"},
            {"name": "B", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "b"}}},
            {"name": "C", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
            {"name": "D", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory"}}},
        ],
        envFrom=[{"configMapRef": {"name": "settings"}, "prefix": "S_"}],
    ),
    "a variable that the worker sets itself": trial(env=[{"name": "TZ", "value": "Europe/Berlin"}]),
    "a Secret that is allowed": trial(
        env=[{"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "checkpoints-s3", "key": "key"}}}],
        envFrom=[{"secretRef": {"name": "checkpoints-s3"}}],
    ),
    "a Secret that is allowed, as files": volume(secret={"secretName": "checkpoints-s3"}),
    "volumes": pod(
        containers=[
            {
                "name": "trial",
                "volumeMounts": [
                    {"name": "data", "mountPath": "/data", "readOnly": True, "subPath": "digits"},
                    {"name": "data", "mountPath": "/more", "readOnly": True},
                    {"name": "cache", "mountPath": "/cache"},
                ],
            }
        ],
        volumes=[
            {"name": "data", "persistentVolumeClaim": {"claimName": "data", "readOnly": True}},
            {"name": "cache", "emptyDir": {"sizeLimit": "10Gi"}},
            {"name": "settings", "configMap": {"name": "settings", "items": [{"key": "a", "path": "a"}]}},
            {"name": "names", "downwardAPI": {"items": [{"path": "n", "fieldRef": {"fieldPath": "metadata.name"}}]}},
            {"name": "scratch", "ephemeral": {"volumeClaimTemplate": {"spec": GROUP_OF_CLAIM}}},
        ],
    ),
    "the size of the worker's own volume": pod(volumes=[{"name": "tmp", "emptyDir": {"sizeLimit": "20Gi"}}]),
    "what the restricted standard asks for": pod(
        securityContext={
            "runAsNonRoot": True,
            "runAsUser": 1000,
            "seccompProfile": {"type": "RuntimeDefault"},
            "fsGroupChangePolicy": "OnRootMismatch",
            "supplementalGroups": [2000],
        },
        containers=[
            {
                "name": "trial",
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "privileged": False,
                    "readOnlyRootFilesystem": True,
                    "runAsNonRoot": True,
                    "runAsUser": 1000,
                    "capabilities": {"drop": ["ALL"]},
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
            }
        ],
    ),
    "a pull policy": trial(imagePullPolicy="Always"),
    "registry credentials of the platform": pod(imagePullSecrets=[{"name": "registry-credentials"}]),
    "fields that are null": pod(securityContext=None, tolerations=None, imagePullSecrets=None),
}
"""Both take these."""

REFUSED: dict[str, tuple[Document, str]] = {
    "a service account": (pod(serviceAccountName="ci-deployer"), "spec.serviceAccountName"),
    "a service account by its old name": (pod(serviceAccount="ci-deployer"), "spec.serviceAccount"),
    "a token of the account": (pod(automountServiceAccountToken=True), "spec.automountServiceAccountToken"),
    "a projected token": (volume(projected={"sources": [TOKEN]}), "spec.volumes[0].projected"),
    "a projected Secret": (
        volume(projected={"sources": [{"secret": {"name": "prod-credentials"}}]}),
        "spec.volumes[0].projected",
    ),
    "the node's processes": (pod(hostPID=True), "spec.hostPID"),
    "the node's network": (pod(hostNetwork=True), "spec.hostNetwork"),
    "the node's interprocess communication": (pod(hostIPC=True), "spec.hostIPC"),
    "the node's users": (pod(hostUsers=True), "spec.hostUsers"),
    "a port of the node": (trial(ports=[{"containerPort": 80, "hostPort": 80}]), "spec.containers[0].ports"),
    "the node's files": (volume(hostPath={"path": "/"}), "spec.volumes[0].hostPath"),
    "a Secret as a volume": (volume(secret={"secretName": "prod-credentials"}), "spec.volumes[0].secret.secretName"),
    "a Secret in a variable": (
        env(valueFrom={"secretKeyRef": {"name": "prod-credentials", "key": "key"}}),
        "spec.containers[0].env[0].valueFrom.secretKeyRef.name",
    ),
    "a Secret as environment": (
        trial(envFrom=[{"configMapRef": {"name": "settings"}}, {"secretRef": {"name": "prod-credentials"}}]),
        "spec.containers[0].envFrom[1].secretRef.name",
    ),
    "a file of the node in a variable": (
        env(valueFrom={"fileKeyRef": {"volumeName": "data", "path": "a", "key": "b"}}),
        "spec.containers[0].env[0].valueFrom",
    ),
    "registry credentials of others": (
        pod(imagePullSecrets=[{"name": "prod-registry"}]),
        "spec.imagePullSecrets[0].name",
    ),
    "registry credentials as environment": (
        trial(envFrom=[{"secretRef": {"name": "registry-credentials"}}]),
        "spec.containers[0].envFrom[0].secretRef.name",
    ),
    "an init container": (pod(initContainers=[ROOT]), "spec.initContainers"),
    "an ephemeral container": (pod(ephemeralContainers=[{**ROOT, "name": "debug"}]), "spec.ephemeralContainers"),
    "another container": (pod(containers=[ROOT]), "spec.containers[0].name"),
    "a container that is called like ours": (pod(containers=[{**ROOT, "name": "trial-2"}]), "spec.containers[0].name"),
    "a command": (trial(command=["sh"]), "spec.containers[0].command"),
    "arguments": (trial(args=["try"]), "spec.containers[0].args"),
    "a hook": (trial(lifecycle={"preStop": {"exec": {"command": ["id"]}}}), "spec.containers[0].lifecycle"),
    "a probe of another host": (
        trial(livenessProbe={"httpGet": {"host": "10.0.0.1", "port": 80, "path": "/"}}),
        "spec.containers[0].livenessProbe",
    ),
    "a startup probe": (trial(startupProbe={"exec": {"command": ["id"]}}), "spec.containers[0].startupProbe"),
    "a raw device": (
        pod(
            containers=[{"name": "trial", "volumeDevices": [{"name": "data", "devicePath": "/dev/x"}]}],
            volumes=[{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
        ),
        "spec.containers[0].volumeDevices",
    ),
    "mounts that reach the node": (
        {
            "spec": {
                "containers": [
                    {
                        "name": "trial",
                        "volumeMounts": [{"name": "data", "mountPath": "/d", "mountPropagation": "HostToContainer"}],
                    }
                ],
                "volumes": [{"name": "data", "emptyDir": {}}],
            }
        },
        "spec.containers[0].volumeMounts[0].mountPropagation",
    ),
    "a path that is computed": (
        {
            "spec": {
                "containers": [
                    {
                        "name": "trial",
                        "volumeMounts": [{"name": "data", "mountPath": "/d", "subPathExpr": "$(TUNING_STUDY)"}],
                    }
                ],
                "volumes": [{"name": "data", "emptyDir": {}}],
            }
        },
        "spec.containers[0].volumeMounts[0].subPathExpr",
    ),
    "claims of devices": (
        pod(
            resourceClaims=[{"name": "gpu", "resourceClaimName": "gpu"}],
            containers=[{"name": "trial", "resources": {"claims": [{"name": "gpu"}]}}],
        ),
        "spec.resourceClaims",
    ),
    "root": (pod(securityContext={"runAsUser": 0}), "spec.securityContext.runAsUser"),
    "root allowed": (pod(securityContext={"runAsNonRoot": False}), "spec.securityContext.runAsNonRoot"),
    "root's group": (pod(securityContext={"fsGroup": 0}), "spec.securityContext.fsGroup"),
    "root in the container": (
        trial(securityContext={"runAsUser": 0, "runAsNonRoot": False}),
        "spec.containers[0].securityContext.runAsUser",
    ),
    "privileges": (
        trial(securityContext={"privileged": True, "allowPrivilegeEscalation": True}),
        "spec.containers[0].securityContext.privileged",
    ),
    "more privileges later": (
        trial(securityContext={"allowPrivilegeEscalation": True}),
        "spec.containers[0].securityContext.allowPrivilegeEscalation",
    ),
    "capabilities": (
        trial(securityContext={"capabilities": {"add": ["NET_RAW"], "drop": ["ALL"]}}),
        "spec.containers[0].securityContext.capabilities.add",
    ),
    "the usual capabilities": (
        trial(securityContext={"capabilities": {"drop": ["KILL"]}}),
        "spec.containers[0].securityContext.capabilities.drop",
    ),
    "a root that can be written": (
        trial(securityContext={"readOnlyRootFilesystem": False}),
        "spec.containers[0].securityContext.readOnlyRootFilesystem",
    ),
    "all of /proc": (
        trial(securityContext={"procMount": "Unmasked"}),
        "spec.containers[0].securityContext.procMount",
    ),
    "no seccomp": (
        trial(securityContext={"seccompProfile": {"type": "Unconfined"}}),
        "spec.containers[0].securityContext.seccompProfile.type",
    ),
    "no seccomp for the pod": (
        pod(securityContext={"seccompProfile": {"type": "Unconfined"}}),
        "spec.securityContext.seccompProfile.type",
    ),
    "no AppArmor": (
        pod(securityContext={"appArmorProfile": {"type": "Unconfined"}}),
        "spec.securityContext.appArmorProfile",
    ),
    "another SELinux type": (
        trial(securityContext={"seLinuxOptions": {"type": "spc_t"}}),
        "spec.containers[0].securityContext.seLinuxOptions",
    ),
    "settings of the kernel": (
        pod(securityContext={"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}),
        "spec.securityContext.sysctls",
    ),
    "a process of the Windows host": (
        pod(securityContext={"windowsOptions": {"hostProcess": True}}),
        "spec.securityContext.windowsOptions",
    ),
    "no AppArmor by an annotation": (
        {"metadata": {"annotations": {"container.apparmor.security.beta.kubernetes.io/trial": "unconfined"}}},
        "metadata.annotations",
    ),
    "a token by a label": ({"metadata": {"labels": {"azure.workload.identity/use": "true"}}}, "metadata.labels"),
    "a Secret by an annotation": (
        {"metadata": {"annotations": {"vault.hashicorp.com/agent-inject": "true"}}},
        "metadata.annotations",
    ),
    "a label of the operator": ({"metadata": {"labels": {"tuningstudy.io/study": "other"}}}, "metadata.labels"),
    "a finalizer": ({"metadata": {"finalizers": ["example.com/never"]}}, "metadata.finalizers"),
    "one process space": (pod(shareProcessNamespace=True), "spec.shareProcessNamespace"),
    "names of other hosts": (pod(hostAliases=[{"ip": "10.0.0.1", "hostnames": ["api"]}]), "spec.hostAliases"),
    "another name server": (
        pod(dnsPolicy="None", dnsConfig={"nameservers": ["10.0.0.1"]}),
        "spec.dnsPolicy",
    ),
    "settings of the resolver": (pod(dnsConfig={"searches": ["evil.example"]}), "spec.dnsConfig"),
    "a host name": (pod(hostname="db", subdomain="postgres"), "spec.hostname"),
    "a host name with its domain": (pod(setHostnameAsFQDN=True), "spec.setHostnameAsFQDN"),
    "a node by its name": (pod(nodeName="control-plane"), "spec.nodeName"),
    "a deadline": (pod(activeDeadlineSeconds=1), "spec.activeDeadlineSeconds"),
    "another restart policy": (pod(restartPolicy="OnFailure"), "spec.restartPolicy"),
    "a policy of preemption": (pod(preemptionPolicy="Never"), "spec.preemptionPolicy"),
    "a number of priority": (pod(priority=2_000_000_000), "spec.priority"),
    "overhead": (pod(overhead={"cpu": "1"}), "spec.overhead"),
    "readiness gates": (pod(readinessGates=[{"conditionType": "example.com/x"}]), "spec.readinessGates"),
    "scheduling gates": (pod(schedulingGates=[{"name": "example.com/x"}]), "spec.schedulingGates"),
    "an operating system": (pod(os={"name": "linux"}), "spec.os"),
    "resources of the pod": (pod(resources={"limits": {"cpu": "1"}}), "spec.resources"),
    "CSI": (
        volume(csi={"driver": "secrets-store.csi.k8s.io", "readOnly": True}),
        "spec.volumes[0].csi",
    ),
    "NFS": (volume(nfs={"server": "10.0.0.1", "path": "/"}), "spec.volumes[0].nfs"),
    "iSCSI": (
        volume(iscsi={"targetPortal": "10.0.0.1", "iqn": "iqn.2001-04.com.example:a.b", "lun": 0}),
        "spec.volumes[0].iscsi",
    ),
    "flexVolume": (volume(flexVolume={"driver": "example/x"}), "spec.volumes[0].flexVolume"),
    "gitRepo": (volume(gitRepo={"repository": "https://example.com/x"}), "spec.volumes[0].gitRepo"),
    "glusterfs": (volume(glusterfs={"endpoints": "a", "path": "b"}), "spec.volumes[0].glusterfs"),
    "a disk of a cloud": (volume(awsElasticBlockStore={"volumeID": "vol-1"}), "spec.volumes[0].awsElasticBlockStore"),
    "a copy of another's volume": (
        volume(
            ephemeral={
                "volumeClaimTemplate": {
                    "spec": {**GROUP_OF_CLAIM, "dataSource": {"kind": "PersistentVolumeClaim", "name": "prod"}}
                }
            }
        ),
        "spec.volumes[0].ephemeral.volumeClaimTemplate.spec.dataSource",
    ),
}
"""Both refuse these; with the field that the message names, below spec.trial.podTemplate."""

MEANINGLESS: dict[str, tuple[Document, str]] = {
    "an image": (trial(image="mine"), "spec.containers[0].image"),
    "an image as a volume": (volume(image={"reference": "mine"}), "spec.volumes[0].image"),
}
"""The decision refuses these, and a Job with them does no harm: spec.trial.image may name any image anyway, and API servers
drop a field whose feature is off."""

MALFORMED: dict[str, tuple[Document, str]] = {
    "something beside the spec": ({"status": {}}, "status"),
    "a field of tomorrow": (pod(hostTomorrow=True), "spec.hostTomorrow"),
    "a field in other letters": (pod(hostpid=True), "spec.hostpid"),
    "metadata as a list": ({"metadata": ["a"]}, "metadata"),
    "labels as a list": ({"metadata": {"labels": ["a"]}}, "metadata.labels"),
    "security as text": (pod(securityContext="root"), "spec.securityContext"),
    "a yes that is a number": (pod(securityContext={"runAsNonRoot": 1}), "spec.securityContext.runAsNonRoot"),
    "a user as text": (pod(securityContext={"runAsUser": "0"}), "spec.securityContext.runAsUser"),
    "a user that is true": (pod(securityContext={"runAsUser": True}), "spec.securityContext.runAsUser"),
    "a Secret without a name": (volume(secret={"optional": True}), "spec.volumes[0].secret"),
    "a Secret's name as a list": (
        volume(secret={"secretName": ["checkpoints-s3"]}),
        "spec.volumes[0].secret.secretName",
    ),
    "volumes as a mapping": (pod(volumes={"name": "data"}), "spec.volumes"),
}
"""The API server would refuse these itself, or drop what it does not know; the decision does not wait for it."""

TWO_SOURCES: dict[str, tuple[Document, str]] = {
    "a value beside the database's Secret": (
        trial(env=[{"name": "TUNING_DATABASE_URL", "value": "postgresql://other"}]),
        "may not be specified when `value` is not empty",
    ),
    "a ConfigMap beside the database's Secret": (
        trial(
            env=[{"name": "TUNING_DATABASE_URL", "valueFrom": {"configMapKeyRef": {"name": "other", "key": "other"}}}]
        ),
        "may not have more than one field specified at a time",
    ),
    "a Secret beside a value": (
        trial(env=[{"name": "TUNING_STUDY", "valueFrom": {"secretKeyRef": {"name": "other", "key": "other"}}}]),
        "may not be specified when `value` is not empty",
    ),
    "another source of a volume": (
        pod(volumes=[{"name": "tmp", "hostPath": {"path": "/"}}]),
        "may not specify more than 1 volume type",
    ),
    "another source of the shared memory": (
        pod(volumes=[{"name": "shared-memory", "persistentVolumeClaim": {"claimName": "other"}}]),
        "may not specify more than 1 volume type",
    ),
}
"""Names of the worker's own with another source beside it; with what the API server says."""
