{{- /* Names, labels and images. `root` is the top-level context. */}}

{{- /* The components that are services. */}}
{{- define "tollgate.services" -}}
auth inference billing console
{{- end }}

{{- define "tollgate.name" -}}
{{ .Values.nameOverride | default .Chart.Name | trunc 38 | trimSuffix "-" }}
{{- end }}

{{- /* 38, because the name of a CronJob has at most 52 characters. */}}
{{- define "tollgate.fullname" -}}
{{- $name := include "tollgate.name" . }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 38 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 38 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 38 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- /* Selector labels of all pods of the release. They never change, nor do those of one component. */}}
{{- define "tollgate.releaseSelector" -}}
app.kubernetes.io/name: {{ include "tollgate.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{- /* Selector labels of one component: (dict "root" $ "component" "auth"). */}}
{{- define "tollgate.selector" -}}
{{ include "tollgate.releaseSelector" .root }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "tollgate.labels" -}}
{{ include "tollgate.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: tollgate
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end }}

{{- /* The image of a component: (dict "root" $ "component" "auth"). */}}
{{- define "tollgate.image" -}}
{{- $image := .root.Values.image }}
{{- with $image.registry }}{{ trimSuffix "/" . }}/{{ end }}tollgate-{{ .component }}:{{ $image.tag | default .root.Chart.AppVersion }}
{{- end }}

{{- /* Name of a ServiceAccount: (dict "root" $ "component" "auth" "values" .Values.auth.serviceAccount). */}}
{{- define "tollgate.serviceAccountName" -}}
{{- $own := printf "%s-%s" (include "tollgate.fullname" .root) .component }}
{{- .values.name | default (ternary $own "default" .values.create) }}
{{- end }}

{{- define "tollgate.serviceAccount" -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ include "tollgate.serviceAccountName" . }}
  labels: {{- include "tollgate.labels" . | nindent 4 }}
  {{- with .values.annotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
automountServiceAccountToken: false
{{- end }}

{{- /* Annotations of objects that must exist before the release changes anything. */}}
{{- define "tollgate.hook" -}}
helm.sh/hook: pre-install,pre-upgrade
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end }}
