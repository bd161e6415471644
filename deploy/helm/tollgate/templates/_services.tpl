{{- /* Parts that differ between services. */}}
{{- define "tollgate.authEnv" -}}
{{ include "tollgate.databaseEnv" (dict "root" . "component" "auth" "secret" (include "tollgate.databaseSecret" .)) }}
{{ include "tollgate.secretEnv" (list "AUTH_PASSPHRASE" (include "tollgate.passphraseSecret" .) "passphrase") }}
{{ include "tollgate.optionalSecretEnv" (list "AUTH_PREVIOUS_PASSPHRASE" (include "tollgate.passphraseSecret" .) "previous-passphrase") }}
{{- with .Values.auth.mail.secret }}
{{ include "tollgate.secretEnv" (list "AUTH_MAIL_URL" . "url") }}
{{- end }}
{{- end }}

{{- define "tollgate.authMounts" -}}
- {name: signing-keys, mountPath: /etc/tollgate/signing-keys, readOnly: true}
{{- include "tollgate.databaseCaMount" . }}
{{- end }}

{{- define "tollgate.authVolumes" -}}
- name: signing-keys
  secret: {secretName: {{ include "tollgate.signingKeysSecret" . }}, defaultMode: 0440}
{{- include "tollgate.databaseCaVolume" . }}
{{- end }}

{{- define "tollgate.inferenceEnv" -}}
{{ include "tollgate.secretEnv" (list "INFERENCE_CLIENT_SECRET" (include "tollgate.credentialsSecret" .) "inference-client-secret") }}
{{- end }}

{{- define "tollgate.inferenceMounts" -}}
- {name: trusted-keys, mountPath: /etc/tollgate/trusted-keys, readOnly: true}
{{- if .Values.inference.journal.volume.enabled }}
- {name: journal, mountPath: /var/lib/tollgate/journal, subPath: journal}
{{- end }}
{{- /* Writable, because inference writes the rollback of a bad canary. */}}
{{- if ne (include "tollgate.modelStore" .) "url" }}
- {name: models, mountPath: /var/lib/tollgate-models}
{{- end }}
{{- end }}

{{- define "tollgate.inferenceVolumes" -}}
- name: trusted-keys
  secret: {secretName: {{ include "tollgate.trustedKeysSecret" . }}, defaultMode: 0440}
{{- $store := include "tollgate.modelStore" . }}
{{- if eq $store "volume" }}
- {name: models, persistentVolumeClaim: {claimName: {{ include "tollgate.fullname" . }}-models}}
{{- else if eq $store "none" }}
- {name: models, emptyDir: {}}
{{- end }}
{{- end }}

{{- define "tollgate.billingEnv" -}}
{{ include "tollgate.secretEnv" (list "BILLING_CLIENT_SECRET" (include "tollgate.credentialsSecret" .) "inference-client-secret") }}
{{ include "tollgate.databaseEnv" (dict "root" . "component" "billing" "secret" (include "tollgate.databaseSecret" .)) }}
{{- end }}

{{- define "tollgate.billingMounts" -}}
- {name: receipt-keys, mountPath: /etc/tollgate/receipt-keys, readOnly: true}
{{- include "tollgate.databaseCaMount" . }}
{{- end }}

{{- define "tollgate.billingVolumes" -}}
- name: receipt-keys
  secret: {secretName: {{ include "tollgate.receiptKeysSecret" . }}, defaultMode: 0440}
{{- include "tollgate.databaseCaVolume" . }}
{{- end }}
