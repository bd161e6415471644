{{- /* Names, labels and the pieces that several objects share. `root` is the top-level context. */}}

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

{{- /* Selector labels of one component: (dict "root" $ "component" "auth"). They never change. */}}
{{- define "tollgate.selector" -}}
app.kubernetes.io/name: {{ include "tollgate.name" .root | quote }}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
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

{{- /* The part that all pod specs share: (dict "root" $ "user" 10001). */}}
{{- define "tollgate.podSecurity" -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: {{ .user }}
  runAsGroup: {{ .user }}
  fsGroup: {{ .user }}
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

{{- define "tollgate.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}

{{- /* Scheduling of a pod; a Job takes that of the service it works for. Takes that service's values. */}}
{{- define "tollgate.nodes" -}}
{{- with .nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- /* Threads of numeric libraries, predictions and password hashing: one per CPU of the container, unless `settings`
has another number: (dict "resources" … "settings" …). Without a limit or a request, the node's CPUs count. */}}
{{- define "tollgate.threads" -}}
{{- $limit := include "tollgate.resource" (list .resources "limits" "cpu") }}
{{- $request := include "tollgate.resource" (list .resources "requests" "cpu") }}
{{- $of := ternary "requests.cpu" "limits.cpu" (and (empty $limit) (not (empty $request))) }}
{{- $settings := .settings }}
{{- range list "OMP_NUM_THREADS" "OPENBLAS_NUM_THREADS" "MKL_NUM_THREADS" "AUTH_PASSWORD_THREADS" "INFERENCE_PREDICT_THREADS" }}
{{- if not (hasKey $settings .) }}
- name: {{ . }}
  valueFrom: {resourceFieldRef: {resource: {{ $of }}, divisor: "1"}}
{{- end }}
{{- end }}
{{- end }}

{{- /* An entry of `env` from a Secret: (list "NAME" "secret" "key"). */}}
{{- define "tollgate.secretEnv" -}}
- name: {{ index . 0 }}
  valueFrom: {secretKeyRef: {name: {{ index . 1 }}, key: {{ index . 2 }}}}
{{- end }}

{{- /* URL of a service inside the cluster: (dict "root" $ "component" "auth"). */}}
{{- define "tollgate.internalUrl" -}}
http://{{ include "tollgate.fullname" .root }}-{{ .component }}.{{ .root.Release.Namespace }}.svc
{{- end }}

{{- define "tollgate.expose" -}}
{{ .Values.expose | default (ternary "ingress" "none" (ne .Values.domain "")) }}
{{- end }}

{{- /* "true" if callers use HTTPS. */}}
{{- define "tollgate.tls" -}}
{{- if kindIs "invalid" .Values.tls.enabled }}
{{- if .Values.domain }}true{{ end }}
{{- else if .Values.tls.enabled }}true
{{- end }}
{{- end }}

{{- /* Public URL of a service: (dict "root" $ "component" "auth"). */}}
{{- define "tollgate.publicUrl" -}}
{{- if .root.Values.domain }}
{{- ternary "https" "http" (eq (include "tollgate.tls" .root) "true") }}://{{ .component }}.{{ .root.Values.domain }}
{{- else }}
{{- include "tollgate.internalUrl" . }}
{{- end }}
{{- end }}

{{- /* Paths that are exposed; the rest (metrics, leases, events) is for the cluster only. */}}
{{- define "tollgate.publicPaths" -}}
auth: [/register, /token, /revoke, /introspect, /.well-known, /userinfo, /users, /clients, /audit]
inference: [/v1, /v2]
billing: [/usage, /plans, /accounts, /balance, /recalls, /sources, /billing-runs, /invoices]
{{- end }}

{{- /* Source of models: "url", "volume" or "none". */}}
{{- define "tollgate.modelStore" -}}
{{- if .Values.modelStore.url }}url
{{- else if or .Values.modelStore.volume.enabled .Values.sampleModel.enabled }}volume
{{- else }}none
{{- end }}
{{- end }}

{{- /* "true" if there are models whose releases can be checked from inside the cluster. */}}
{{- define "tollgate.checksReleases" -}}
{{ and .Values.releaseCheck.enabled (ne (include "tollgate.modelStore" .) "none") }}
{{- end }}

{{- define "tollgate.modelStoreUrl" -}}
{{ .Values.modelStore.url | default "file:///var/lib/tollgate-models" }}
{{- end }}

{{- /* Names of the Secrets: the chart's own, or those set in the values. */}}
{{- define "tollgate.credentialsSecret" -}}
{{ .Values.credentialsSecret | default (printf "%s-credentials" (include "tollgate.fullname" .)) }}
{{- end }}
{{- define "tollgate.signingKeysSecret" -}}
{{ .Values.auth.signingKeysSecret | default (printf "%s-auth-keys" (include "tollgate.fullname" .)) }}
{{- end }}
{{- define "tollgate.trustedKeysSecret" -}}
{{ .Values.modelStore.trustedKeysSecret | default (printf "%s-trusted-keys" (include "tollgate.fullname" .)) }}
{{- end }}
{{- define "tollgate.modelSigningKeySecret" -}}
{{ .Values.sampleModel.signingKeySecret | default (printf "%s-model-signing-key" (include "tollgate.fullname" .)) }}
{{- end }}
{{- define "tollgate.databaseSecret" -}}
{{- $own := printf "%s-mysql" (include "tollgate.fullname" .) }}
{{- if .Values.mysql.enabled }}
{{- .Values.mysql.existingSecret | default $own }}
{{- else }}
{{- .Values.externalDatabase.existingSecret | default (printf "%s-database" (include "tollgate.fullname" .)) }}
{{- end }}
{{- end }}

{{- /* `env` of a service's database URL: (dict "root" $ "component" "auth" "secret" "name"). */}}
{{- define "tollgate.databaseEnv" -}}
{{- $variable := printf "%s_DATABASE_URL" (upper .component) }}
{{- if .root.Values.mysql.enabled }}
{{- include "tollgate.secretEnv" (list "MYSQL_PASSWORD" .secret (printf "%s-password" .component)) }}
- name: {{ $variable }}
  value: mysql+aiomysql://{{ .component }}:$(MYSQL_PASSWORD)@{{ include "tollgate.fullname" .root }}-mysql:3306/tollgate_{{ .component }}
{{- else }}
{{- include "tollgate.secretEnv" (list $variable .secret (printf "%s-url" .component)) }}
{{- end }}
{{- end }}

{{- /* CA certificates for an external server: the volume and its mount. */}}
{{- define "tollgate.databaseCaVolume" -}}
{{- if and (not .Values.mysql.enabled) .Values.externalDatabase.caConfigMap }}
- name: database-ca
  configMap: {name: {{ .Values.externalDatabase.caConfigMap }}}
{{- end }}
{{- end }}
{{- define "tollgate.databaseCaMount" -}}
{{- if and (not .Values.mysql.enabled) .Values.externalDatabase.caConfigMap }}
- {name: database-ca, mountPath: /etc/tollgate/database-ca, readOnly: true}
{{- end }}
{{- end }}

{{- /* URLs of external databases, with TLS if there is a CA certificate to check it. */}}
{{- define "tollgate.databaseUrls" -}}
{{- $external := .Values.externalDatabase }}
{{- range $key, $url := dict "auth-url" $external.authUrl "billing-url" $external.billingUrl }}
{{- if and $external.caConfigMap (not (contains "ssl_ca=" $url)) }}
{{- $url = printf "%s%sssl_ca=/etc/tollgate/database-ca/ca.pem" $url (ternary "&" "?" (contains "?" $url)) }}
{{- end }}
{{ $key }}: {{ $url | quote }}
{{- end }}
{{- end }}

{{- /* A quantity of `resources`, or "" if it is absent: (list $resources "limits" "cpu"). */}}
{{- define "tollgate.resource" -}}
{{- get (get (index . 0 | default dict) (index . 1) | default dict) (index . 2) }}
{{- end }}

{{- /* Bytes of a Kubernetes quantity such as 512Mi; 0 if it is absent. */}}
{{- define "tollgate.bytes" -}}
{{- $units := dict "" 1 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "P" 1e15 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 "Pi" 1125899906842624 }}
{{- $text := . | default 0 | toString }}
{{- $number := regexFind "^[0-9]+(\\.[0-9]+)?([eE][+]?[0-9]+)?" $text }}
{{- mulf $number (get $units (trimPrefix $number $text)) | int64 }}
{{- end }}
