"""The demonstration, from its beginning to its end, and that it would notice."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from headrace.cli.demo import report
from headrace.demo import demonstration
from headrace.errors import ExternalError

RECORDS = 200_000


def test_the_demonstration_loses_and_repeats_nothing() -> None:
    command = [sys.executable, "-m", "headrace", "demo", "--records", str(RECORDS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=dict(os.environ), check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("kill -9") == 3
    figures = dict(re.findall(r"^  (.*?)  +([\d,]+)$", done.stdout, re.M))
    assert figures["records in"] == figures["results out"] == f"{RECORDS + RECORDS // 100:,}"
    assert figures["lost"] == figures["repeated"] == figures["sources with wrong counts"] == "0"


def test_a_job_that_repeats_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = demonstration.JOB.read_text(encoding="utf-8")
    weaker = tmp_path / "weaker.py"
    weaker.write_text(text.replace("DeliveryGuarantee.EXACTLY_ONCE", "DeliveryGuarantee.AT_LEAST_ONCE"), "utf-8")
    monkeypatch.setattr(demonstration, "JOB", weaker)
    outcome = demonstration.demonstrate(2 * RECORDS, "3.7.2", say=lambda line: None)
    assert outcome.verdict.repeated > 0
    assert outcome.verdict.lost == 0
    assert not outcome.verdict.holds
    assert "NOT exactly once" in report(outcome)


def test_a_job_that_fails_is_shown_with_what_it_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("raise RuntimeError('no job')", "utf-8")
    monkeypatch.setattr(demonstration, "JOB", broken)
    with pytest.raises(ExternalError, match=r"(?s)ended by itself \(status 1\) with 0 of .*RuntimeError: no job"):
        demonstration.demonstrate(RECORDS, "3.7.2", say=lambda line: None)
