{{- /* A secret value that is made once: the one in the cluster, else the one made before in this run, else a
new one. (dict "root" $ "secret" "name" "key" "k" "kind" "password" | "rsa" | "ed25519") */}}
{{- define "tollgate.kept" -}}
{{- $made := get .root.Values "kept" | default dict }}
{{- $id := printf "%s/%s" .secret .key }}
{{- if not (hasKey $made $id) }}
  {{- $found := (lookup "v1" "Secret" .root.Release.Namespace .secret).data | default dict }}
  {{- $value := "" }}
  {{- if hasKey $found .key }}
    {{- $value = index $found .key | b64dec }}
  {{- else if eq .kind "password" }}
    {{- $value = randAlphaNum 32 }}
  {{- else }}
    {{- $value = genPrivateKey .kind }}
  {{- end }}
  {{- $_ := set $made $id $value }}
  {{- $_ := set .root.Values "kept" $made }}
{{- end }}
{{- index $made $id }}
{{- end }}

{{- /* The public half of an Ed25519 private key, as PEM (RFC 8410): there is no function for it, but a certificate
of the key holds it, 32 bytes behind its algorithm's identifier and the head of a bit string. */}}
{{- define "tollgate.ed25519PublicKey" -}}
{{- $certificate := (genSelfSignedCertWithKey "model-key" nil nil 1 .).Cert }}
{{- $der := regexReplaceAll "-----[A-Z ]+-----|\\s" $certificate "" | b64dec }}
{{- $head := "+ep\x03!\x00" }}
{{- $raw := splitList $head $der | last | substr 0 32 }}
-----BEGIN PUBLIC KEY-----
{{ printf "0*0\x05\x06\x03%s%s" $head $raw | b64enc }}
-----END PUBLIC KEY-----
{{- end }}

{{- /* `metadata` of a Secret that outlives the release, as the data that it opens does. */}}
{{- define "tollgate.keptMetadata" -}}
metadata:
  name: {{ .name }}
  labels: {{- include "tollgate.labels" . | nindent 4 }}
  annotations: {helm.sh/resource-policy: keep}
{{- end }}
