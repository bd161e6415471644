{{- /* Which pods may connect to what. The pods of a release make and accept only the connections listed here. */}}

{{- /* The components and what each of them calls: other components, or "database", "bucket", "collector" and "mail", which
need not be pods of the release. */}}
{{- define "tollgate.calls" -}}
{{- $traces := ternary (list "collector") list (ne .Values.tracing.endpoint "") }}
{{- $archive := ternary (list "bucket") list (ne .Values.billing.archive.url "") }}
auth: {{ concat (list "database") $traces (ternary (list "mail") list (ne .Values.auth.mail.secret "")) | toJson }}
inference: {{ concat (list "auth" "billing" "bucket") $traces | toJson }}
billing: {{ concat (list "auth" "database") $archive $traces | toJson }}
console: {{ concat (list "auth" "inference" "billing") $traces | toJson }}
test: [auth, inference, billing]
{{- if .Values.billing.verify.enabled }}
billing-verify: {{ concat (list "database") $archive | toJson }}
{{- end }}
{{- if .Values.sampleModel.enabled }}
sample-model: [bucket]
{{- end }}
{{- if eq (include "tollgate.checksReleases" .) "true" }}
release-check: [auth, inference, bucket]
{{- end }}
{{- /* With an external database, the migration is a hook and has a policy of its own. */}}
{{- if .Values.mysql.enabled }}
mysql: []
migrate: [database]
{{- if .Values.mysql.backup.enabled }}
mysql-backup: [database]
{{- end }}
{{- end }}
{{- end }}

{{- /* `spec` of a component's policy: (dict "root" $ "component" "auth" "calls" …). */}}
{{- define "tollgate.networkPolicySpec" -}}
{{- $callers := list }}
{{- range $caller, $called := .calls }}
{{- if or (has $.component $called) (and (eq $.component "mysql") (has "database" $called)) }}
{{- $callers = append $callers $caller }}
{{- end }}
{{- end }}
podSelector:
  matchLabels: {{- include "tollgate.selector" . | nindent 4 }}
policyTypes: [Ingress, Egress]
{{- $fromOutside := "" }}
{{- if has .component (splitList " " (include "tollgate.services" .root)) }}
{{- $fromOutside = include "tollgate.ingressFromOutside" . }}
{{- else if eq .component "billing-verify" }}
{{- $fromOutside = include "tollgate.ingressFromCollector" .root }}
{{- end }}
{{- if or $callers $fromOutside }}
ingress:
  {{- if $callers }}
  - from:
      - podSelector:
          matchLabels: {{- include "tollgate.releaseSelector" .root | nindent 12 }}
          matchExpressions: [{key: app.kubernetes.io/component, operator: In, values: {{ toJson $callers }}}]
    ports: [{port: {{ include "tollgate.portName" .component }}}]
  {{- end }}
  {{- with $fromOutside }}{{ . | nindent 2 }}{{ end }}
{{- end }}
{{- $rules := list }}
{{- range get .calls .component }}
{{- $rules = append $rules (include "tollgate.egressRules" (dict "root" $.root "component" $.component "target" .)) }}
{{- end }}
{{- with join "" $rules | trim }}
egress: {{- . | nindent 2 }}
{{- end }}
{{- end }}

{{- /* Ingress rules of a service for callers outside the release, which are proxies, the metrics collector and, inside
the cluster, gRPC's callers: (dict "root" $ "component" "auth"). */}}
{{- define "tollgate.ingressFromOutside" -}}
{{- $values := .root.Values }}
{{- $ports := ternary "[{port: http}, {port: grpc}]" "[{port: http}]" (eq (include "tollgate.servesGrpc" .) "true") }}
{{- $from := $values.networkPolicy.allowFrom }}
{{- if eq (include "tollgate.isCollected" .root) "true" }}
{{- /* The metrics collector, anywhere in the cluster. */}}
{{- $from = append $from (dict "namespaceSelector" dict) }}
{{- end }}
{{- if and (not $values.networkPolicy.allowFrom) (ne (include "tollgate.expose" .root) "none") }}
- ports: {{ $ports }}
{{- else if $from }}
- from: {{- toYaml $from | nindent 4 }}
  ports: {{ $ports }}
{{- end }}
{{- end }}

{{- /* The same for pods that only the metrics collector calls. */}}
{{- define "tollgate.ingressFromCollector" -}}
{{- if eq (include "tollgate.isCollected" .) "true" }}
- from: [{namespaceSelector: {}}]
  ports: [{port: http}]
{{- end }}
{{- end }}

{{- /* "true" if something in the cluster collects the metrics. */}}
{{- define "tollgate.isCollected" -}}
{{ or .Values.monitoring.serviceMonitor.enabled (eq .Values.metricsAdapter "stackdriver") }}
{{- end }}
