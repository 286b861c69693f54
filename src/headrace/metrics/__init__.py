"""A program's own metrics, and how all metrics of a job are shown.

| module | holds |
|---|---|
| `metricbase` | what programs are given: `MetricGroup` and its metrics, under PyFlink's names |
| `registry` | the metrics of a worker, and their values at one moment as samples |
| `prometheus` | samples as Prometheus reads them, and where it does |

A program reaches its group with `RuntimeContext.get_metrics_group()`. Engine and connectors count for themselves, and
are asked when a reporter wants to know.
"""

from headrace.metrics.metricbase import Counter, Distribution, Meter, Metric, MetricGroup

__all__ = ["Counter", "Distribution", "Meter", "Metric", "MetricGroup"]
