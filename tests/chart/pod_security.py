"""The Pod Security standard `restricted`, as a list of faults, and what we ask of a pod beyond it.

https://kubernetes.io/docs/concepts/security/pod-security-standards
"""

from collections.abc import Iterator
from typing import Any

Document = dict[str, Any]

ALLOWED_VOLUMES = frozenset(
    {
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "image",
        "persistentVolumeClaim",
        "projected",
        "secret",
    }
)
SECCOMP = {"RuntimeDefault", "Localhost"}
CONTAINERS = ("initContainers", "containers", "ephemeralContainers")
PROBES = ("startupProbe", "livenessProbe", "readinessProbe")


def faults(pod: Document) -> list[str]:
    """Why the API server would not admit a pod to a namespace with `pod-security.kubernetes.io/enforce: restricted`."""
    spec = pod["spec"]
    return [
        *(f"spec.{name}" for name in ("hostNetwork", "hostPID", "hostIPC") if spec.get(name)),
        *(f"volume {volume['name']}" for volume in spec.get("volumes", []) if not _is_allowed(volume)),
        *(f"sysctl {item['name']}" for item in spec.get("securityContext", {}).get("sysctls", [])),
        *(fault for container in containers(pod) for fault in _container_faults(container, _pod_security(pod))),
    ]


def loose_ends(pod: Document) -> Iterator[str]:
    """What is no fault by the standard, and still not good enough for us."""
    spec = pod["spec"]
    if "automountServiceAccountToken" not in spec:
        yield "says nothing about a service account's token"
    if spec.get("enableServiceLinks", True):
        yield "other Services' names become environment variables"
    for container in containers(pod):
        name = container["name"]
        if not container.get("securityContext", {}).get("readOnlyRootFilesystem"):
            yield f"{name} can write to its root"
        resources = container.get("resources", {})
        if not {"cpu", "memory"} <= set(resources.get("requests", {})):
            yield f"{name} does not say what it needs"
        if "memory" not in resources.get("limits", {}):
            yield f"{name} may take all memory of its node"


def containers(pod: Document) -> list[Document]:
    """All containers of a pod."""
    return [container for kind in CONTAINERS for container in pod["spec"].get(kind, [])]


def _pod_security(pod: Document) -> Document:
    security: Document = pod["spec"].get("securityContext", {})
    return security


def _is_allowed(volume: Document) -> bool:
    return set(volume) - {"name"} <= ALLOWED_VOLUMES


def _container_faults(container: Document, pod_wide: Document) -> Iterator[str]:
    own = container.get("securityContext", {})
    effective = pod_wide | own
    name, capabilities = container["name"], own.get("capabilities", {})
    if own.get("privileged"):
        yield f"{name}: privileged"
    if own.get("allowPrivilegeEscalation", True):
        yield f"{name}: allowPrivilegeEscalation"
    if "ALL" not in capabilities.get("drop", []) or set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"}:
        yield f"{name}: capabilities"
    if not effective.get("runAsNonRoot") or effective.get("runAsUser") == 0:
        yield f"{name}: runs as root"
    if effective.get("seccompProfile", {}).get("type") not in SECCOMP:
        yield f"{name}: seccompProfile"
    if own.get("procMount", "Default") != "Default" or effective.get("seLinuxOptions"):
        yield f"{name}: procMount or seLinuxOptions"
    if any("hostPort" in port for port in container.get("ports", [])):
        yield f"{name}: hostPort"
    if any("host" in container.get(probe, {}).get("httpGet", {}) for probe in PROBES):
        yield f"{name}: a probe of another host"
