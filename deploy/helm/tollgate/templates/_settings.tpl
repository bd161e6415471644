{{- define "tollgate.configMap" -}}
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ include "tollgate.fullname" .root }}-{{ .component }}
  labels: {{- include "tollgate.labels" . | nindent 4 }}
data: {{- include "tollgate.settings" . | trim | nindent 2 }}
{{- end }}

{{- /* Settings of a service that are not secret, its own and those of the values: (dict "root" $ "component" "auth"). */}}
{{- define "tollgate.settings" -}}
{{- $own := include (printf "tollgate.%sSettings" .component) .root | fromYaml }}
{{- $tracing := include "tollgate.tracingSettings" .root | fromYaml }}
{{- with $own.Error | default $tracing.Error }}
{{- fail . }}
{{- end }}
{{- $proxies := dict }}
{{- with .root.Values.trustedProxies }}
{{- $_ := set $proxies (printf "%s_TRUSTED_PROXIES" (upper $.component)) (join " " .) }}
{{- end }}
{{- with .root.Values.trustedHosts }}
{{- $internal := include "tollgate.internalUrl" $ | trimPrefix "http://" }}
{{- $_ := set $proxies (printf "%s_TRUSTED_HOSTS" (upper $.component)) (join " " (append . $internal)) }}
{{- end }}
{{- $addresses := include "tollgate.addressSettings" .root | fromYaml }}
{{- range $name, $value := merge (dict) (index .root.Values .component).settings $own $addresses $tracing $proxies }}
{{ $name }}: {{ $value | quote }}
{{- end }}
{{- end }}

{{- define "tollgate.tracingSettings" -}}
{{- with .Values.tracing }}
{{- if .endpoint }}
OTEL_EXPORTER_OTLP_ENDPOINT: {{ .endpoint | quote }}
OTEL_TRACES_SAMPLER: {{ .sampler | quote }}
OTEL_TRACES_SAMPLER_ARG: {{ .ratio | quote }}
{{- end }}
{{- end }}
{{- end }}

{{- /* Without a domain, the address that callers use is unknown. */}}
{{- define "tollgate.addressSettings" -}}
{{- if .Values.domain }}
{{- range list "inference" "billing" "console" }}
{{ upper . }}_PUBLIC_URL: {{ include "tollgate.publicUrl" (dict "root" $ "component" .) | quote }}
{{- end }}
{{- end }}
{{- end }}

{{- define "tollgate.authSettings" -}}
TOLLGATE_HOME: /var/lib/tollgate
AUTH_HOST: 0.0.0.0
AUTH_PORT: "8001"
AUTH_ISSUER: {{ include "tollgate.publicUrl" (dict "root" . "component" "auth") | quote }}
AUTH_REGISTRATION: {{ .Values.auth.registration | quote }}
{{- with .Values.auth.mail.from }}
AUTH_MAIL_FROM: {{ . | quote }}
{{- end }}
AUTH_SIGNING_KEYS: /etc/tollgate/signing-keys
{{- if .Values.domain }}
{{- $origins := list }}
{{- range list "auth" "inference" "billing" }}
{{- $origins = append $origins (include "tollgate.publicUrl" (dict "root" $ "component" .)) }}
{{- end }}
AUTH_CORS_ORIGINS: {{ join " " $origins | quote }}
{{- end }}
{{- end }}

{{- define "tollgate.inferenceSettings" -}}
TOLLGATE_HOME: /var/lib/tollgate
INFERENCE_HOST: 0.0.0.0
INFERENCE_PORT: "8002"
{{- if .Values.inference.grpc.enabled }}
INFERENCE_GRPC_PORT: {{ include "tollgate.grpcPort" . | quote }}
{{- end }}
INFERENCE_AUTH_URL: {{ include "tollgate.publicUrl" (dict "root" . "component" "auth") | quote }}
INFERENCE_AUTH_ADDRESS: {{ include "tollgate.internalUrl" (dict "root" . "component" "auth") | quote }}
INFERENCE_BILLING_URL: {{ include "tollgate.internalUrl" (dict "root" . "component" "billing") | quote }}
INFERENCE_CLIENT_ID: inference
INFERENCE_MODEL_STORE: {{ include "tollgate.modelStoreUrl" . | quote }}
INFERENCE_MODEL_POLL_SECONDS: {{ .Values.modelStore.pollSeconds | quote }}
INFERENCE_TRUSTED_KEYS: /etc/tollgate/trusted-keys
INFERENCE_JOURNAL_DIR: /var/lib/tollgate/journal
INFERENCE_JOURNAL_MAX_BYTES: {{ .Values.inference.journal.maxBytes | int64 | quote }}
INFERENCE_JOURNAL_SYNC: {{ .Values.inference.journal.sync | quote }}
INFERENCE_CACHE_DIR: /var/lib/tollgate/cache
INFERENCE_CACHE_MAX_BYTES: {{ .Values.inference.models.cacheMaxBytes | int64 | quote }}
INFERENCE_MODELS_MAX_BYTES: {{ .Values.inference.models.memoryMaxBytes | int64 | quote }}
INFERENCE_ALLOW_JOBLIB: {{ .Values.inference.models.allowJoblib | quote }}
{{- with .Values.inference.feedback.storeUrl }}
INFERENCE_FEEDBACK_STORE: {{ . | quote }}
{{- end }}
INFERENCE_FEEDBACK_ROWS: {{ .Values.inference.feedback.keepRows | quote }}
{{- end }}

{{- define "tollgate.billingSettings" -}}
TOLLGATE_HOME: /var/lib/tollgate
BILLING_HOST: 0.0.0.0
BILLING_PORT: "8003"
BILLING_AUTH_URL: {{ include "tollgate.publicUrl" (dict "root" . "component" "auth") | quote }}
BILLING_AUTH_ADDRESS: {{ include "tollgate.internalUrl" (dict "root" . "component" "auth") | quote }}
BILLING_CLIENT_ID: inference
BILLING_RECEIPT_KEYS: /etc/tollgate/receipt-keys
{{- /* A pod's own folders do not last. */}}
BILLING_ARCHIVE: {{ .Values.billing.archive.url | default "none" | quote }}
{{- with .Values.billing.archive.retentionMonths }}
BILLING_RETENTION_MONTHS: {{ . | quote }}
{{- end }}
{{- if .Values.billing.defaultPlan }}
BILLING_DEFAULT_PLAN: {{ .Values.billing.defaultPlan | toJson | quote }}
{{- else if .Values.sampleModel.enabled }}
BILLING_DEFAULT_PLAN: {{ .Files.Get "files/sample-plan.json" | fromJson | toJson | quote }}
{{- end }}
{{- end }}
