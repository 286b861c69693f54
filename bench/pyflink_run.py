"""Runs a PyFlink program in thread mode, with Kafka's connector, without a line of it changed.

    python pyflink_run.py CONNECTOR.jar PROGRAM.py ARGUMENTS...

What a cluster's configuration would say is said here: thread mode, object reuse, the connector's jar.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

from pyflink.common import Configuration
from pyflink.datastream import StreamExecutionEnvironment


def main() -> None:
    connector, program, *arguments = sys.argv[1:]
    original = StreamExecutionEnvironment.get_execution_environment

    def with_settings(configuration: Configuration | None = None) -> StreamExecutionEnvironment:
        configuration = configuration or Configuration()
        configuration.set_string("python.execution-mode", "thread")
        configuration.set_string("python.executable", sys.executable)
        configuration.set_string("pipeline.object-reuse", "true")
        # A failure ends the run instead of making it slow.
        configuration.set_string("restart-strategy.type", "none")
        configuration.set_string("pipeline.jars", Path(connector).as_uri())
        return original(configuration)

    StreamExecutionEnvironment.get_execution_environment = staticmethod(with_settings)
    sys.argv = [program, *arguments]
    sys.path.insert(0, str(Path(program).parent))
    runpy.run_path(program, run_name="__main__")


if __name__ == "__main__":
    main()
