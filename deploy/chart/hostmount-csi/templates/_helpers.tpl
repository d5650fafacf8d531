{{- define "hostmount.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{/* The directories of the driver's, in kubelet's. */}}
{{- define "hostmount.calls" -}}
{{ .Values.kubeletDir }}/plugins/{{ .Values.driverName }}
{{- end }}
{{- define "hostmount.registration" -}}
{{ .Values.kubeletDir }}/plugins_registry/{{ .Values.driverName }}
{{- end }}

{{/* Arguments that differ from the program's own. */}}
{{- define "hostmount.arguments" -}}
{{- if ne .Values.driverName "hostmount.csi" }}
- --driver-name={{ .Values.driverName }}
{{- end }}
{{- if ne .Values.kubeletDir "/var/lib/kubelet" }}
- --kubelet-dir={{ .Values.kubeletDir }}
{{- end }}
{{- end }}

{{- define "hostmount.labels" -}}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "hostmount.config" -}}
{{- if ne .Values.kubeletDir "/var/lib/kubelet" -}}
kubelet_dir = {{ .Values.kubeletDir | quote }}

{{ end -}}
{{ .Values.config | trimSuffix "\n" }}

# The door is where the CSI driver asks, as this user.
[doors]
csi = { socket = "/run/hostmount-csi/mounter.sock", uid = {{ int64 .Values.driverUid }} }
{{- end }}
