{{- /* Scales up fast and down slowly. It keeps the pods that the last ten minutes needed, so a load that comes and goes
within that time reverses the count at most once. After that, it removes one pod in five, rounded up, every two
minutes. While a metric is missing, the controller does not scale down at all. */}}
{{- define "tollgate.autoscaler" -}}
{{- $scaling := (index .root.Values .component).autoscaling }}
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: {{ include "tollgate.fullname" .root }}-{{ .component }}
  labels: {{- include "tollgate.labels" . | nindent 4 }}
spec:
  scaleTargetRef:
    apiVersion: apps/v1
    kind: {{ ternary "StatefulSet" "Deployment" (eq (include "tollgate.isStateful" .) "true") }}
    name: {{ include "tollgate.fullname" .root }}-{{ .component }}
  minReplicas: {{ $scaling.minReplicas }}
  maxReplicas: {{ $scaling.maxReplicas }}
  metrics:
    - type: Resource
      resource:
        name: cpu
        target: {type: Utilization, averageUtilization: {{ $scaling.targetCPUUtilizationPercentage }}}
    {{- with .root.Values.metricsAdapter }}
    {{- $metric := ternary "tollgate_inference_requests_in_flight" "http_requests_in_progress" (eq $.component "inference") }}
    - type: Pods
      pods:
        metric: {name: {{ eq . "stackdriver" | ternary (printf "prometheus.googleapis.com|%s|gauge" $metric) $metric | quote }}}
        target: {type: AverageValue, averageValue: {{ $scaling.targetRequestsInFlight | quote }}}
    {{- end }}
  behavior:
    scaleUp:
      stabilizationWindowSeconds: 0
      selectPolicy: Max
      policies:
        - {type: Percent, value: 100, periodSeconds: 30}
        - {type: Pods, value: 2, periodSeconds: 30}
    scaleDown:
      stabilizationWindowSeconds: 600
      selectPolicy: Max
      policies:
        - {type: Percent, value: 20, periodSeconds: 120}
        - {type: Pods, value: 1, periodSeconds: 120}
{{- end }}
