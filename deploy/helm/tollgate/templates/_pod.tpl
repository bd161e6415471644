{{- /* Pieces that pods share. */}}

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

{{- /* An entry of `env` from a Secret: (list "NAME" "secret" "key"). */}}
{{- define "tollgate.secretEnv" -}}
- name: {{ index . 0 }}
  valueFrom: {secretKeyRef: {name: {{ index . 1 }}, key: {{ index . 2 }}}}
{{- end }}

{{- define "tollgate.optionalSecretEnv" -}}
- name: {{ index . 0 }}
  valueFrom: {secretKeyRef: {name: {{ index . 1 }}, key: {{ index . 2 }}, optional: true}}
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

{{- define "tollgate.claim" -}}
accessModes: [{{ .mode }}]
{{- with .volume.storageClass }}
storageClassName: {{ . }}
{{- end }}
resources: {requests: {storage: {{ .volume.size }}}}
{{- end }}
