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

"""The Guru Meditation Report: what the process is doing, in one text without secrets."""

from collections.abc import Mapping
import logging
import sys
import threading
import time
from typing import Any

from oslo_config import cfg

from oie import service
from oie.config import secrets
from oie.sources import calls

LOG = logging.getLogger(__name__)


def write(conf: cfg.ConfigOpts, version: str, published: service.Publication | None) -> None:
    """Write the report to stderr, which is the journal's where systemd started us.

    It never raises: who asks for it has trouble enough.
    """
    try:
        text = make(conf, version, published)
        sys.stderr.write(f'{text}\n')
        sys.stderr.flush()
    except Exception:
        LOG.exception('no report could be made')


def make(conf: cfg.ConfigOpts, version: str, published: service.Publication | None) -> str:
    """Return the report: version, threads, configuration, sources, calls in flight."""
    # Imported when asked for: it costs 60 modules that no other part needs.
    from oslo_reports import report
    from oslo_reports.generators import conf as configuration
    from oslo_reports.generators import threading as stacks

    # Not TextGuruMeditation: it knows the global options, which are none of ours.
    made = report.TextReport('Guru Meditation Report')
    made.add_section('Package', lambda: f'oie-exporter {version}')
    made.add_section('Names of threads', lambda: _lines(thread_names()))
    made.add_section('Threads', stacks.ThreadReportGenerator())
    made.add_section('Configuration', configuration.ConfigReportGenerator(conf))
    made.add_section('Sources', lambda: _lines(sources(published)))
    made.add_section('Calls in flight', lambda: _lines(in_flight()))
    return secrets.masked(str(made.run()))


def thread_names() -> Mapping[str, str]:
    """Return the name of each thread by the number under which the report shows its stack."""
    return {f'#{thread.ident}': thread.name for thread in threading.enumerate()}


def sources(published: service.Publication | None) -> Mapping[str, str]:
    """Return how each source and collector did in the latest cycle, by name."""
    if published is None:
        return {'cycle': 'none is complete yet'}
    found = {}
    for name, health in sorted(published.snapshot.cycle.groups.items()):
        succeeded = 'never' if health.succeeded_at is None else _ago(health.succeeded_at)
        state = 'good' if health.is_success else 'failed'
        found[name] = f'{state}, {health.seconds:.3f} s, last success {succeeded}'
    return found


def in_flight() -> Mapping[str, str]:
    """Return for how long each blocking call is under way, by thread pool, number and name."""
    return {
        f'{pool} {number} {call.name}': f'{time.monotonic() - call.started:.1f} s'
        + (', nobody waits for it any more' if call.is_abandoned else '')
        for number, (pool, call) in enumerate(calls.under_way(), 1)
    }


def _ago(moment: float) -> str:
    return f'{time.time() - moment:.0f} s ago'


def _lines(items: Mapping[str, Any]) -> str:
    return '\n'.join(f'{name}: {text}' for name, text in items.items()) or 'none'
