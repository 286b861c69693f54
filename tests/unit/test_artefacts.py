"""Artefacts, with a fetch that never leaves this machine."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.processes import wait_until

from headrace.artefacts import Artefact, ArtefactSet, cache_dir, maven_fetch, obtain
from headrace.broker import KAFKA_VERSIONS
from headrace.errors import ConfigError, ExternalError


def artefact(name: str, content: bytes) -> Artefact:
    return Artefact(f"org.example:{name}:1.0", hashlib.sha256(content).hexdigest(), len(content))


A = artefact("a", b"alpha")
B = artefact("b", b"bravo")
BOTH = ArtefactSet("two letters", ("org.example:a:1.0",), (A, B))


class Repository:
    """Holds the content of artefacts; counts what is fetched from it."""

    def __init__(self, **content: bytes | Exception) -> None:
        self.content = content or {"a": b"alpha", "b": b"bravo"}
        self.fetched: list[str] = []

    def __call__(self, wanted: Artefact, folder: Path, received: Callable[[int], None]) -> Path:
        name = wanted.coordinate.split(":")[1]
        self.fetched.append(name)
        content = self.content[name]
        file = folder / f"{name}.jar"
        if isinstance(content, Exception):
            file.write_bytes(b"alp")
            raise content
        file.write_bytes(content)
        received(len(content))
        return file


def files(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file() and p.name != ".lock")


def test_files_are_fetched_once_and_returned_in_the_lock_files_order(tmp_path: Path) -> None:
    repository = Repository()
    first = obtain(BOTH, cache=tmp_path, fetch=repository)
    assert obtain(BOTH, cache=tmp_path, fetch=repository) == first
    assert [path.read_bytes() for path in first] == [b"alpha", b"bravo"]
    assert sorted(repository.fetched) == ["a", "b"]


def test_nothing_is_said_when_nothing_is_fetched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    obtain(BOTH, cache=tmp_path, fetch=Repository())
    assert "downloading two letters: 2 files" in capsys.readouterr().err
    obtain(BOTH, cache=tmp_path, fetch=Repository())
    assert capsys.readouterr().err == ""


def test_a_damaged_file_is_fetched_again(tmp_path: Path) -> None:
    path = obtain(BOTH, cache=tmp_path, fetch=Repository())[0]
    path.write_bytes(b"alphA")
    repository = Repository()
    assert obtain(BOTH, cache=tmp_path, fetch=repository)[0].read_bytes() == b"alpha"
    assert repository.fetched == ["a"]


def test_other_bytes_than_locked_are_an_error_and_are_not_kept(tmp_path: Path) -> None:
    with pytest.raises(ExternalError, match=r"org\.example:a:1\.0 arrived with SHA-256") as error:
        obtain(ArtefactSet("one", (), (A,)), cache=tmp_path, fetch=Repository(a=b"malice"))
    assert not error.value.retriable
    assert files(tmp_path) == []


def test_a_download_that_fails_leaves_nothing_of_its_own_but_keeps_what_was_complete(tmp_path: Path) -> None:
    obtain(ArtefactSet("one", (), (B,)), cache=tmp_path, fetch=Repository())
    with pytest.raises(ExternalError, match="no network"):
        obtain(BOTH, cache=tmp_path, fetch=Repository(a=ExternalError("no network"), b=b"bravo"))
    assert files(tmp_path) == ["artefacts/org/example/b/1.0/b-1.0.jar"]


def test_what_a_killed_download_left_is_removed_by_the_next(tmp_path: Path) -> None:
    left = tmp_path / "artefacts" / ".download-killed" / "0"
    left.mkdir(parents=True)
    (left / "a.jar").write_bytes(b"al")
    obtain(BOTH, cache=tmp_path, fetch=Repository())
    assert files(tmp_path) == ["artefacts/org/example/a/1.0/a-1.0.jar", "artefacts/org/example/b/1.0/b-1.0.jar"]


def test_a_second_process_waits_and_then_finds_the_files_there(tmp_path: Path) -> None:
    obtain(BOTH, cache=tmp_path, fetch=Repository())
    complete = tmp_path / "artefacts" / A.path
    aside = tmp_path / "aside"
    complete.rename(aside)
    repository = Repository()
    with (tmp_path / "artefacts" / ".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        waiting = threading.Thread(target=obtain, args=(BOTH,), kwargs={"cache": tmp_path, "fetch": repository})
        # Not pytest's own capture: what is written while it empties itself is lost.
        with contextlib.redirect_stderr(io.StringIO()) as said:
            waiting.start()
            wait_until(lambda: "waiting for another process" in said.getvalue(), "the second says that it waits")
        aside.rename(complete)
    waiting.join()
    assert repository.fetched == []


def test_a_cache_folder_that_cannot_be_used_is_named_with_its_setting(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ExternalError, match=r"file/artefacts cannot be used: .*`HEADRACE_CACHE_DIR`"):
        obtain(BOTH, cache=tmp_path / "file", fetch=Repository())


def test_missing_extra_is_named() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "jgo.maven", None)
        with pytest.raises(ConfigError, match=r"pip install 'headrace\[broker\]'"):
            maven_fetch()


def test_no_network_is_an_error_without_the_repositorys_address(tmp_path: Path) -> None:
    # Port 1 of the loopback address: nothing listens there.
    fetch = maven_fetch({"HEADRACE_MAVEN_REPOSITORIES": "http://ada:secret@127.0.0.1:1/maven2"})
    with pytest.raises(ExternalError, match=r"could not be downloaded \(ConnectionError\)") as error:
        obtain(BOTH, cache=tmp_path, fetch=fetch)
    assert error.value.retriable
    assert "secret" not in str(error.value)
    assert files(tmp_path) == []


def test_a_lock_file_reads_as_it_was_written(tmp_path: Path) -> None:
    BOTH.dump(tmp_path / "lock.json")
    assert ArtefactSet.load(tmp_path / "lock.json") == BOTH


@pytest.mark.parametrize("version", KAFKA_VERSIONS)
def test_every_kafka_that_is_offered_has_its_jars_locked(version: str) -> None:
    import headrace.broker

    kafka = ArtefactSet.load(Path(headrace.broker.__file__).with_name(f"kafka-{version}.json"))
    assert f"org.apache.kafka:kafka_2.13:{version}" in [a.coordinate for a in kafka.artefacts]
    assert all(len(a.sha256) == 64 and a.size_bytes > 0 for a in kafka.artefacts)
    assert len({a.path for a in kafka.artefacts}) == len(kafka.artefacts)


@pytest.mark.parametrize(
    ("environ", "platform", "expected"),
    [
        ({"HEADRACE_CACHE_DIR": "/x", "XDG_CACHE_HOME": "/y"}, "linux", Path("/x")),
        ({"XDG_CACHE_HOME": "/y"}, "linux", Path("/y/headrace")),
        ({}, "linux", Path.home() / ".cache/headrace"),
        ({"XDG_CACHE_HOME": "/y"}, "darwin", Path.home() / "Library/Caches/headrace"),
    ],
)
def test_cache_folder_follows_the_setting_then_the_platform(
    environ: dict[str, str], platform: str, expected: Path
) -> None:
    assert cache_dir(environ, platform) == expected
