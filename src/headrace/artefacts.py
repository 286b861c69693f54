"""Files that come by Maven coordinates: fetched once, verified by SHA-256, kept in a cache per user.

A *lock file* (JSON, beside the code that needs it) names every file of a set: coordinate, SHA-256, size. Nothing is
resolved at run time; what is not in the lock file is never on a class path. `pin` writes such a set.

Invariants:

- A file in the cache has its final name only after its hash was found right and its bytes were synced; a download
  that fails, or is killed, leaves nothing but a temporary folder, which the next one removes.
- Every use hashes what it is about to use. A damaged file is fetched again.
- Two processes that need the same files fetch them once: the second waits for the first one's lock.

Settings, from the environment: `HEADRACE_CACHE_DIR` (where to keep the files) and `HEADRACE_MAVEN_REPOSITORIES`
(comma-separated addresses of repositories to ask instead of the default, for a company with a mirror).
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from headrace.errors import ConfigError, ExternalError

if TYPE_CHECKING:
    from jgo.maven import MavenContext

_DOWNLOADS_AT_ONCE = 8
_TIMEOUT_S = 60

Fetch = Callable[["Artefact", Path, Callable[[int], None]], Path]
"""Downloads one artefact into a folder, calls back with each number of bytes received, and returns the file."""


@dataclass(frozen=True, slots=True)
class Artefact:
    """One file: Maven coordinate `group:artefact[:packaging[:classifier]]:version`, SHA-256 in hex, size in bytes."""

    coordinate: str
    sha256: str
    size_bytes: int

    @property
    def path(self) -> Path:
        """Where it lies below the cache folder: the layout of a Maven repository.

        >>> Artefact("org.slf4j:slf4j-api:1.7.36", "00", 1).path.as_posix()
        'org/slf4j/slf4j-api/1.7.36/slf4j-api-1.7.36.jar'
        >>> Artefact("io.apicurio:apicurio-registry-app:tar.gz:all:3.3.3", "00", 1).path.name
        'apicurio-registry-app-3.3.3-all.tar.gz'
        """
        group, name, packaging, classifier, version = self.parts
        file = f"{name}-{version}-{classifier}" if classifier else f"{name}-{version}"
        return Path(*group.split("."), name, version, f"{file}.{packaging}")

    @property
    def parts(self) -> tuple[str, str, str, str, str]:
        """Group, artefact, packaging (`jar`, unless it is said), classifier (mostly none) and version."""
        group, name, *kind, version = self.coordinate.split(":")
        packaging, classifier = [*kind, *("jar", "")[len(kind) :]]
        return group, name, packaging, classifier, version


@dataclass(frozen=True, slots=True)
class ArtefactSet:
    """Files that are used together. `roots` are the coordinates that the set was resolved from."""

    name: str
    roots: tuple[str, ...]
    artefacts: tuple[Artefact, ...]

    @property
    def size_bytes(self) -> int:
        return sum(artefact.size_bytes for artefact in self.artefacts)

    @classmethod
    def load(cls, lock_file: Path) -> ArtefactSet:
        """Reads a lock file."""
        content = json.loads(lock_file.read_text(encoding="utf-8"))
        return cls(
            content["name"],
            tuple(content["roots"]),
            tuple(Artefact(a["coordinate"], a["sha256"], a["size"]) for a in content["artefacts"]),
        )

    def dump(self, lock_file: Path) -> None:
        """Writes a lock file."""
        content = {
            "name": self.name,
            "roots": list(self.roots),
            "artefacts": [
                {"coordinate": a.coordinate, "sha256": a.sha256, "size": a.size_bytes} for a in self.artefacts
            ],
        }
        lock_file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def cache_dir(environ: Mapping[str, str] = os.environ, platform: str = sys.platform) -> Path:
    """The folder per user that downloads are kept in: `HEADRACE_CACHE_DIR`, else the platform's own place.

    >>> cache_dir({"HEADRACE_CACHE_DIR": "/big/disk"}).as_posix()
    '/big/disk'
    >>> cache_dir({"XDG_CACHE_HOME": "/home/ada/.cache"}, "linux").as_posix()
    '/home/ada/.cache/headrace'
    """
    if chosen := environ.get("HEADRACE_CACHE_DIR"):
        return Path(chosen).expanduser()
    if platform == "darwin":
        return Path.home() / "Library" / "Caches" / "headrace"
    if base := environ.get("XDG_CACHE_HOME"):
        return Path(base) / "headrace"
    return Path.home() / ".cache" / "headrace"


def obtain(artefacts: ArtefactSet, *, cache: Path | None = None, fetch: Fetch | None = None) -> list[Path]:
    """The files of a set, in the lock file's order, fetched if they are not there or damaged.

    Progress goes to stderr, and only if something is fetched. `cache` defaults to `cache_dir()`, `fetch` to a
    download from the Maven repositories in force.

    Raises `ConfigError` if the `broker` extra is not installed, and `ExternalError` if a file cannot be had, or
    arrives with other bytes than the lock file says.
    """
    folder = (cache or cache_dir()) / "artefacts"
    try:
        missing = _missing(artefacts, folder)
        if missing:
            folder.mkdir(parents=True, exist_ok=True)
            with _exclusive(folder / ".lock"):
                # Whoever held the lock before may have fetched them.
                missing = _missing(artefacts, folder)
                if missing:
                    _download(artefacts.name, missing, folder, fetch or maven_fetch())
    except OSError as error:
        raise ExternalError(
            f"the cache folder {folder} cannot be used: {error}; `HEADRACE_CACHE_DIR` names another one",
            retriable=False,
        ) from error
    return [folder / artefact.path for artefact in artefacts.artefacts]


def _missing(artefacts: ArtefactSet, folder: Path) -> list[Artefact]:
    return [a for a in artefacts.artefacts if not _is_intact(folder / a.path, a)]


def _is_intact(file: Path, artefact: Artefact) -> bool:
    try:
        return file.stat().st_size == artefact.size_bytes and sha256_of(file) == artefact.sha256
    except FileNotFoundError:
        return False


def sha256_of(file: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextlib.contextmanager
def _exclusive(lock_file: Path) -> Iterator[None]:
    with lock_file.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("waiting for another process that is downloading the same files", file=sys.stderr)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _download(name: str, missing: list[Artefact], folder: Path, fetch: Fetch) -> None:
    # We hold the lock, so temporary folders that are still here belong to processes that died.
    for left in folder.glob(".download-*"):
        shutil.rmtree(left, ignore_errors=True)
    temporary = Path(tempfile.mkdtemp(prefix=".download-", dir=folder))

    def one(number: int, artefact: Artefact, received: Callable[[int], None]) -> None:
        own = temporary / str(number)
        own.mkdir()
        file = fetch(artefact, own, received)
        found = sha256_of(file)
        if found != artefact.sha256:
            raise ExternalError(
                f"{artefact.coordinate} arrived with SHA-256 {found}, but the lock file says {artefact.sha256}; "
                "it was thrown away. A proxy or a mirror (`HEADRACE_MAVEN_REPOSITORIES`) may have altered it",
                retriable=False,
            )
        with file.open("rb") as stream:
            os.fsync(stream.fileno())
        target = folder / artefact.path
        target.parent.mkdir(parents=True, exist_ok=True)
        # Crash here: the file is complete under its temporary name, and the next download starts over.
        file.replace(target)

    try:
        with (
            _progress(name, missing, sys.stderr) as received,
            ThreadPoolExecutor(_DOWNLOADS_AT_ONCE, thread_name_prefix="download") as pool,
        ):
            futures = [pool.submit(one, number, artefact, received) for number, artefact in enumerate(missing)]
            try:
                for future in futures:
                    future.result()
            finally:
                for future in futures:
                    future.cancel()
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def _progress(name: str, missing: list[Artefact], out: TextIO) -> Iterator[Callable[[int], None]]:
    """Shows a bar on a terminal, a line at the beginning and one at the end elsewhere."""
    total = sum(artefact.size_bytes for artefact in missing)
    size = f"{len(missing)} {'file' if len(missing) == 1 else 'files'}, {total / 1e6:.0f} MB"
    if out.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(file=out)) as bar:
            task = bar.add_task(f"downloading {name}", total=total)
            yield lambda count: bar.advance(task, count)
        return
    print(f"downloading {name}: {size}, once", file=out, flush=True)
    start = time.monotonic()
    yield lambda count: None
    print(f"downloaded {name} in {time.monotonic() - start:.0f} s", file=out, flush=True)


def maven_fetch(environ: Mapping[str, str] = os.environ) -> Fetch:
    """Downloads from Maven repositories: jgo's default, or those that `HEADRACE_MAVEN_REPOSITORIES` names."""
    _import_jgo()
    from jgo.maven import PythonResolver
    from requests import RequestException

    def fetch(artefact: Artefact, folder: Path, received: Callable[[int], None]) -> Path:
        @contextlib.contextmanager
        def report(_name: str, _size: int) -> Iterator[Callable[[int], None]]:
            yield received

        context = _context(folder, environ, PythonResolver(progress_callback=report))
        group, name, packaging, classifier, version = artefact.parts
        try:
            file: Path = context.project(group, name).at_version(version).artifact(classifier, packaging).resolve()
        except (RequestException, RuntimeError) as error:
            # Their text may hold a mirror's address with a password in it: name the kind only.
            what = "it is in none of the repositories" if isinstance(error, RuntimeError) else type(error).__name__
            raise ExternalError(
                f"{artefact.coordinate} could not be downloaded ({what}); nothing was kept of it. Check the network, "
                "or name a mirror in `HEADRACE_MAVEN_REPOSITORIES`"
            ) from None
        return file

    return fetch


def pin(name: str, roots: Iterable[str]) -> ArtefactSet:
    """Resolves coordinates with all they need at run time, downloads every file, and returns the set to lock.

    For those who maintain a lock file; nothing calls it at run time.
    """
    _import_jgo()
    from jgo.maven import PythonResolver

    roots = tuple(roots)
    with tempfile.TemporaryDirectory() as folder:
        context = _context(Path(folder), os.environ, PythonResolver())
        inputs, needed = context.resolver.resolve([context.create_dependency(root) for root in roots])
        files = {f"{d.groupId}:{d.artifactId}:{d.version}": d.artifact.resolve() for d in (*inputs, *needed)}
        pinned = tuple(Artefact(c, sha256_of(f), f.stat().st_size) for c, f in sorted(files.items()))
    return ArtefactSet(name, roots, pinned)


def _import_jgo() -> None:
    try:
        import jgo.maven  # noqa: F401
    except ImportError:
        raise ConfigError("downloading Kafka needs an extra: pip install 'headrace[broker]'") from None


def _context(folder: Path, environ: Mapping[str, str], resolver: Any) -> MavenContext:
    from jgo.maven import MavenContext

    listed = [url.strip().rstrip("/") for url in environ.get("HEADRACE_MAVEN_REPOSITORIES", "").split(",")]
    repositories = {f"repository-{number}": url for number, url in enumerate(listed) if url}
    # None: jgo's own default.
    return MavenContext(resolver, repo_cache=folder, remote_repos=repositories or None, timeout=_TIMEOUT_S)
