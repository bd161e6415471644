{{- /* The parts of the console, and how auth knows it. */}}
{{- define "tollgate.consoleSecret" -}}
{{ .Values.console.existingSecret | default (printf "%s-console" (include "tollgate.fullname" .)) }}
{{- end }}

{{- define "tollgate.consoleSettings" -}}
TOLLGATE_HOME: /var/lib/tollgate
CONSOLE_HOST: 0.0.0.0
CONSOLE_PORT: "8000"
CONSOLE_PUBLIC_URL: {{ include "tollgate.publicUrl" (dict "root" . "component" "console") | quote }}
{{- range list "auth" "inference" "billing" }}
CONSOLE_{{ upper . }}_URL: {{ include "tollgate.publicUrl" (dict "root" $ "component" .) | quote }}
CONSOLE_{{ upper . }}_ADDRESS: {{ include "tollgate.internalUrl" (dict "root" $ "component" .) | quote }}
{{- end }}
{{- end }}

{{- /* The apps of auth's own, as JSON: the console. Auth returns people to https addresses only. */}}
{{- define "tollgate.firstPartyClients" -}}
{{- $clients := list }}
{{- if eq (include "tollgate.tls" .) "true" }}
{{- $url := include "tollgate.publicUrl" (dict "root" . "component" "console") }}
{{- $uris := dict "redirect_uris" (list (printf "%s/sign-in/callback" $url)) "post_logout_redirect_uris" (list (printf "%s/" $url)) }}
{{- $clients = list (merge (dict "client_id" "console" "name" "Tollgate") $uris) }}
{{- end }}
{{- toJson $clients }}
{{- end }}

{{- define "tollgate.consoleEnv" -}}
{{ include "tollgate.secretEnv" (list "CONSOLE_SECRET" (include "tollgate.consoleSecret" .) "secret") }}
{{- end }}

{{- define "tollgate.consoleMounts" -}}
{{- end }}

{{- define "tollgate.consoleVolumes" -}}
{{- end }}
