{{- /* Names and labels. NB: 41 characters at most: the name of a StatefulSet's revision, "NAME-postgresql-0123456789",
       becomes a label of its pod, and a label holds 63 (kubernetes/kubernetes#64023). */ -}}
{{- define "tuningstudy.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 41 | trimSuffix "-" -}}
{{- end -}}

{{- define "tuningstudy.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 41 | trimSuffix "-" -}}
{{- else if contains (include "tuningstudy.name" .) .Release.Name -}}
{{- .Release.Name | trunc 41 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "tuningstudy.name" .) | trunc 41 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- /* Labels that select pods: they must never change. Called with (list . "component"). */ -}}
{{- define "tuningstudy.selectorLabels" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ include "tuningstudy.name" $root | quote }}
app.kubernetes.io/instance: {{ $root.Release.Name | quote }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- define "tuningstudy.labels" -}}
{{- $root := index . 0 -}}
{{ include "tuningstudy.selectorLabels" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
app.kubernetes.io/part-of: tuningstudy
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{- /* Name, namespace and labels of an object of the release. Called with (list . "component" "-suffix"). */ -}}
{{- define "tuningstudy.metadata" -}}
{{- $root := index . 0 -}}
name: {{ printf "%s%s" (include "tuningstudy.fullname" $root) (index . 2) | quote }}
namespace: {{ $root.Release.Namespace | quote }}
labels: {{- include "tuningstudy.labels" . | nindent 2 }}
{{- end -}}

{{- /* Pods. */ -}}

{{- /* The name of an image. Called with (list . image). */ -}}
{{- define "tuningstudy.imageName" -}}
{{- $image := index . 1 -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ default (index . 0).Chart.AppVersion $image.tag }}
{{- end -}}
{{- end -}}

{{- /* A container's image and when it is pulled. Called with (list . image). */ -}}
{{- define "tuningstudy.image" -}}
image: {{ include "tuningstudy.imageName" . | quote }}
{{- with (index . 1).pullPolicy }}
imagePullPolicy: {{ . }}
{{- end }}
{{- end -}}

{{- define "tuningstudy.imagePullSecrets" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . | quote }}
  {{- end }}
{{- end }}
{{- end -}}

{{- /* Where pods may run. Called with the component's values. */ -}}
{{- define "tuningstudy.scheduling" -}}
{{- with .nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- end -}}

{{- /* The restricted Pod Security standard. Called with the user id. */ -}}
{{- define "tuningstudy.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ . }}
runAsGroup: {{ . }}
fsGroup: {{ . }}
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "tuningstudy.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{- /* Environment. */ -}}

{{- define "tuningstudy.secretName" -}}
{{- default (printf "%s-secrets" (include "tuningstudy.fullname" .)) .Values.secrets.existingSecret -}}
{{- end -}}

{{- /* A variable from a Secret. Called with (list "NAME" "secret" "key"). */ -}}
{{- define "tuningstudy.fromSecret" -}}
- name: {{ index . 0 }}
  valueFrom:
    secretKeyRef: {name: {{ index . 1 | quote }}, key: {{ index . 2 }}}
{{- end -}}

{{- /* Where the database is, for the operator or the charts server. NB: a URI has the operator's password, which the charts server
       never gets. Called with (list . "component"). */ -}}
{{- define "tuningstudy.databasePlace" -}}
{{- $root := index . 0 -}}
{{- with $root.Values -}}
{{- $secret := .database.existingSecret -}}
{{- if .postgresql.enabled -}}
- name: TUNING_DATABASE_HOST
  value: {{ include "tuningstudy.postgresHost" $root }}
- name: TUNING_DATABASE_NAME
  value: tuningstudy
{{- else if eq .database.format "parts" -}}
{{ include "tuningstudy.fromSecret" (list "TUNING_DATABASE_HOST" $secret "host") }}
{{ include "tuningstudy.fromSecret" (list "TUNING_DATABASE_PORT" $secret "port") }}
{{ include "tuningstudy.fromSecret" (list "TUNING_DATABASE_NAME" $secret "dbname") }}
{{- else if eq (index $ 1) "operator" -}}
{{ include "tuningstudy.fromSecret" (list "TUNING_DATABASE_URL" $secret "uri") }}
{{- else -}}
- name: TUNING_DATABASE_HOST
  value: {{ .database.host | quote }}
- name: TUNING_DATABASE_PORT
  value: {{ .database.port | quote }}
- name: TUNING_DATABASE_NAME
  value: {{ .database.name | quote }}
{{- end }}
- name: TUNING_DATABASE_SSL_MODE
  value: {{ include "tuningstudy.sslMode" $root }}
{{- if include "tuningstudy.hasAuthority" $root }}
- name: TUNING_DATABASE_CA_FILE
  value: /etc/tuningstudy/database/ca.crt
{{- end }}
{{- end -}}
{{- end -}}

{{- define "tuningstudy.postgresHost" -}}
{{ include "tuningstudy.fullname" . }}-postgresql.{{ .Release.Namespace }}.svc
{{- end -}}

{{- /* Who may connect to the bundled Postgres: from outside of its pod to one database, encrypted and with a password. From inside of it
       probes, the image's first start and `kubectl exec` connect. */ -}}
{{- define "tuningstudy.postgresRules" -}}
local  all  tuningstudy  trust
{{ ternary "host   " "hostssl" (eq (include "tuningstudy.sslMode" .) "disable") }}  tuningstudy  all  all  scram-sha-256
{{- end -}}

{{- /* libpq's sslmode: whoever knows the authority verifies it, and whoever does not encrypts at least. */ -}}
{{- define "tuningstudy.sslMode" -}}
{{- $knows := or .Values.postgresql.enabled .Values.database.caSecret.name -}}
{{ .Values.database.sslMode | default (ternary "verify-full" "require" (not (empty $knows))) }}
{{- end -}}

{{- /* Not empty where the certificate of the database's authority is known. */ -}}
{{- define "tuningstudy.hasAuthority" -}}
{{- if and (or .Values.postgresql.enabled .Values.database.caSecret.name) (ne (include "tuningstudy.sslMode" .) "disable") -}}
true
{{- end -}}
{{- end -}}

{{- define "tuningstudy.authorityMount" -}}
{{- if include "tuningstudy.hasAuthority" . }}
- {name: database-authority, mountPath: /etc/tuningstudy/database, readOnly: true}
{{- end }}
{{- end -}}

{{- /* NB: that one key alone: the same Secret may have private keys. */ -}}
{{- define "tuningstudy.authorityVolume" -}}
{{- if include "tuningstudy.hasAuthority" . }}
{{- $bundled := .Values.postgresql.enabled }}
- name: database-authority
  secret:
    secretName: {{ ternary (include "tuningstudy.secretName" .) .Values.database.caSecret.name $bundled | quote }}
    defaultMode: 0440
    items: [{key: {{ ternary "ca.crt" .Values.database.caSecret.key $bundled }}, path: ca.crt}]
{{- end }}
{{- end -}}

{{- /* The operator's own role; with format "uri" it stands in the URL. */ -}}
{{- define "tuningstudy.databaseRole" -}}
{{- $secret := .Values.database.existingSecret -}}
{{- if .Values.postgresql.enabled }}
- name: TUNING_DATABASE_USER
  value: tuningstudy
{{ include "tuningstudy.fromSecret" (list "TUNING_DATABASE_PASSWORD" (include "tuningstudy.secretName" .) "postgres-password") }}
{{- else if eq .Values.database.format "parts" }}
{{ include "tuningstudy.fromSecret" (list "TUNING_DATABASE_USER" $secret "username") }}
{{ include "tuningstudy.fromSecret" (list "TUNING_DATABASE_PASSWORD" $secret "password") }}
{{- end }}
{{- end -}}

{{- /* What the operator and the charts server share: links are signed by one and verified by the other. */ -}}
{{- define "tuningstudy.keys" -}}
{{- $secret := include "tuningstudy.secretName" . -}}
{{ include "tuningstudy.fromSecret" (list "TUNING_CHARTS_DATABASE_PASSWORD" $secret "charts-database-password") }}
{{ include "tuningstudy.fromSecret" (list "TUNING_SIGNING_KEY" $secret "signing-key") }}
{{- end -}}

{{- /* The keys of the Secret with the generated secrets, as far as these values need them. */ -}}
{{- define "tuningstudy.neededKeys" -}}
signing-key password-key charts-database-password
{{- if .Values.postgresql.enabled }} postgres-password
{{- if ne (include "tuningstudy.sslMode" .) "disable" }} tls.crt tls.key ca.crt{{ end }}
{{- end }}
{{- end -}}

{{- define "tuningstudy.chartsUrl" -}}
{{- if .Values.charts.externalUrl -}}
{{ .Values.charts.externalUrl | trimSuffix "/" }}
{{- else if .Values.charts.ingress.enabled -}}
{{ ternary "https" "http" (not (empty .Values.charts.ingress.tlsSecretName)) }}://{{ .Values.charts.ingress.host }}
{{- else -}}
http://{{ include "tuningstudy.fullname" . }}-charts.{{ .Release.Namespace }}.svc{{ if ne (int .Values.charts.service.port) 80 }}:{{ .Values.charts.service.port }}{{ end }}
{{- end -}}
{{- end -}}

{{- /* What the operator may do in a namespace that it serves: the calls of operator/tuning_operator/cluster.py and Kopf's. */ -}}
{{- define "tuningstudy.rules" -}}
- apiGroups: [tuningstudy.io]
  resources: [tuningstudies]
  verbs: [get, list, watch, patch]       # patch: the finalizer
- apiGroups: [tuningstudy.io]
  resources: [tuningstudies/status]
  verbs: [update]
- apiGroups: [tuningstudy.io]
  resources: [tuningstudies/finalizers]  # owner references that block deletion
  verbs: [update]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [list, watch, create, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [list]
- apiGroups: [""]
  resources: [events]
  verbs: [list, create]
- apiGroups: [""]
  resources: [namespaces]
  verbs: [get]                           # the uid alone: a namespace that is made again has other passwords
- apiGroups: [""]
  resources: [secrets]
  verbs: [create]                        # RBAC cannot restrict create by name
- apiGroups: [""]
  resources: [secrets]
  resourceNames: [tuningstudy-worker]
  verbs: [get, update]
{{- end -}}

{{- /* Rules of NetworkPolicies: where pods may connect to. NB: DNS is anywhere: a cluster's own, or a cache on each node; on OpenShift its
       pods listen on 5353. */ -}}
{{- define "tuningstudy.toDns" -}}
- ports:
    {{- range $port := list 53 5353 }}
    - {port: {{ $port }}, protocol: UDP}
    - {port: {{ $port }}, protocol: TCP}
    {{- end }}
{{- end -}}

{{- define "tuningstudy.toDatabase" -}}
{{- if .Values.postgresql.enabled -}}
- ports: [{port: 5432}]
  to:
    - namespaceSelector:
        matchLabels: {kubernetes.io/metadata.name: {{ .Release.Namespace | quote }}}
      podSelector:
        matchLabels: {{- include "tuningstudy.selectorLabels" (list . "postgresql") | nindent 10 }}
{{- else -}}
{{ include "tuningstudy.toAddresses" .Values.networkPolicy.egress.database }}
{{- end -}}
{{- end -}}

{{- /* Called with (dict "cidrs" (list ...) "ports" (list ...)). */ -}}
{{- define "tuningstudy.toAddresses" -}}
- ports: [{{ range $i, $port := .ports }}{{ if $i }}, {{ end }}{port: {{ $port }}}{{ end }}]
  to:
    {{- range .cidrs }}
    - ipBlock: {cidr: {{ . | quote }}}
    {{- end }}
{{- end -}}

{{- /* Admission policies about what the operator's account writes. */ -}}

{{- /* "yes" where they are wanted and the API server knows them. */ -}}
{{- define "tuningstudy.servesPolicies" -}}
{{- $served := .Capabilities.APIVersions.Has "admissionregistration.k8s.io/v1" -}}
{{- if and .Values.admissionPolicies.operator $served }}yes{{ end -}}
{{- end -}}

{{- /* Name and labels of a policy. They belong to no namespace, so the name holds the release's. Called with (list . "name"). */ -}}
{{- define "tuningstudy.policyMetadata" -}}
{{- $root := index . 0 -}}
name: {{ printf "%s.%s.%s" $root.Release.Namespace (include "tuningstudy.fullname" $root) (index . 1) | quote }}
labels: {{- include "tuningstudy.labels" (list $root "operator") | nindent 2 }}
{{- end -}}

{{- define "tuningstudy.isTheOperator" -}}
{{- $account := printf "system:serviceaccount:%s:%s" .Release.Namespace (include "tuningstudy.fullname" .) -}}
- {name: is-the-operator, expression: {{ printf "request.userInfo.username == '%s'" $account | quote }}}
{{- end -}}

{{- /* Called with (list . "name"). */ -}}
{{- define "tuningstudy.policyBinding" -}}
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {{- include "tuningstudy.policyMetadata" . | nindent 2 }}
spec:
  policyName: {{ printf "%s.%s.%s" (index . 0).Release.Namespace (include "tuningstudy.fullname" (index . 0)) (index . 1) | quote }}
  validationActions: [Deny]
{{- end -}}
