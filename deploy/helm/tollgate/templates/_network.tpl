{{- /* Which pods may connect to what. The pods of a release make and accept only the connections listed here. */}}

{{- /* The components and what each of them calls: other components, or "database", "bucket", "collector" and "mail", which
need not be pods of the release. */}}
{{- define "tollgate.calls" -}}
{{- $traces := ternary (list "collector") list (ne .Values.tracing.endpoint "") }}
auth: {{ concat (list "database") $traces (ternary (list "mail") list (ne .Values.auth.mail.secret "")) | toJson }}
inference: {{ concat (list "auth" "billing" "bucket") $traces | toJson }}
billing: {{ concat (list "auth" "database") $traces | toJson }}
console: {{ concat (list "auth" "inference" "billing") $traces | toJson }}
test: [auth, inference, billing]
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
{{- if $callers }}
ingress:
  - from:
      - podSelector:
          matchLabels: {{- include "tollgate.releaseSelector" .root | nindent 12 }}
          matchExpressions: [{key: app.kubernetes.io/component, operator: In, values: {{ toJson $callers }}}]
    ports: [{port: {{ include "tollgate.portName" .component }}}]
  {{- if has .component (splitList " " (include "tollgate.services" .root)) }}
  {{- include "tollgate.ingressFromOutside" . | nindent 2 }}
  {{- end }}
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
{{- if or $values.monitoring.serviceMonitor.enabled (eq $values.metricsAdapter "stackdriver") }}
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

{{- /* Egress rules that let a component reach a target: (dict "root" $ "component" "auth" "target" "database"). */}}
{{- define "tollgate.egressRules" -}}
{{- if eq .target "bucket" }}
{{- $feedback := ternary .root.Values.inference.feedback.storeUrl "" (eq .component "inference") }}
{{- if contains "gs://" (printf "%s %s" .root.Values.modelStore.url $feedback) }}
{{- /* Google's storage, and the metadata server that issues Workload Identity's tokens. */}}
- to: [{ipBlock: {cidr: 0.0.0.0/0}}]
  ports: [{port: 443}]
- to: [{ipBlock: {cidr: 169.254.169.252/32}}, {ipBlock: {cidr: 169.254.169.254/32}}]
  ports: [{port: 80}, {port: 988}]
{{- end }}
{{- else if eq .target "collector" }}
{{- /* Any address: a policy matches a Service's pods, and only their owner knows their labels. */}}
{{- $url := urlParse .root.Values.tracing.endpoint }}
{{- $port := regexFind "[0-9]+$" (regexFind ":[0-9]+$" $url.host) | default (ternary "443" "80" (eq $url.scheme "https")) }}
- ports: [{port: {{ $port }}}]
{{- else if eq .target "mail" }}
- ports: [{port: {{ .root.Values.auth.mail.port }}}]
{{- else if and (eq .target "database") (not .root.Values.mysql.enabled) }}
{{- /* By address, and by selector if it is a pod, because in some networks an address never matches a pod. */}}
- to:
    - ipBlock: {cidr: {{ .root.Values.externalDatabase.cidr | quote }}}
    {{- with .root.Values.externalDatabase.to }}{{ toYaml . | nindent 4 }}{{ end }}
  ports: [{port: {{ .root.Values.externalDatabase.port }}}]
{{- else }}
{{- $pod := ternary "mysql" .target (eq .target "database") }}
- to: [{podSelector: {matchLabels: {{ include "tollgate.selector" (dict "root" .root "component" $pod) | fromYaml | toJson }}}}]
  ports: [{port: {{ include "tollgate.portName" $pod }}}]
{{- end }}
{{- end }}

{{- /* Every component may resolve names. */}}
{{- define "tollgate.dnsRule" -}}
- ports: [{protocol: UDP, port: 53}, {protocol: TCP, port: 53}]
{{- end }}

{{- define "tollgate.portName" -}}
{{ ternary "mysql" "http" (eq . "mysql") }}
{{- end }}
