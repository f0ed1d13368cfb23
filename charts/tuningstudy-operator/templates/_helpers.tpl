{{- define "tuningstudy.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "tuningstudy.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains (include "tuningstudy.name" .) .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "tuningstudy.name" .) | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- /* Labels that select pods: they must never change. Called with (list . "component"). */ -}}
{{- define "tuningstudy.selectorLabels" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ include "tuningstudy.name" $root }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
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

{{- /* An image reference. Called with (list . image). */ -}}
{{- define "tuningstudy.image" -}}
{{- $image := index . 1 -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ default (index . 0).Chart.AppVersion $image.tag }}
{{- end -}}
{{- end -}}

{{- define "tuningstudy.secretName" -}}
{{- default (printf "%s-secrets" (include "tuningstudy.fullname" .)) .Values.secrets.existingSecret -}}
{{- end -}}

{{- define "tuningstudy.postgresHost" -}}
{{ include "tuningstudy.fullname" . }}-postgresql.{{ .Release.Namespace }}.svc
{{- end -}}

{{- define "tuningstudy.chartsUrl" -}}
{{- if .Values.charts.externalUrl -}}
{{ .Values.charts.externalUrl }}
{{- else if .Values.charts.ingress.enabled -}}
{{ ternary "https" "http" (not (empty .Values.charts.ingress.tlsSecretName)) }}://{{ .Values.charts.ingress.host }}
{{- else -}}
http://{{ include "tuningstudy.fullname" . }}-charts.{{ .Release.Namespace }}.svc{{ if ne (int .Values.charts.service.port) 80 }}:{{ .Values.charts.service.port }}{{ end }}
{{- end -}}
{{- end -}}

{{- /* Where the database is: what the operator and the charts server share. */ -}}
{{- define "tuningstudy.databasePlace" -}}
{{- if .Values.postgresql.enabled }}
- name: TUNING_DATABASE_HOST
  value: {{ include "tuningstudy.postgresHost" . }}
- name: TUNING_DATABASE_NAME
  value: tuningstudy
{{- else if eq .Values.database.format "uri" }}
- name: TUNING_DATABASE_URL
  valueFrom:
    secretKeyRef: {name: {{ .Values.database.existingSecret }}, key: uri}
{{- else }}
{{- range $variable, $key := dict "HOST" "host" "PORT" "port" "NAME" "dbname" }}
- name: TUNING_DATABASE_{{ $variable }}
  valueFrom:
    secretKeyRef: {name: {{ $.Values.database.existingSecret }}, key: {{ $key }}}
{{- end }}
{{- end }}
{{- end -}}

{{- /* The operator's own role. */ -}}
{{- define "tuningstudy.databaseRole" -}}
{{- if .Values.postgresql.enabled }}
- name: TUNING_DATABASE_USER
  value: tuningstudy
- name: TUNING_DATABASE_PASSWORD
  valueFrom:
    secretKeyRef: {name: {{ include "tuningstudy.secretName" . }}, key: postgres-password}
{{- else if eq .Values.database.format "parts" }}
- name: TUNING_DATABASE_USER
  valueFrom:
    secretKeyRef: {name: {{ .Values.database.existingSecret }}, key: username}
- name: TUNING_DATABASE_PASSWORD
  valueFrom:
    secretKeyRef: {name: {{ .Values.database.existingSecret }}, key: password}
{{- end }}
{{- end -}}

{{- define "tuningstudy.keys" -}}
- name: TUNING_CHARTS_DATABASE_PASSWORD
  valueFrom:
    secretKeyRef: {name: {{ include "tuningstudy.secretName" . }}, key: charts-database-password}
- name: TUNING_SIGNING_KEY
  valueFrom:
    secretKeyRef: {name: {{ include "tuningstudy.secretName" . }}, key: signing-key}
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

{{- /* What the operator may do in a namespace that it serves. */ -}}
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
  resources: [secrets]
  verbs: [create]                        # RBAC cannot restrict create by name
- apiGroups: [""]
  resources: [secrets]
  resourceNames: [tuningstudy-worker]
  verbs: [get, update]
{{- end -}}
