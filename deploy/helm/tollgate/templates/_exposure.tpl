{{- /* URLs of the services, and what is public. */}}

{{- /* URL of a service inside the cluster: (dict "root" $ "component" "auth"). */}}
{{- define "tollgate.internalUrl" -}}
http://{{ include "tollgate.fullname" .root }}-{{ .component }}.{{ .root.Release.Namespace }}.svc
{{- end }}

{{- define "tollgate.expose" -}}
{{ .Values.expose | default (ternary "ingress" "none" (ne .Values.domain "")) }}
{{- end }}

{{- /* "true" if callers use HTTPS. */}}
{{- define "tollgate.tls" -}}
{{- if kindIs "invalid" .Values.tls.enabled }}
{{- if .Values.domain }}true{{ end }}
{{- else if .Values.tls.enabled }}true
{{- end }}
{{- end }}

{{- /* Public URL of a service: (dict "root" $ "component" "auth"). */}}
{{- define "tollgate.publicUrl" -}}
{{- if .root.Values.domain }}
{{- ternary "https" "http" (eq (include "tollgate.tls" .root) "true") }}://{{ .component }}.{{ .root.Values.domain }}
{{- else }}
{{- include "tollgate.internalUrl" . }}
{{- end }}
{{- end }}

{{- /* Paths that are exposed; the rest (metrics, leases, events) is for the cluster only. Where all services share one
address, `/.well-known` is auth's, the keys of billing's receipts are not public, and
there is no console. */}}
{{- define "tollgate.publicPaths" -}}
auth: [/register, /verify-email, /password-reset, /token, /revoke, /introspect, /.well-known, /userinfo, /users, /account-notes, /organisations, /invitations, /clients, /api-keys, /audit, /authorize, /sign-in, /consent, /logout, /device, /device_authorization]
inference: [/v1, /v2, /mcp{{ if .Values.domain }}, /.well-known{{ end }}]
{{- if .Values.domain }}
console: [/, /assets, /models, /sign-up, /sign-in, /sign-out, /account, /keys, /usage, /billing, /invoices, /organisation, /admin, /docs, /.well-known]
{{- end }}
billing: [/usage, /exports, /revenue, /plans, /accounts, /balance, /sources, /events/conflicts, /invoices, /billing-profile, /billing-runs, /subscription, /recalls, /adjustments{{ if .Values.domain }}, /.well-known{{ end }}]
{{- end }}
