#!/bin/sh
# Writes the operator's form of deploy/prometheus/alerts.yml, after an edit of that file.
cd "$(dirname "$0")/../.." || exit 1
{
  printf '# deploy/prometheus/alerts.yml in the form of the Prometheus operator; written by\n'
  printf '# tests/deploy/write_prometheus_rule.sh.\n'
  printf 'apiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\n'
  printf 'metadata:\n  name: triptych\nspec:\n'
  grep -v '^#' deploy/prometheus/alerts.yml | sed 's/^/  /'
} >deploy/kubernetes/components/monitoring/prometheus_rule.yaml
