"""Samples as Prometheus reads them, and the address where it does.

Names and labels are those of Flink's `PrometheusReporter`, and so are types: everything is a gauge, also what only goes
up, so that no name ends in `_total`. Label values are as they are, as with its `filterLabelValueCharacters: false`.

Theory of operation. A thread answers requests from what `samples` gives at that moment, which must be quick, and safe
to call from any thread. Nobody waits for it.
"""

from __future__ import annotations

import errno
import logging
import re
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from headrace.errors import ConfigError
from headrace.metrics.registry import Sample, Scope

if TYPE_CHECKING:
    from prometheus_client import Metric

_LOG = logging.getLogger("headrace")

_POLL_S = 0.05
"""How long the end of a job may wait for the thread."""


def metric_name(sample: Sample) -> str:
    """The name of a sample's metric.

    >>> scope = Scope("taskmanager_job_task_operator", groups=(("KafkaSourceReader", None), ("topic", "bids")))
    >>> metric_name(Sample(scope, "records-lag", 7))
    'flink_taskmanager_job_task_operator_KafkaSourceReader_topic_records_lag'
    """
    parts = ("flink", sample.scope.of, *(name for name, _ in sample.scope.groups), sample.name)
    return re.sub("[^a-zA-Z0-9_]", "_", "_".join(parts))


def labels(scope: Scope) -> dict[str, str]:
    """A scope's labels: its own, and pairs of key and value.

    >>> labels(Scope("", (("job_name", "bids"),), (("KafkaSourceReader", None), ("2nd key", "a b"))))
    {'job_name': 'bids', '_2nd_key': 'a b'}
    """
    pairs = (*scope.labels, *((name, value) for name, value in scope.groups if value is not None))
    return {_label_name(name): value for name, value in pairs}


def _label_name(name: str) -> str:
    # Two underscores are Prometheus's own.
    name = re.sub("^_{2,}", "_", re.sub("[^a-zA-Z0-9_]", "_", name))
    return name if re.match("[a-zA-Z_]", name) else f"_{name}"


class Endpoint:
    """Serves metrics from when it is made until it is closed.

    `ports` are tried in turn; 0 is any that is free. `of_all` are labels that all metrics have. Raises `ConfigError` if
    none of the ports can be had.
    """

    def __init__(
        self,
        host: str,
        ports: Sequence[int],
        samples: Callable[[], Iterable[Sample]],
        of_all: Mapping[str, str],
    ) -> None:
        try:
            from prometheus_client import CollectorRegistry, make_wsgi_app
        except ImportError:
            raise ConfigError(
                "metrics are to be shown (`metrics.reporters`), and the library for that is not there: "
                "pip install 'headrace[metrics]'"
            ) from None
        registry = CollectorRegistry()
        registry.register(Collector(samples, of_all))
        self._server = _listen(host, ports, make_wsgi_app(registry))
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{self._server.server_port}/metrics"
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=[_POLL_S], name="headrace-metrics", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Answer nobody any more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Collector:
    """What the library asks for metrics."""

    def __init__(self, samples: Callable[[], Iterable[Sample]], of_all: Mapping[str, str]) -> None:
        self._samples = samples
        self._of_all = of_all
        self._told_of: set[str] = set()

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        from prometheus_client import Metric

        families: dict[str, Metric] = {}
        seen: set[tuple[str, tuple[tuple[str, str], ...]]] = set()
        for sample in self._samples():
            name, of = metric_name(sample), {**self._of_all, **labels(sample.scope)}
            key = (name, tuple(sorted(of.items())))
            if key in seen:
                self._tell_of_collision(name)
                continue
            seen.add(key)
            family = families.get(name)
            if family is None:
                family = families[name] = Metric(name, f"{sample.name} (scope: {sample.scope.of})", "gauge")
            family.add_sample(name, of, sample.value)
        yield from families.values()

    def _tell_of_collision(self, name: str) -> None:
        if name not in self._told_of:
            self._told_of.add(name)
            _LOG.warning("two metrics are both `%s` with the same labels for Prometheus; the first is shown", name)


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Handler(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """A request is no news."""


def _listen(host: str, ports: Sequence[int], app: Callable[..., Iterable[bytes]]) -> WSGIServer:
    wanted = f"`metrics.reporter.prom.port` (`--metrics-port`) is {shown_ports(ports)}"
    try:
        family = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][0]
    except OSError as error:
        raise ConfigError(f"`metrics.reporter.prom.host` is {host!r}, which is not known here: {error}") from None
    server_class = type("_Server", (_Server,), {"address_family": family})
    for port in ports:
        try:
            return make_server(host, port, app, server_class, _Handler)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                continue
            raise ConfigError(f"metrics cannot be shown at {host}, port {port}: {error.strerror}; {wanted}") from None
    raise ConfigError(
        f"metrics cannot be shown: {wanted}, which is in use at {host}. Give another one, a range as 9250-9260 for "
        "several jobs, or 0 for any that is free"
    )


def shown_ports(ports: Sequence[int]) -> str:
    """Ports as one writes them.

    >>> shown_ports([9249]), shown_ports(range(9250, 9261))
    ('9249', '9250-9260')
    """
    return str(ports[0]) if len(ports) == 1 else f"{ports[0]}-{ports[-1]}"
