"""Starts a program and ends it when whoever started *this* program is gone, however it went.

Run as `python supervisor.py LOG REMOVE COMMAND...` with a pipe as standard input; only the standard library is used.

Theory of operation: the owner holds the write end of the pipe and never writes. When the owner dies, `kill -9`
included, the kernel closes that end; the read here returns, the program is killed, and the folder REMOVE (unless it
is empty text) is deleted, as nobody else will. This works alike on Linux and macOS, and has no process id that
could be reused in between: the program is this process's own child.

The program's pid is printed on a line of its own; this process ends with the program's exit status. A session of its
own keeps Ctrl-C in a terminal from reaching the program: its owner decides when it ends.
"""

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

    def watch() -> None:
        # Returns at end of file only: the owner never writes.
        os.read(sys.stdin.fileno(), 1)
        orphaned.set()
        program.kill()

    threading.Thread(target=watch, daemon=True).start()
    # The owner may be gone already, and its end of the pipe with it: then `watch` does what is needed.
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    try:
        print(program.pid, flush=True)
    except BrokenPipeError:
        orphaned.set()
        program.kill()
    status = program.wait()
    if orphaned.is_set() and remove:
        shutil.rmtree(remove, ignore_errors=True)
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main())
