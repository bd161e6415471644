{{- /* A container that runs a backup script: (dict "root" $ "script" "backup" "user" "backup"). */}}
{{- define "tollgate.mysqlJobPod" -}}
{{- $full := printf "%s-mysql" (include "tollgate.fullname" .root) }}
{{- $secret := include "tollgate.databaseSecret" .root }}
restartPolicy: Never
{{ include "tollgate.podSecurity" (dict "root" .root "user" 999) }}
{{ include "tollgate.nodes" .root.Values.mysql }}
containers:
  - name: {{ .script }}
    image: {{ .root.Values.mysql.image }}
    imagePullPolicy: {{ .root.Values.image.pullPolicy }}
    command: [bash, /scripts/{{ .script }}.sh]
    env:
      - {name: MYSQL_HOST, value: {{ $full }}}
      - {name: MYSQL_PORT, value: "3306"}
      - {name: BACKUP_DIR, value: /backups}
      - {name: BACKUP_KEEP_DAYS, value: {{ .root.Values.mysql.backup.keepDays | quote }}}
      {{- if eq .script "backup" }}
      {{- include "tollgate.secretEnv" (list "BACKUP_PASSWORD" $secret "backup-password") | nindent 6 }}
      {{- else }}
      {{- include "tollgate.secretEnv" (list "MYSQL_ROOT_PASSWORD" $secret "root-password") | nindent 6 }}
      {{- end }}
    resources: {{- toYaml .root.Values.mysql.backup.resources | nindent 6 }}
    {{- include "tollgate.containerSecurity" . | nindent 4 }}
    volumeMounts:
      - {name: backups, mountPath: /backups}
      - {name: scripts, mountPath: /scripts, readOnly: true}
      - {name: tmp, mountPath: /tmp}
volumes:
  - {name: backups, persistentVolumeClaim: {claimName: {{ $full }}-backups}}
  - {name: scripts, configMap: {name: {{ $full }}}}
  - {name: tmp, emptyDir: {}}
{{- end }}
