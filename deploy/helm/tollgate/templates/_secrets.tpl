{{- /* Names of the Secrets: the chart's own, or those set in the values. */}}
{{- define "tollgate.credentialsSecret" -}}
{{ .Values.credentialsSecret | default (printf "%s-credentials" (include "tollgate.fullname" .)) }}
{{- end }}

{{- define "tollgate.signingKeysSecret" -}}
{{ .Values.auth.signingKeysSecret | default (printf "%s-auth-keys" (include "tollgate.fullname" .)) }}
{{- end }}

{{- define "tollgate.passphraseSecret" -}}
{{ .Values.auth.passphraseSecret | default (printf "%s-auth-passphrase" (include "tollgate.fullname" .)) }}
{{- end }}

{{- define "tollgate.receiptKeysSecret" -}}
{{ .Values.billing.receiptKeysSecret | default (printf "%s-receipt-keys" (include "tollgate.fullname" .)) }}
{{- end }}

{{- define "tollgate.trustedKeysSecret" -}}
{{ .Values.modelStore.trustedKeysSecret | default (printf "%s-trusted-keys" (include "tollgate.fullname" .)) }}
{{- end }}

{{- define "tollgate.modelSigningKeySecret" -}}
{{ .Values.sampleModel.signingKeySecret | default (printf "%s-model-signing-key" (include "tollgate.fullname" .)) }}
{{- end }}

{{- define "tollgate.databaseSecret" -}}
{{- $own := printf "%s-mysql" (include "tollgate.fullname" .) }}
{{- if .Values.mysql.enabled }}
{{- .Values.mysql.existingSecret | default $own }}
{{- else }}
{{- .Values.externalDatabase.existingSecret | default (printf "%s-database" (include "tollgate.fullname" .)) }}
{{- end }}
{{- end }}

{{- /* Changes of the chart's own Secrets restart the pods; whether other Secrets do is up to their owners. */}}
{{- define "tollgate.secretChecksums" -}}
{{- $names := dict "mysql" (list "databaseSecret") "auth" (list "databaseSecret" "signingKeysSecret" "passphraseSecret") "inference" (list "credentialsSecret" "trustedKeysSecret") "billing" (list "databaseSecret" "credentialsSecret" "receiptKeysSecret") "billing-verify" (list "databaseSecret") "console" (list "consoleSecret") }}
{{- $own := include "tollgate.ownSecrets" .root | fromYaml }}
{{- range get $names .component }}
{{- $name := include (printf "tollgate.%s" .) $.root }}
{{- with get $own $name }}
checksum/{{ $name }}: {{ include "tollgate.secretData" (dict "root" $.root "name" $name "kinds" .kinds) | sha256sum }}
{{- end }}
{{- end }}
{{- if and (not (has .component (list "inference" "console"))) (not .root.Values.mysql.enabled) (not .root.Values.externalDatabase.existingSecret) }}
checksum/{{ include "tollgate.databaseSecret" .root }}: {{ include "tollgate.databaseUrls" .root | sha256sum }}
{{- end }}
{{- end }}

{{- /* The Secrets that the chart creates, except those set in the values: by name, with their component and the kinds
of their values. */}}
{{- define "tollgate.ownSecrets" -}}
{{- if not .Values.credentialsSecret }}
{{ include "tollgate.credentialsSecret" . }}:
  component: auth
  kinds: {admin-password: password, inference-client-secret: password}
{{- end }}
{{- if not .Values.auth.signingKeysSecret }}
{{ include "tollgate.signingKeysSecret" . }}: {component: auth, kinds: {0001.pem: rsa}}
{{- end }}
{{- if not .Values.auth.passphraseSecret }}
{{ include "tollgate.passphraseSecret" . }}: {component: auth, kinds: {passphrase: password}}
{{- end }}
{{- if not .Values.billing.receiptKeysSecret }}
{{ include "tollgate.receiptKeysSecret" . }}: {component: billing, kinds: {0001.pem: ecdsa}}
{{- end }}
{{- if not .Values.console.existingSecret }}
{{ include "tollgate.consoleSecret" . }}: {component: console, kinds: {secret: password}}
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

{{- /* Content of such a Secret, as YAML: the content in the cluster, unchanged; else what this run has already created;
else new values. (dict "root" $ "name" "secret" "kinds" (dict "key" "password" | "rsa" | "ecdsa" | "ed25519" | "public")) */}}
{{- define "tollgate.secretData" -}}
{{- $created := get .root.Values "created" | default dict }}
{{- if not (hasKey $created .name) }}
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
  {{- $_ := set $created .name $data }}
  {{- $_ := set .root.Values "created" $created }}
{{- end }}
{{- toYaml (get $created .name) }}
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
