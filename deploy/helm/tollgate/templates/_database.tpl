{{- /* Connections of the services to their databases. */}}

{{- /* `env` of a service's database URL: (dict "root" $ "component" "auth" "secret" "name"). */}}
{{- define "tollgate.databaseEnv" -}}
{{- $variable := printf "%s_DATABASE_URL" (upper .component) }}
{{- if .root.Values.mysql.enabled }}
{{- include "tollgate.secretEnv" (list "MYSQL_PASSWORD" .secret (printf "%s-password" .component)) }}
- name: {{ $variable }}
  value: mysql+aiomysql://{{ .component }}:$(MYSQL_PASSWORD)@{{ include "tollgate.fullname" .root }}-mysql:3306/tollgate_{{ .component }}
{{- else }}
{{- include "tollgate.secretEnv" (list $variable .secret (printf "%s-url" .component)) }}
{{- end }}
{{- end }}

{{- /* CA certificates for an external server: the volume and its mount. */}}
{{- define "tollgate.databaseCaVolume" -}}
{{- if and (not .Values.mysql.enabled) .Values.externalDatabase.caConfigMap }}
- name: database-ca
  configMap: {name: {{ .Values.externalDatabase.caConfigMap }}}
{{- end }}
{{- end }}

{{- define "tollgate.databaseCaMount" -}}
{{- if and (not .Values.mysql.enabled) .Values.externalDatabase.caConfigMap }}
- {name: database-ca, mountPath: /etc/tollgate/database-ca, readOnly: true}
{{- end }}
{{- end }}

{{- /* URLs of external databases, with TLS if there is a CA certificate to check it. */}}
{{- define "tollgate.databaseUrls" -}}
{{- $external := .Values.externalDatabase }}
{{- range $key, $url := dict "auth-url" $external.authUrl "billing-url" $external.billingUrl }}
{{- if and $external.caConfigMap (not (contains "ssl_ca=" $url)) }}
{{- $url = printf "%s%sssl_ca=/etc/tollgate/database-ca/ca.pem" $url (ternary "&" "?" (contains "?" $url)) }}
{{- end }}
{{ $key }}: {{ $url | quote }}
{{- end }}
{{- end }}
