{{- /* One service: (dict "root" $ "component" "auth"). All share this template; differences are in
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
          ports:
            - {name: http, containerPort: {{ include "tollgate.port" . }}}
            {{- if eq (include "tollgate.servesGrpc" .) "true" }}
            - {name: grpc, containerPort: {{ include "tollgate.grpcPort" $root }}}
            {{- end }}
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

{{- define "tollgate.isStateful" -}}
{{ and (eq .component "inference") .root.Values.inference.journal.volume.enabled }}
{{- end }}
