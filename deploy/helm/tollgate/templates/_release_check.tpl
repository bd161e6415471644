{{- /* Template of the Job that `tollgate models wait` and `check` run in the cluster with their own arguments; its
schedule never starts it. Its pod reads the model store as inference does, and the network policies let it reach
inference whatever the values. `helm test` runs it too: (dict "root" $ "args" (list "models" "list")). */}}
{{- define "tollgate.releaseCheckPod" -}}
{{- $args := .args }}
{{- with .root }}
{{- $check := .Values.releaseCheck }}
restartPolicy: Never
serviceAccountName: {{ include "tollgate.serviceAccountName" (dict "root" . "component" "inference" "values" .Values.inference.serviceAccount) }}
{{- include "tollgate.podSecurity" (dict "root" . "user" 10001) | nindent 0 }}
{{- include "tollgate.nodes" .Values.inference | nindent 0 }}
{{- if eq (include "tollgate.sharesNode" .) "true" }}
affinity: {{- include "tollgate.sameNode" . | nindent 2 }}
{{- end }}
containers:
  - name: release-check
    image: {{ include "tollgate.image" (dict "root" . "component" "trainer") }}
    imagePullPolicy: {{ .Values.image.pullPolicy }}
    command: [tollgate]
    args: {{ toJson $args }}
    env:
      - {name: TOLLGATE_HOME, value: /var/lib/tollgate}
      - {name: TRAINER_MODEL_STORE, value: {{ include "tollgate.modelStoreUrl" . | quote }}}
      - {name: TRAINER_TRUSTED_KEYS, value: /etc/tollgate/trusted-keys}
      - {name: TRAINER_ALLOW_JOBLIB, value: {{ .Values.inference.models.allowJoblib | quote }}}
      - {name: TOLLGATE_INFERENCE_PODS, value: {{ printf "http://%s-inference-pods.%s.svc:8002" (include "tollgate.fullname" .) .Release.Namespace | quote }}}
      - {name: TOLLGATE_INFERENCE_URL, value: {{ include "tollgate.internalUrl" (dict "root" . "component" "inference") | quote }}}
      - {name: TOLLGATE_AUTH_URL, value: {{ include "tollgate.internalUrl" (dict "root" . "component" "auth") | quote }}}
      {{- if $check.clientSecret }}
      {{- include "tollgate.secretEnv" (list "TOLLGATE_CLIENT_ID" $check.clientSecret "client-id") | nindent 6 }}
      {{- include "tollgate.secretEnv" (list "TOLLGATE_CLIENT_SECRET" $check.clientSecret "client-secret") | nindent 6 }}
      {{- else }}
      {{- include "tollgate.secretEnv" (list "TOLLGATE_CHECK_ACCOUNT_SEED" (include "tollgate.credentialsSecret" .) "inference-client-secret") | nindent 6 }}
      {{- end }}
    resources: {{- toYaml $check.resources | nindent 6 }}
    {{- include "tollgate.containerSecurity" . | nindent 4 }}
    volumeMounts:
      - {name: tmp, mountPath: /tmp}
      - {name: state, mountPath: /var/lib/tollgate}
      - {name: trusted-keys, mountPath: /etc/tollgate/trusted-keys, readOnly: true}
      {{- if not .Values.modelStore.url }}
      - {name: models, mountPath: /var/lib/tollgate-models, readOnly: true}
      {{- end }}
volumes:
  - {name: tmp, emptyDir: {}}
  - {name: state, emptyDir: {}}
  - name: trusted-keys
    secret: {secretName: {{ include "tollgate.trustedKeysSecret" . }}, defaultMode: 0440}
  {{- if not .Values.modelStore.url }}
  - {name: models, persistentVolumeClaim: {claimName: {{ include "tollgate.fullname" . }}-models}}
  {{- end }}
{{- end }}
{{- end }}
