{{- /* The model store. */}}

{{- /* Source of models: "url", "volume" or "none". */}}
{{- define "tollgate.modelStore" -}}
{{- if .Values.modelStore.url }}url
{{- else if or .Values.modelStore.volume.enabled .Values.sampleModel.enabled }}volume
{{- else }}none
{{- end }}
{{- end }}

{{- define "tollgate.modelStoreUrl" -}}
{{ .Values.modelStore.url | default "file:///var/lib/tollgate-models" }}
{{- end }}

{{- /* "true" if there are models whose releases can be checked from inside the cluster. */}}
{{- define "tollgate.checksReleases" -}}
{{ and .Values.releaseCheck.enabled (ne (include "tollgate.modelStore" .) "none") }}
{{- end }}
