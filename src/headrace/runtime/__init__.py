"""The embedded engine: coordinator, workers, operators.

`run_job` and `start_job` run a plan; everything else is for reading: `job` (attempts), `coordinator` (starts and
checkpoints), `worker` (what a lane does), `pipeline` (a source at work), `loop` (the fused chain). Where lanes have
processes of their own: `team` (the coordinator's side), `lane` (the worker's).
"""

from headrace.runtime.job import Job, JobProgress, run_job, start_job

__all__ = ["Job", "JobProgress", "run_job", "start_job"]
