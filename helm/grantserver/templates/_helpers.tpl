{{/* The name of most objects: of the release, with that of the chart unless it is in there. */}}
{{- define "grantserver.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* The name of what is outside of the release's namespace, where another release may have its own. */}}
{{- define "grantserver.outside" -}}
{{- printf "%s-%s" .Release.Namespace (include "grantserver.fullname" .) -}}
{{- end -}}

{{- define "grantserver.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (include "grantserver.fullname" .) -}}
{{- end -}}

{{- define "grantserver.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "grantserver.labels" -}}
{{ include "grantserver.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Labels and annotations of an object: (dict "root" $ "labels" {} "annotations" {}). */}}
{{- define "grantserver.about" -}}
labels:
  {{- include "grantserver.labels" .root | nindent 2 }}
  {{- with .labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with merge (dict) (.annotations | default dict) .root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* A text of the settings, which may be a template: (dict "root" $ "text" ""). */}}
{{- define "grantserver.text" -}}
{{- if contains "{{" .text }}{{ tpl .text .root }}{{ else }}{{ .text }}{{ end -}}
{{- end -}}

{{/* A value as TOML has it. JSON is that, but for tables: (dict "root" $ "value" ""). */}}
{{- define "grantserver.toml" -}}
{{- $root := .root -}}
{{- if kindIs "string" .value -}}
{{- include "grantserver.text" (dict "root" $root "text" .value) | toJson -}}
{{- else if kindIs "slice" .value -}}
[{{ range $index, $one := .value }}{{ if $index }}, {{ end }}{{ include "grantserver.toml" (dict "root" $root "value" $one) }}{{ end }}]
{{- else if kindIs "map" .value -}}
{{- $comma := "" -}}
{ {{- range $key, $one := .value }}{{ $comma }} {{ toJson $key }} = {{ include "grantserver.toml" (dict "root" $root "value" $one) }}{{ $comma = "," }}{{ end }} }
{{- else -}}
{{- toJson .value -}}
{{- end -}}
{{- end -}}

{{/* What is the chart's to decide where nobody has: the settings as they are written down. */}}
{{- define "grantserver.config" -}}
{{- $config := deepCopy .Values.config -}}
{{- if not $config.exposure.selector -}}
{{- $_ := set $config.exposure "selector" (include "grantserver.selector" . | fromYaml) -}}
{{- end -}}
{{- if eq (toString $config.limits.peer_failures) "" -}}
{{- $shared := has (include "grantserver.way" .) (list "route" "ingress" "gateway") -}}
{{- $_ := set $config.limits "peer_failures" (ternary 0 20 $shared) -}}
{{- end -}}
{{- $root := . -}}
{{- range $name, $value := $config }}
{{- if not (kindIs "map" $value) }}
{{ $name }} = {{ include "grantserver.toml" (dict "root" $root "value" $value) }}
{{- end }}
{{- end }}
{{- range $group, $settings := $config }}
{{- if kindIs "map" $settings }}
[{{ $group }}]
{{- range $name, $value := $settings }}
{{ $name }} = {{ include "grantserver.toml" (dict "root" $root "value" $value) }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "grantserver.isOpenShift" -}}
{{- if eq (toString .Values.openshift) "auto" -}}
{{- if .Capabilities.APIVersions.Has "route.openshift.io/v1" }}true{{ end -}}
{{- else if .Values.openshift -}}
true
{{- end -}}
{{- end -}}

{{/* The way in, also where the server is left to choose it. */}}
{{- define "grantserver.way" -}}
{{- $type := .Values.config.exposure.type -}}
{{- if ne $type "auto" }}{{ $type }}
{{- else if .Values.config.reach.url }}url
{{- else if include "grantserver.isOpenShift" . }}route
{{- else }}loadbalancer
{{- end -}}
{{- end -}}

{{/* NAME or NAMESPACE/NAME of a setting: (dict "root" $ "text" ""). */}}
{{- define "grantserver.nameOf" -}}
{{- include "grantserver.text" . | splitList "/" | last -}}
{{- end -}}
{{- define "grantserver.namespaceOf" -}}
{{- $text := include "grantserver.text" . -}}
{{- if contains "/" $text }}{{ splitList "/" $text | first }}{{ else }}{{ .root.Release.Namespace }}{{ end -}}
{{- end -}}

{{/* The port of a listener: (dict "root" $ "text" "0.0.0.0:9090"). */}}
{{- define "grantserver.port" -}}
{{- include "grantserver.text" . | regexFind "[0-9]+$" -}}
{{- end -}}
{{- define "grantserver.redemptionPort" -}}
{{- include "grantserver.port" (dict "root" . "text" .Values.config.listen.redemption) -}}
{{- end -}}
{{- define "grantserver.opsPort" -}}
{{- include "grantserver.port" (dict "root" . "text" .Values.config.listen.ops) -}}
{{- end -}}

{{/* Empty where the admin API is turned off. */}}
{{- define "grantserver.adminPort" -}}
{{- with .Values.config.listen.admin }}{{ include "grantserver.port" (dict "root" $ "text" .) }}{{ end -}}
{{- end -}}

{{- define "grantserver.image" -}}
{{- if not .Values.image.repository -}}
{{- fail "\n\nimage.repository is empty: no image is published yet. Build one (docs/kubernetes.md) and say where it is:\n  --set image.repository=registry.example.com/grantserver\n" -}}
{{- end -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{- define "grantserver.databaseSecret" -}}
{{- .Values.database.existingSecret | default (printf "%s-database" (include "grantserver.fullname" .)) -}}
{{- end -}}

{{/* Whether the sealing keys are where the chart puts them, and not where extraVolumes do. */}}
{{- define "grantserver.mountsSealing" -}}
{{- if hasPrefix "/run/grantserver/" .Values.config.sealing.key_file }}true{{ end -}}
{{- end -}}
{{- define "grantserver.sealingSecret" -}}
{{- .Values.sealing.existingSecret | default (printf "%s-sealing" (include "grantserver.fullname" .)) -}}
{{- end -}}

{{/* What does not go together, said before anything is made. */}}
{{- define "grantserver.check" -}}
{{- $postgresql := eq .Values.database.type "postgresql" -}}
{{- if $postgresql -}}
{{- if and .Values.database.url .Values.database.existingSecret -}}
{{- fail "\n\ndatabase.url and database.existingSecret are both set: give one of them.\n" -}}
{{- else if not (or .Values.database.url .Values.database.existingSecret) -}}
{{- fail "\n\ndatabase.type=postgresql needs the URL of a database: in a Secret of yours (database.existingSecret), which is better, or in database.url.\n" -}}
{{- end -}}
{{- else -}}
{{- if or .Values.database.url .Values.database.existingSecret -}}
{{- fail "\n\nThe URL of a database is given, and database.type is sqlite: set database.type=postgresql.\n" -}}
{{- end -}}
{{- if gt (int .Values.replicas) 1 -}}
{{- fail (printf "\n\nreplicas=%d, and SQLite serves one: its file belongs to one pod. Set database.type=postgresql for several.\n" (int .Values.replicas)) -}}
{{- end -}}
{{- if .Values.autoscaling.enabled -}}
{{- fail "\n\nautoscaling.enabled, and SQLite serves one replica: set database.type=postgresql for several.\n" -}}
{{- end -}}
{{- if .Values.podDisruptionBudget.enabled -}}
{{- fail "\n\npodDisruptionBudget.enabled, and SQLite serves one replica: a budget would keep its node from being drained. Set database.type=postgresql for several replicas.\n" -}}
{{- end -}}
{{- end -}}
{{- if lt (int .Values.terminationGracePeriodSeconds) (add 20 (int .Values.drainSeconds) | int) -}}
{{- fail (printf "\n\nterminationGracePeriodSeconds=%d is too short: the server needs 20, after drainSeconds=%d.\n" (int .Values.terminationGracePeriodSeconds) (int .Values.drainSeconds)) -}}
{{- end -}}
{{- if gt (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas) -}}
{{- fail (printf "\n\nautoscaling.minReplicas=%d is more than autoscaling.maxReplicas=%d.\n" (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas)) -}}
{{- end -}}
{{- if and (eq .Values.config.exposure.type "url") (not .Values.config.reach.url) -}}
{{- fail "\n\nconfig.exposure.type=url says that you have a way in of your own: give its address in config.reach.url.\n" -}}
{{- end -}}
{{- $ports := list -}}
{{- range $name, $address := .Values.config.listen -}}
{{- if has $name (list "redemption" "ops" "admin") -}}
{{- $address = include "grantserver.text" (dict "root" $ "text" $address) -}}
{{- if and (or $address (ne $name "admin")) (not (regexMatch "^(\\[[0-9A-Fa-f:.]+\\]|[^:]+):[0-9]{1,5}$" $address)) -}}
{{- fail (printf "\n\nconfig.listen.%s=%q is no HOST:PORT, such as 0.0.0.0:9090.\n" $name $address) -}}
{{- end -}}
{{- $port := splitList ":" $address | last -}}
{{- if and (has $port $ports) (not (has $port (list "" "0"))) -}}
{{- fail (printf "\n\nTwo of config.listen.redemption, config.listen.ops and config.listen.admin have the same port %s.\n" $port) -}}
{{- end -}}
{{- $ports = append $ports $port -}}
{{- end -}}
{{- end -}}
{{- if and .Values.metrics.serviceMonitor.enabled .Values.metrics.podMonitor.enabled -}}
{{- fail "\n\nmetrics.serviceMonitor and metrics.podMonitor are both enabled: everything would be counted twice. Choose one.\n" -}}
{{- end -}}
{{- if include "grantserver.mountsSealing" . -}}
{{- if and .Values.sealing.existingSecret .Values.sealing.create -}}
{{- fail "\n\nsealing.existingSecret and sealing.create are both set: choose one.\n" -}}
{{- else if not (or .Values.sealing.existingSecret .Values.sealing.create) -}}
{{- fail "\n\nThe keys that protect the database are missing. Make them once, keep a copy elsewhere (docs/kubernetes.md), and name their Secret:\n  --set sealing.existingSecret=grantserver-sealing\nWith `helm install` on a cluster, sealing.create=true makes and keeps them. With tools that render without a cluster it would make others each time.\n" -}}
{{- end -}}
{{- end -}}
{{- if and (not .Values.config.kubernetes.namespaces) (not .Values.config.kubernetes.token_namespaces) (not .Values.config.reach.url) -}}
{{- fail "\n\nNobody is served: set config.kubernetes.namespaces (AccessGrants), config.kubernetes.token_namespaces (AccessTokens), or config.reach.url for local sites alone.\n" -}}
{{- end -}}
{{- range tuple "namespaces" "token_namespaces" -}}
{{- $name := . -}}
{{- $list := list -}}
{{- range index $.Values.config.kubernetes . -}}
{{- $namespace := include "grantserver.text" (dict "root" $ "text" .) -}}
{{- if not (or (eq $namespace "*") (regexMatch "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$" $namespace)) -}}
{{- fail (printf "\n\nconfig.kubernetes.%s has %q, which is no name of a namespace: give names, or * alone for all of them.\n" $name $namespace) -}}
{{- end -}}
{{- if has $namespace $list -}}
{{- fail (printf "\n\nconfig.kubernetes.%s has %q twice: once is enough.\n" $name $namespace) -}}
{{- end -}}
{{- $list = append $list $namespace -}}
{{- end -}}
{{- if and (has "*" $list) (gt (len $list) 1) -}}
{{- fail (printf "\n\nconfig.kubernetes.%s has * and others: * is all of them, and stands alone.\n" .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
