# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#      http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

"""The short-lived process that reads one list: ``python -m oie.feeds.worker``.

It gives up its rights, reads a job on stdin, does it and writes the answer on
stdout. Whatever a list or a driver does to this process, the daemon only
sees that no answer came.
"""

import os
import sys

from oie import confinement


def main() -> int:
    """Do one job; return 0 when an answer was written, whatever it says."""
    confinement.confine()
    answers = _own_stdout()
    # Libraries, and the drivers of others, are imported without any rights.
    from oie.feeds import jobs
    from oie.feeds import wire

    job = wire.decode_job(sys.stdin.buffer.read())
    # The daemon may have died before the kernel was told to end us with it.
    if os.getppid() != job.parent:
        return 1
    answer = jobs.do(job)
    with open(answers, 'wb') as stdout:
        for piece in wire.encode_answer(answer):
            stdout.write(piece)
    return 0


def _own_stdout() -> int:
    """Return what was stdout; from now on a driver that prints writes to stderr."""
    answers = os.dup(1)
    os.dup2(2, 1)
    return answers


if __name__ == '__main__':
    sys.exit(main())
