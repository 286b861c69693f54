"""`headrace checkpoints`: what a state folder holds; `headrace savepoint`: a copy of it, written by the running job.

Both work without the lock, so while the job runs.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import click

from headrace.checkpoint.folder import FolderContents, Status, manifest_key, manifest_name
from headrace.checkpoint.manifest import Kind, Manifest, OperatorSnapshot, decode_manifest
from headrace.checkpoint.storage import SAVEPOINT_NAME, CheckpointFolder
from headrace.cli.tables import print_table, table
from headrace.cli.watch import request_savepoint
from headrace.errors import ExternalError, StateError

_DEFAULT = Path(".headrace")


@click.group()
def checkpoints() -> None:
    """List and show a job's checkpoints."""


@checkpoints.command("list")
@click.argument("folder", default=_DEFAULT, type=click.Path(exists=True, file_okay=False, path_type=Path))
def list_checkpoints(folder: Path) -> None:
    """List the checkpoints in a state folder, oldest first, for every job in it.

    FOLDER is a state folder or one job's folder in it.  [default: .headrace]
    """
    jobs = jobs_in(folder)
    if not jobs:
        raise StateError(f"{folder} holds no checkpoints; name the state folder of a job, or a job's folder in it")
    for path in jobs:
        job, contents = read_job(path)
        click.echo(f"job {job!r} in {path}")
        rows = table(">epoch", ">number", "status", "time", ">splits", ">state", "file")
        for manifest in contents.manifests:
            rows.add_row(
                str(manifest.id.epoch),
                str(manifest.id.number),
                contents.status(manifest).value.lower(),
                _when(manifest),
                str(sum(len(op.splits) for region in manifest.regions.values() for op in region.operators.values())),
                _size(sum(file.size_bytes for file in manifest.files)),
                manifest_name(manifest),
            )
        print_table(rows)
        for damaged in contents.damaged:
            click.echo(f"damaged: {damaged.problem}", err=True)
        if contents.newest is not None and contents.status(contents.newest) is Status.PREPARED:
            click.echo(
                "whether the newest one is committed is known to its markers, which the next start asks"
                if any(region.location for region in contents.newest.regions.values())
                else "the newest one is what the next start takes"
            )


@checkpoints.command("show")
@click.argument("path", type=click.Path(exists=True, path_type=Path))
def show_checkpoint(path: Path) -> None:
    """Show one checkpoint: positions, state, and where its marker is kept.

    PATH is a checkpoint's file, a savepoint's folder, or a job's folder (its newest checkpoint).
    """
    manifest, status = _find(path)
    click.echo(f"job {manifest.job!r}, {status.lower()} {manifest.id}, {_when(manifest)}")
    click.echo(f"incarnation {manifest.incarnation}, {manifest.max_parallelism} key groups", nl=False)
    click.echo(f", written by Headrace {manifest.headrace_version}" if manifest.headrace_version else "")
    if manifest.predecessor is not None:
        click.echo(f"falls back to {manifest.predecessor}")
    for name, region in sorted(manifest.regions.items()):
        click.echo(f"\nregion {name}")
        if region.location is not None:
            click.echo("  marker: " + _pairs(region.location))
        for operator_id, operator in sorted(region.operators.items()):
            _show_operator(operator_id, operator)


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("target", type=click.Path(file_okay=False, path_type=Path))
@click.option("--timeout", default=600.0, show_default=True, help="Seconds to wait for it.")
def savepoint(folder: Path, target: Path, timeout: float) -> None:
    """Have a running job write a savepoint, a copy of its next checkpoint that nothing removes.

    FOLDER is the state folder of the job, which `headrace run` has started on this machine, or the job's folder in it;
    of several jobs in it, the one that runs is asked. The savepoint gets a folder of its own below TARGET, whose path
    is printed; `headrace run --from` starts from it.
    """
    running = [job for job in jobs_in(folder) if _folder_at(job).running() is not None]
    job = running[0] if len(running) == 1 else the_job_in(folder)
    click.echo(request_savepoint(job, target, timeout, lambda: _folder_at(job).running() is not None))


def _show_operator(operator_id: str, operator: OperatorSnapshot) -> None:
    click.echo(f"  operator {operator_id}" + (f", {operator.name}" if operator.name not in ("", operator_id) else ""))
    for split_id, split in sorted(operator.splits.items()):
        click.echo(f"    split {split_id}: {_pairs(split)}")
    for keyed in operator.keyed:
        groups = f"key groups {keyed.first_group} to {keyed.last_group}"
        click.echo(f"    state, {groups}: {_size(keyed.file.size_bytes)} in {keyed.file.name}")


def _find(path: Path) -> tuple[Manifest, str]:
    """The checkpoint or savepoint that `path` means, and how far it has come."""
    savepoint = path / SAVEPOINT_NAME if path.is_dir() else path
    if savepoint.name == SAVEPOINT_NAME and savepoint.is_file():
        return decode_manifest(savepoint.read_bytes(), str(savepoint)), Kind.SAVEPOINT.value
    if path.is_file():
        manifest = decode_manifest(path.read_bytes(), str(path))
        return manifest, read_job(path.resolve().parent)[1].status(manifest).value
    _, contents = read_job(the_job_in(path))
    if contents.newest is None:
        raise StateError(contents.damaged[0].problem)
    return contents.newest, contents.status(contents.newest).value


def jobs_in(folder: Path) -> list[Path]:
    """The job folders that `folder` is or holds."""
    return [path for path in (folder, *sorted(folder.iterdir())) if path.is_dir() and _manifests(path)]


def the_job_in(folder: Path) -> Path:
    """The job folder that `folder` is or holds. StateError if it holds several, or none."""
    jobs = jobs_in(folder)
    if len(jobs) != 1:
        what = ", ".join(job.name for job in jobs) or "none"
        raise StateError(f"{folder} holds the checkpoints of {len(jobs)} jobs ({what}); name one job's folder in it")
    return jobs[0]


def _manifests(path: Path) -> list[str]:
    return sorted(file.name for file in path.iterdir() if manifest_key(file.name) is not None)


def read_job(path: Path) -> tuple[str, FolderContents]:
    """A job's name, as its manifests have it, and what its folder holds."""
    job = path.name
    for name in _manifests(path):
        try:
            job = decode_manifest((path / name).read_bytes(), name).job
            break
        except (StateError, FileNotFoundError):  # damaged, and reported below; or just removed by the running job
            continue
    contents = _folder_at(path, job).read()
    if not contents.manifests and not contents.damaged:
        raise ExternalError(f"{path} holds no checkpoints any more; is the job starting over just now?")
    return job, contents


def _folder_at(path: Path, job: str = "") -> CheckpointFolder:
    folder = CheckpointFolder(path.parent, job)
    # A copy of a job's folder may have any name.
    folder.path = path
    return folder


def _when(manifest: Manifest) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(manifest.created_at_ms / 1000))


def _size(size_bytes: int) -> str:
    """As `17 B` or `1.4 MB`."""
    size, unit = float(size_bytes), "B"
    for larger in ("kB", "MB", "GB"):
        if size < 1000:
            break
        size, unit = size / 1000, larger
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"


def _pairs(mapping: Mapping[str, object]) -> str:
    return ", ".join(f"{key} {value}" for key, value in mapping.items())
