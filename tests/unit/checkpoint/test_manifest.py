from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.checkpoint.values import INCARNATION, JOB, baseline, checkpoint, marker, region

from headrace.checkpoint.manifest import (
    FileRef,
    Kind,
    OperatorSnapshot,
    RegionSnapshot,
    decode_manifest,
    encode_manifest,
)
from headrace.errors import StateError

FILE = FileRef("epoch-000001-a1-0000000002-count.state", 3, "ab" * 32)
FULL = checkpoint(
    replace(baseline(), superseded=("01d",)),
    9,
    r=region("r", 7, FILE),
    local=RegionSnapshot({"source": OperatorSnapshot(name="numbers")}),
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@pytest.mark.parametrize("manifest", [baseline(), FULL, replace(FULL, kind=Kind.SAVEPOINT)])
def test_manifest_survives_its_file(manifest: object) -> None:
    assert decode_manifest(encode_manifest(manifest), "m.json", JOB) == manifest  # type: ignore[arg-type]


@given(st.dictionaries(st.text(), st.dictionaries(st.text(), json_values, max_size=3), max_size=3))
def test_whatever_a_source_stores_survives(splits: object) -> None:
    operator = OperatorSnapshot(splits=splits)  # type: ignore[arg-type]
    manifest = baseline(r=RegionSnapshot({"source": operator}))

    assert decode_manifest(encode_manifest(manifest), "m.json", JOB) == manifest


def test_manifest_knows_its_marker_and_its_files() -> None:
    assert FULL.marker == marker(FULL, INCARNATION)
    assert FULL.files == (FILE,)


def test_operator_without_any_state_is_empty() -> None:
    assert OperatorSnapshot().is_empty
    assert not OperatorSnapshot({"s": {}}).is_empty


def test_every_half_written_manifest_is_told_apart() -> None:
    data = encode_manifest(FULL)

    for size_bytes in range(len(data) - 2):
        with pytest.raises(StateError, match=r"m\.json is half-written .*`--from`.*`--fresh`"):
            decode_manifest(data[:size_bytes], "m.json", JOB)


def test_every_changed_byte_is_told_apart() -> None:
    data = encode_manifest(baseline())

    for position in range(len(data)):
        changed = bytearray(data)
        changed[position] ^= 1
        try:
            decoded = decode_manifest(bytes(changed), "m.json", JOB)
        except StateError:
            continue
        assert decoded == baseline()  # white space, or the like


def test_edited_manifest_is_told_apart() -> None:
    content = json.loads(encode_manifest(FULL))
    content["regions"]["r"]["operators"]["source"]["splits"]["split-r"]["offset"] = 0

    with pytest.raises(StateError, match=r"m\.json is half-written or altered: .* SHA-256"):
        decode_manifest(json.dumps(content).encode(), "m.json", JOB)


def test_manifest_of_another_job_is_named() -> None:
    with pytest.raises(
        StateError, match=r"m\.json belongs to job 'job', not to 'other'; .*`execution.checkpointing.dir`"
    ):
        decode_manifest(encode_manifest(FULL), "m.json", "other")


def test_manifest_of_the_first_format_is_read() -> None:
    content = json.loads(encode_manifest(FULL)) | {"format": 1}
    for old in content["regions"].values():
        old["finished"] = False
        for operator in old["operators"].values():
            operator["enumerator"] = None
            del operator["name"]
    del content["sha256"]
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))

    data = json.dumps(content | {"sha256": hashlib.sha256(text.encode()).hexdigest()}).encode()

    nameless = FULL.regions | {"local": RegionSnapshot({"source": OperatorSnapshot()})}
    assert decode_manifest(data, "m.json", JOB) == replace(FULL, regions=nameless)


def test_manifest_of_a_newer_version_is_named() -> None:
    content = json.loads(encode_manifest(FULL)) | {"format": 3, "headrace_version": "9.1"}

    with pytest.raises(StateError, match=r"m\.json has format 3, written by Headrace 9\.1; .* a newer one"):
        decode_manifest(json.dumps(content).encode(), "m.json", JOB)


@pytest.mark.parametrize("data", [b"", b"[]", b'{"format": "1"}', b"\xff\xfe", b"null"])
def test_file_that_is_no_manifest_is_named(data: bytes) -> None:
    with pytest.raises(StateError, match=r"m\.json is half-written or damaged"):
        decode_manifest(data, "m.json")
