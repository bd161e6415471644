{{- /* The Secrets that the chart creates, except those set in the values: by name, with their component and the kinds
of their values. */}}
{{- define "tollgate.madeSecrets" -}}
{{- if not .Values.credentialsSecret }}
{{ include "tollgate.credentialsSecret" . }}:
  component: auth
  kinds: {admin-password: password, inference-client-secret: password}
{{- end }}
{{- if not .Values.auth.signingKeysSecret }}
{{ include "tollgate.signingKeysSecret" . }}: {component: auth, kinds: {0001.pem: rsa}}
{{- end }}
{{- if not .Values.modelStore.trustedKeysSecret }}
{{ include "tollgate.modelSigningKeySecret" . }}: {component: trainer, kinds: {signing.pem: ed25519}}
{{ include "tollgate.trustedKeysSecret" . }}: {component: inference, kinds: {trusted.pem: public}}
{{- end }}
{{- if and .Values.mysql.enabled (not .Values.mysql.existingSecret) }}
{{ include "tollgate.databaseSecret" . }}:
  component: mysql
  kinds: {root-password: password, auth-password: password, billing-password: password, backup-password: password}
{{- end }}
{{- end }}

{{- /* Content of such a Secret, as YAML: that of the cluster, unchanged; else what this run has created before; else
new values. (dict "root" $ "name" "secret" "kinds" (dict "key" "password" | "rsa" | "ed25519" | "public")) */}}
{{- define "tollgate.secretData" -}}
{{- $made := get .root.Values "made" | default dict }}
{{- if not (hasKey $made .name) }}
  {{- $data := dict }}
  {{- $found := lookup "v1" "Secret" .root.Release.Namespace .name }}
  {{- range $key, $value := $found.data }}
    {{- $_ := set $data $key (b64dec $value) }}
  {{- end }}
  {{- if not $found }}
    {{- range $key, $kind := .kinds }}
      {{- if eq $kind "password" }}
        {{- $_ := set $data $key (randAlphaNum 32) }}
      {{- else if eq $kind "public" }}
        {{- $_ := set $data $key (include "tollgate.modelPublicKey" $.root) }}
      {{- else }}
        {{- $_ := set $data $key (genPrivateKey $kind) }}
      {{- end }}
    {{- end }}
  {{- end }}
  {{- $_ := set $made .name $data }}
  {{- $_ := set .root.Values "made" $made }}
{{- end }}
{{- toYaml (get $made .name) }}
{{- end }}

{{- /* Public half of the model signing key, as PEM (RFC 8410). Helm has no function for it, but a certificate of the
key contains it: the 32 bytes after its algorithm's identifier and the head of a bit string. */}}
{{- define "tollgate.modelPublicKey" -}}
{{- $name := include "tollgate.modelSigningKeySecret" . }}
{{- $data := include "tollgate.secretData" (dict "root" . "name" $name "kinds" (dict "signing.pem" "ed25519")) | fromYaml }}
{{- $certificate := (genSelfSignedCertWithKey "model-key" nil nil 1 (get $data "signing.pem")).Cert }}
{{- $der := regexReplaceAll "-----[A-Z ]+-----|\\s" $certificate "" | b64dec }}
{{- $head := "+ep\x03!\x00" }}
{{- $raw := splitList $head $der | last | substr 0 32 }}
-----BEGIN PUBLIC KEY-----
{{ printf "0*0\x05\x06\x03%s%s" $head $raw | b64enc }}
-----END PUBLIC KEY-----
{{- end }}
