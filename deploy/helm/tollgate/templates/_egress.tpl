{{- /* What pods may connect to; the rules of _network.tpl. */}}

{{- /* Egress rules that let a component reach a target: (dict "root" $ "component" "auth" "target" "database"). */}}
{{- define "tollgate.egressRules" -}}
{{- if eq .target "bucket" }}
{{- $feedback := ternary .root.Values.inference.feedback.storeUrl "" (eq .component "inference") }}
{{- $urls := printf "%s %s" .root.Values.modelStore.url $feedback }}
{{- if has .component (list "billing" "billing-verify") }}
{{- $urls = .root.Values.billing.archive.url }}
{{- end }}
{{- if contains "gs://" $urls }}
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
