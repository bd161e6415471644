{{- /* One service: (dict "root" $ "component" "auth"). All three share this template; differences are in
"tollgate.<component>Env", "…Volumes" and "…Mounts". */}}
{{- define "tollgate.workload" -}}
{{- $root := .root }}
{{- $values := index $root.Values .component }}
{{- $full := printf "%s-%s" (include "tollgate.fullname" $root) .component }}
{{- $stateful := eq (include "tollgate.isStateful" .) "true" }}
{{- $account := dict "root" $root "component" .component "values" $values.serviceAccount }}
apiVersion: apps/v1
kind: {{ ternary "StatefulSet" "Deployment" $stateful }}
metadata:
  name: {{ $full }}
  labels: {{- include "tollgate.labels" . | nindent 4 }}
spec:
  {{- if not $values.autoscaling.enabled }}
  replicas: {{ $values.replicas }}
  {{- end }}
  revisionHistoryLimit: 5
  minReadySeconds: 5
  selector:
    matchLabels: {{- include "tollgate.selector" . | nindent 6 }}
  {{- if $stateful }}
  serviceName: {{ $full }}-pods
  podManagementPolicy: Parallel
  updateStrategy: {type: RollingUpdate}
  {{- else }}
  strategy:
    type: RollingUpdate
    rollingUpdate: {maxSurge: 1, maxUnavailable: 0}
  {{- end }}
  template:
    metadata:
      labels:
        {{- with $values.podLabels }}{{ toYaml . | nindent 8 }}{{ end }}
        {{- include "tollgate.selector" . | nindent 8 }}
      annotations:
        checksum/config: {{ include "tollgate.settings" . | sha256sum }}
        {{- include "tollgate.secretChecksums" . | nindent 8 }}
        {{- with $values.podAnnotations }}{{ toYaml . | nindent 8 }}{{ end }}
    spec:
      serviceAccountName: {{ include "tollgate.serviceAccountName" $account }}
      {{- include "tollgate.podSecurity" (dict "root" $root "user" 10001) | nindent 6 }}
      # Longer than the preStop sleep, the requests in flight and, for inference, returning credit and shipping the
      # journal take together.
      terminationGracePeriodSeconds: {{ ternary 60 45 (eq .component "inference") }}
      {{- with $values.priorityClassName }}
      priorityClassName: {{ . }}
      {{- end }}
      {{- include "tollgate.placement" . | nindent 6 }}
      containers:
        - name: {{ .component }}
          image: {{ include "tollgate.image" . }}
          imagePullPolicy: {{ $root.Values.image.pullPolicy }}
          command: [python, -m, services.{{ .component }}]
          ports: [{name: http, containerPort: {{ include "tollgate.port" . }}}]
          envFrom: [{configMapRef: {name: {{ $full }}}}]
          env:
            {{- include (printf "tollgate.%sEnv" .component) $root | nindent 12 }}
            {{- include "tollgate.threads" (dict "resources" $values.resources "settings" $values.settings) | nindent 12 }}
            {{- with $values.extraEnv }}{{ toYaml . | nindent 12 }}{{ end }}
          startupProbe:
            httpGet: {path: /healthz, port: http}
            periodSeconds: 2
            failureThreshold: 60
          readinessProbe:
            httpGet: {path: /readyz, port: http}
            periodSeconds: 5
            timeoutSeconds: 6
          livenessProbe:
            httpGet: {path: /healthz, port: http}
            periodSeconds: 10
            timeoutSeconds: 5
            failureThreshold: 6
          lifecycle:
            preStop: {sleep: {seconds: 12}}  # until every proxy has stopped using the pod
          resources: {{- toYaml $values.resources | nindent 12 }}
          {{- include "tollgate.containerSecurity" . | nindent 10 }}
          volumeMounts:
            - {name: tmp, mountPath: /tmp}
            - {name: state, mountPath: /var/lib/tollgate}
            {{- include (printf "tollgate.%sMounts" .component) $root | nindent 12 }}
      volumes:
        - {name: tmp, emptyDir: {}}
        - {name: state, emptyDir: {}}
        {{- include (printf "tollgate.%sVolumes" .component) $root | nindent 8 }}
  {{- if $stateful }}
  volumeClaimTemplates:
    - metadata:
        name: journal
        labels: {{- include "tollgate.selector" . | nindent 10 }}
      spec: {{- include "tollgate.claim" (dict "volume" $values.journal.volume "mode" "ReadWriteOnce") | nindent 8 }}
  {{- end }}
{{- end }}

{{- define "tollgate.port" -}}
{{ get (dict "auth" 8001 "inference" 8002 "billing" 8003) .component }}
{{- end }}

{{- define "tollgate.isStateful" -}}
{{ and (eq .component "inference") .root.Values.inference.journal.volume.enabled }}
{{- end }}

{{- define "tollgate.claim" -}}
accessModes: [{{ .mode }}]
{{- with .volume.storageClass }}
storageClassName: {{ . }}
{{- end }}
resources: {requests: {storage: {{ .volume.size }}}}
{{- end }}

{{- /* Changes of the chart's own Secrets restart the pods; other Secrets are their owners' to manage. */}}
{{- define "tollgate.secretChecksums" -}}
{{- $names := dict "mysql" (list "databaseSecret") "auth" (list "databaseSecret" "signingKeysSecret") "inference" (list "credentialsSecret" "trustedKeysSecret") "billing" (list "databaseSecret") }}
{{- $made := include "tollgate.madeSecrets" .root | fromYaml }}
{{- range get $names .component }}
{{- $name := include (printf "tollgate.%s" .) $.root }}
{{- with get $made $name }}
checksum/{{ $name }}: {{ include "tollgate.secretData" (dict "root" $.root "name" $name "kinds" .kinds) | sha256sum }}
{{- end }}
{{- end }}
{{- if and (ne .component "inference") (not .root.Values.mysql.enabled) (not .root.Values.externalDatabase.existingSecret) }}
checksum/{{ include "tollgate.databaseSecret" .root }}: {{ include "tollgate.databaseUrls" .root | sha256sum }}
{{- end }}
{{- end }}

{{- define "tollgate.placement" -}}
{{- $values := index .root.Values .component }}
{{- $here := and (eq .component "inference") (eq (include "tollgate.sharesNode" .root) "true") }}
topologySpreadConstraints:
  {{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{- include "tollgate.selector" $ | nindent 8 }}
  {{- end }}
affinity:
  {{- if $here }}
  {{- include "tollgate.sameNode" .root | nindent 2 }}
  {{- else if $values.affinity }}
  {{- toYaml $values.affinity | nindent 2 }}
  {{- else }}
  podAntiAffinity:
    preferredDuringSchedulingIgnoredDuringExecution:
      - weight: 100
        podAffinityTerm:
          topologyKey: kubernetes.io/hostname
          labelSelector:
            matchLabels: {{- include "tollgate.selector" . | nindent 14 }}
  {{- end }}
{{ include "tollgate.nodes" $values }}
{{- end }}

{{- /* A ReadWriteOnce volume is mounted on one node, so all pods that share it must run there. */}}
{{- define "tollgate.sharesNode" -}}
{{ and (eq (include "tollgate.modelStore" .) "volume") (eq .Values.modelStore.volume.accessMode "ReadWriteOnce") }}
{{- end }}
{{- define "tollgate.sameNode" -}}
podAffinity:
  requiredDuringSchedulingIgnoredDuringExecution:
    - topologyKey: kubernetes.io/hostname
      labelSelector:
        matchLabels: {app.kubernetes.io/instance: {{ .Release.Name | quote }}}
        matchExpressions:
          - {key: app.kubernetes.io/component, operator: In, values: [inference, sample-model]}
{{- end }}

{{- /* Parts that differ between services. */}}
{{- define "tollgate.authEnv" -}}
{{ include "tollgate.databaseEnv" (dict "root" . "component" "auth" "secret" (include "tollgate.databaseSecret" .)) }}
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
{{ include "tollgate.databaseEnv" (dict "root" . "component" "billing" "secret" (include "tollgate.databaseSecret" .)) }}
{{- end }}
{{- define "tollgate.billingMounts" -}}
{{ include "tollgate.databaseCaMount" . }}
{{- end }}
{{- define "tollgate.billingVolumes" -}}
{{ include "tollgate.databaseCaVolume" . }}
{{- end }}
