{{- /* Where pods run. */}}

{{- /* Scheduling of a pod, from the values of its service; a Job is scheduled like the service it works for. */}}
{{- define "tollgate.nodes" -}}
{{- with .nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "tollgate.placement" -}}
{{- $values := index .root.Values .component }}
{{- $here := and (eq .component "inference") (eq (include "tollgate.sharesNode" .root) "true") }}
topologySpreadConstraints:
  {{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{- include "tollgate.selector" $ | nindent 8 }}
  {{- end }}
affinity:
  {{- if $here }}
  {{- include "tollgate.sameNode" .root | nindent 2 }}
  {{- else if $values.affinity }}
  {{- toYaml $values.affinity | nindent 2 }}
  {{- else }}
  podAntiAffinity:
    preferredDuringSchedulingIgnoredDuringExecution:
      - weight: 100
        podAffinityTerm:
          topologyKey: kubernetes.io/hostname
          labelSelector:
            matchLabels: {{- include "tollgate.selector" . | nindent 14 }}
  {{- end }}
{{ include "tollgate.nodes" $values }}
{{- end }}

{{- /* A ReadWriteOnce volume is mounted on one node, so all pods that share it must run there. */}}
{{- define "tollgate.sharesNode" -}}
{{ and (eq (include "tollgate.modelStore" .) "volume") (eq .Values.modelStore.volume.accessMode "ReadWriteOnce") }}
{{- end }}

{{- define "tollgate.sameNode" -}}
podAffinity:
  requiredDuringSchedulingIgnoredDuringExecution:
    - topologyKey: kubernetes.io/hostname
      labelSelector:
        matchLabels: {app.kubernetes.io/instance: {{ .Release.Name | quote }}}
        matchExpressions:
          - {key: app.kubernetes.io/component, operator: In, values: [inference, sample-model]}
{{- end }}
