"""Flink, for comparison: PyFlink in a virtual environment of its own, its jars, and our two jobs in Java.

Everything is locked: the packages in `peers.txt` (from `peers.in`), Kafka's connector in `flink/connector.json`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from headrace.artefacts import ArtefactSet, obtain

HERE = Path(__file__).parent
FLINK_VERSION = "2.2.0"

_VENV = HERE / ".venv-peers"
_BUILD = HERE / ".build"
_JARS = Path("pyflink", "lib", "*")

# What Flink's own scripts pass to the JVM, as far as these jobs need it.
_OPENS = tuple(
    f"--add-opens=java.base/{package}=ALL-UNNAMED"
    for package in ("java.lang", "java.net", "java.io", "java.nio", "sun.nio.ch", "java.util", "java.time")
)


@dataclass(frozen=True, slots=True)
class Peers:
    """Flink, ready to run. `tuned_clients`: with the settings that help its Kafka clients most, not their defaults."""

    python: Path
    java_home: Path
    java_version: str
    connector: Path
    site_packages: Path
    classes: Path
    pyflink_jobs: Path
    tuned_clients: bool

    def java_command(self, main_class: str) -> list[str]:
        class_path = os.pathsep.join((str(self.classes), str(self.site_packages / _JARS), str(self.connector)))
        return [str(self.java_home / "bin" / "java"), *_OPENS, "-cp", class_path, main_class]

    def pyflink_command(self, program: str) -> list[str]:
        runner = HERE / "pyflink_run.py"
        return [str(self.python), str(runner), str(self.connector), str(self.pyflink_jobs / program)]


def prepare(say: Callable[[str], None], *, tuned_clients: bool) -> Peers:
    """Installs and compiles what is not there yet. Raises `RuntimeError` with what to do if something is missing."""
    java_home = _java_home()
    python = _VENV / "bin" / "python"
    lock = (HERE / "peers.txt").read_text(encoding="utf-8")
    installed = _VENV / "installed.txt"
    if not installed.exists() or installed.read_text(encoding="utf-8") != lock:
        if sys.version_info[:2] != (3, 11):
            raise RuntimeError(f"the peers are locked for Python 3.11, and this is {sys.version.split()[0]}")
        say(f"installing PyFlink {FLINK_VERSION} into {_VENV.name} (about 700 MB, once)")
        shutil.rmtree(_VENV, ignore_errors=True)
        _check_call([sys.executable, "-m", "venv", str(_VENV)])
        _check_call([str(python), "-m", "pip", "install", "-q", "--require-hashes", "-r", str(HERE / "peers.txt")])
        installed.write_text(lock, encoding="utf-8")
    (site_packages,) = _VENV.glob("lib/python*/site-packages")
    (connector,) = obtain(ArtefactSet.load(HERE / "flink" / "connector.json"))
    classes = _BUILD / "flink"
    shutil.rmtree(classes, ignore_errors=True)
    classes.mkdir(parents=True)
    sources = sorted(str(each) for each in (HERE / "flink").glob("*.java"))
    class_path = f"{site_packages / _JARS}{os.pathsep}{connector}"
    _check_call([str(java_home / "bin" / "javac"), "-cp", class_path, "-d", str(classes), *sources])
    pyflink_jobs = _with_imports_changed()
    java_version = _java_version(java_home)
    return Peers(python, java_home, java_version, connector, site_packages, classes, pyflink_jobs, tuned_clients)


def _with_imports_changed() -> Path:
    """Our jobs with `headrace` in the imports changed to `pyflink`, and nothing else."""
    folder = _BUILD / "pyflink"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for program in (HERE / "jobs").glob("*.py"):
        text = program.read_text(encoding="utf-8").replace("\nfrom headrace.", "\nfrom pyflink.")
        (folder / program.name).write_text(text, encoding="utf-8")
    return folder


def _java_home() -> Path:
    named = os.environ.get("JAVA_HOME")
    javac = shutil.which("javac", path=str(Path(named) / "bin") if named else None)
    if javac is None:
        raise RuntimeError(
            "PEERS=all compiles Flink jobs and found no `javac`: install a JDK (17 or 21) or set `JAVA_HOME` to one"
        )
    return Path(javac).resolve().parents[1]


def _java_version(java_home: Path) -> str:
    shown = subprocess.run([java_home / "bin" / "java", "-version"], capture_output=True, text=True, check=True).stderr
    return shown.splitlines()[0]


def _check_call(command: list[str]) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout[-3000:]}")
