"""Starts a program and ends it when whoever started *this* program is gone, however it went.

Run as `python supervisor.py LOG REMOVE COMMAND...` with a pipe as standard input; only the standard library is used.

Theory of operation: the owner holds the write end of the pipe and never writes. When the owner dies, `kill -9`
included, the kernel closes that end; the read here returns, the program is killed, and the folder REMOVE (unless it
is empty text) is deleted, as nobody else will. This works alike on Linux and macOS, and has no process id that
could be reused in between: the program is this process's own child.

Standard output says what happens to the program, a line each: its pid when it was started, and `stopped` once it has
stopped as a whole (SIGSTOP: the kernel tells the parent when the last thread has). This process ends with the
program's exit status. A session of its own keeps Ctrl-C in a terminal from reaching the program: its owner decides
when it ends.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading


def main() -> int:
    log, remove, *command = sys.argv[1:]
    with open(log, "ab") as out:
        program = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    orphaned = threading.Event()
    ended = threading.Event()

    def watch() -> None:
        # Returns at end of file only: the owner never writes.
        os.read(sys.stdin.fileno(), 1)
        orphaned.set()
        if not ended.is_set():
            os.kill(program.pid, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()
    _tell(str(program.pid))
    while True:
        _, status = os.waitpid(program.pid, os.WUNTRACED)
        if not os.WIFSTOPPED(status):
            break
        _tell("stopped")
    ended.set()
    program.returncode = os.waitstatus_to_exitcode(status)
    if orphaned.is_set() and remove:
        shutil.rmtree(remove, ignore_errors=True)
    return program.returncode if program.returncode >= 0 else 128 - program.returncode


def _tell(line: str) -> None:
    # An owner that is gone does not listen; `watch` does what is needed then.
    with contextlib.suppress(BrokenPipeError):
        os.write(sys.stdout.fileno(), f"{line}\n".encode())


if __name__ == "__main__":
    sys.exit(main())
