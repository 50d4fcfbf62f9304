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

"""kill -9 while the cache of a list is written: afterwards it is old or new, never half."""

import collections
import contextlib
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

from oie.feeds import cache
from oie.feeds import wire
from tests.unit.feeds import working

KILLS = 200
WORKER_KILLS = 10
LONGEST_LIFE = 0.03

DOCUMENTS = {name: (f'{name}.0.0.1\n'.encode() * 60000, b'second') for name in ('5', '45')}

WRITER = """
import sys
from oie.feeds import cache
place, fields = sys.argv[1], dict(feed='sample', driver='plain_list', sources=('/a', '/b'))
documents = [(name.encode() * 60000, b'second') for name in ('5.0.0.1\\n', '45.0.0.1\\n')]
entries = [
    cache.Entry(
        **fields, documents=each, validators=(('', ''),) * 2, fetched_at=float(n), entries=n
    )
    for n, each in enumerate(documents)
]
cache.write(place, entries[0])
print(flush=True)
while True:
    for entry in entries:
        cache.write(place, entry)
"""


def read(place: pathlib.Path) -> cache.Entry | None:
    return cache.read(
        str(place),
        feed='sample',
        driver='plain_list',
        sources=('/a', '/b'),
        max_document_bytes=2**20,
    )


def leftovers(place: pathlib.Path) -> list[str]:
    return [path.name for path in place.iterdir() if path.suffix == '.tmp']


def test_killed_while_writing_again_and_again(tmp_path):
    chance = random.Random(4)
    found: collections.Counter[int] = collections.Counter()
    unfinished = 0
    for _ in range(KILLS):
        command = [sys.executable, '-c', WRITER, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
            try:
                # It has written once; from here on any moment is as good as another.
                assert writer.stdout.readline() == b'\n'
                time.sleep(chance.uniform(0, LONGEST_LIFE))
            finally:
                writer.kill()
        entry = read(tmp_path)
        assert entry is not None
        assert entry.documents == DOCUMENTS[('5', '45')[entry.entries]]
        found[entry.entries] += 1
        unfinished += bool(leftovers(tmp_path))
    print(f'{found[0]} times the one, {found[1]} times the other; {unfinished} in the middle')
    assert min(found.values()) > 0
    assert unfinished > KILLS // 20
    cache.write(str(tmp_path), working.entry(b'x'))
    assert os.listdir(tmp_path) == ['sample.list']


def test_workers_killed_at_any_moment_leave_a_list_that_loads(tmp_path):
    chance = random.Random(4)
    place, source = tmp_path / 'cache', tmp_path / 'list'
    lists = [b''.join(b'%d.0.%d.7\n' % (net, n) for n in range(200)) for net in (5, 45)]
    source.write_bytes(lists[0])
    job = working.job(cache_dir=str(place), settings={'path': str(source)})
    assert b'accepted' in work(job)
    for number in range(WORKER_KILLS):
        source.write_bytes(lists[number % 2])
        work(job, seconds=chance.uniform(0.05, 0.8))
        kept = cache.read(
            str(place),
            feed=job.feed,
            driver=job.driver,
            sources=(str(source),),
            max_document_bytes=2**20,
        )
        assert kept is not None
        assert kept.documents[0] in lists
    source.write_bytes(lists[1])
    assert b'accepted' in work(job)
    assert os.listdir(place) == ['sample.list']


def work(job: wire.Job, seconds: float | None = None) -> bytes:
    """Return what the worker answered; it is killed after so many seconds."""
    command = [sys.executable, '-m', 'oie.feeds.worker']
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as worker:
        try:
            answer, _ = worker.communicate(wire.encode_job(job), timeout=seconds)
            return answer
        except subprocess.TimeoutExpired:
            return b''
        finally:
            with contextlib.suppress(ProcessLookupError):
                worker.send_signal(signal.SIGKILL)
