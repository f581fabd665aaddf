{{- define "podid.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "podid.fullname" -}}
{{- /* With --reuse-values an upgrade has the old chart's defaults, and none for what is new. */ -}}
{{- range $key := list "cleanup" -}}
{{- if not (hasKey $.Values $key) -}}
{{- fail (printf "the values are those of another version of this chart (`%s` is missing): upgrade with --reset-then-reuse-values in place of --reuse-values" $key) -}}
{{- end -}}
{{- end -}}
{{- default (include "podid.name" .) .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "podid.labels" -}}
app.kubernetes.io/name: {{ include "podid.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- /* With (list . "nmi"): what selects a component's pods. Never changed: selectors are immutable. */ -}}
{{- define "podid.selector" -}}
{{- $top := index . 0 -}}
app.kubernetes.io/name: {{ include "podid.name" $top }}
app.kubernetes.io/instance: {{ $top.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- /* Labels as key=value,key=value */ -}}
{{- define "podid.pairs" -}}
{{- $pairs := list -}}
{{- range $key, $value := . }}{{ $pairs = append $pairs (printf "%s=%s" $key $value) }}{{ end -}}
{{- join "," $pairs -}}
{{- end -}}

{{- /* The start-up taint's values, as YAML. Read with care: an upgrade with --reuse-values from a chart that had none has none.
Without a controller nobody would take the taint off. */ -}}
{{- define "podid.startupTaint" -}}
{{- $values := .Values.startupTaint | default dict -}}
enabled: {{ and .Values.controller.enabled (dig "enabled" true $values) }}
key: {{ dig "key" "podid.dev/agent-not-ready" $values }}
admissionPolicy: {{ dig "admissionPolicy" "auto" $values }}
{{- end -}}

{{- /* With (list . .Values.nmi) */ -}}
{{- define "podid.image" -}}
{{- $top := index . 0 -}}
{{- $one := index . 1 -}}
{{- printf "%s/%s:%s" $top.Values.image.repository $one.image (coalesce $one.tag $top.Values.image.tag $top.Chart.AppVersion) -}}
{{- end -}}

{{- /* Two interceptors never run beside each other. Empty where the cluster cannot be asked (helm template). The sentences
are those of `podid install`. */ -}}
{{- define "podid.refuseOther" -}}
{{- $own := printf "%s/%s-nmi" .Release.Namespace (include "podid.fullname" .) -}}
{{- range (lookup "apps/v1" "DaemonSet" "" "").items -}}
{{- $name := printf "%s/%s" .metadata.namespace .metadata.name -}}
{{- range .spec.template.spec.containers -}}
{{- if regexMatch "aad-pod-identity/nmi([:@]|$)" .image -}}
{{- fail (printf "aad-pod-identity already intercepts the metadata service here: its NMI is DaemonSet %s; remove it first (helm uninstall aad-pod-identity, or az aks update --disable-pod-identity), then install podid" $name) -}}
{{- end -}}
{{- if and (ne $name $own) (regexMatch "/podid-nmi([:@]|$)" .image) -}}
{{- fail (printf "podid already intercepts the metadata service here: its agent is DaemonSet %s; upgrade that one, or uninstall it first" $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range (lookup "apps/v1" "Deployment" "" "").items -}}
{{- $name := printf "%s/%s" .metadata.namespace .metadata.name -}}
{{- range .spec.template.spec.containers -}}
{{- if regexMatch "aad-pod-identity/mic([:@]|$)" .image -}}
{{- fail (printf "aad-pod-identity already assigns identities here: its MIC is Deployment %s; remove it first (helm uninstall aad-pod-identity), then install podid" $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
