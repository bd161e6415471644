{{- /* The ports of the services: (dict "root" $ "component" "auth"). */}}

{{- define "tollgate.port" -}}
{{ get (dict "console" 8000 "auth" 8001 "inference" 8002 "billing" 8003) .component }}
{{- end }}

{{- define "tollgate.grpcPort" -}}
8012
{{- end }}

{{- /* "true" if a component serves gRPC. */}}
{{- define "tollgate.servesGrpc" -}}
{{ and (eq .component "inference") .root.Values.inference.grpc.enabled }}
{{- end }}

{{- /* The ports of a component's Service. */}}
{{- define "tollgate.servicePorts" -}}
- {name: http, port: 80, targetPort: http}
{{- if eq (include "tollgate.servesGrpc" .) "true" }}
- {name: grpc, port: {{ include "tollgate.grpcPort" .root }}, targetPort: grpc, appProtocol: kubernetes.io/h2c}
{{- end }}
{{- end }}
