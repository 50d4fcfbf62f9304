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

"""The long path of oie-pollster: the options read in full, libvirt without an exporter."""

from collections.abc import Sequence
import contextlib
import dataclasses
import importlib.metadata
import io
import logging
import time

from oslo_config import cfg

from oie import exceptions
from oie import model
from oie.cmd import pollster
from oie.cmd import wiring
from oie.config import messages

PROG = 'oie-pollster'
CONFIG_STATUS = 2


def collect(argv: Sequence[str]) -> tuple[int, bytes]:
    """Return the exit status and what to print: a list, help, or one sentence."""
    logging.getLogger().addHandler(logging.NullHandler())
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            return _collect(argv)
    except SystemExit:
        return 0, printed.getvalue().encode(errors='replace')
    except exceptions.ConfigError as exc:
        return CONFIG_STATUS, _line(exc)
    except exceptions.OieError as exc:
        return 1, _line(exc)


def _collect(argv: Sequence[str]) -> tuple[int, bytes]:
    pollsters = wiring.pollsters()
    name = cfg.StrOpt(
        'pollster',
        positional=True,
        required=True,
        help=f'The list to print: {", ".join(sorted(pollsters))}.',
    )
    conf = wiring.load(argv, PROG, extra_cli=(name,), version=importlib.metadata.version('oie'))
    if conf.pollster not in pollsters:
        raise exceptions.ConfigError(
            f'there is no pollster {messages.quoted(conf.pollster)}; '
            f'ask for one of {", ".join(sorted(pollsters))}'
        )
    # The short path does not understand every way to name the socket.
    answer = pollster.ask_exporter(conf.exporter.socket_path, conf.pollster)
    if answer is not None:
        return answer[1], answer[0]
    _check_counted(conf)
    wanted = wiring.pollsters(conf=conf)[conf.pollster]
    snapshot = _snapshot(conf, with_instances='instances' in wanted.needs)
    if 'flows' in wanted.needs:
        snapshot = _with_flows(conf, snapshot)
    if 'guest_os' in wanted.needs:
        snapshot = _with_guest_os(conf, snapshot)
    if 'namespaces' in wanted.needs:
        snapshot = _with_namespaces(conf, snapshot)
    return 0, wanted.render(snapshot)


def _check_counted(conf: cfg.ConfigOpts) -> None:
    """Refuse what only a daemon can count.

    :raises PollsterError: the totals are those of a program that does not run
    """
    if conf.pollster == 'contacts' and conf.threats.enabled_feeds:
        raise exceptions.PollsterError('contacts are counted by a running oie-exporter only')


def _snapshot(conf: cfg.ConfigOpts, *, with_instances: bool) -> model.Snapshot:
    """Read all instances once, if they are wanted: a network node may have no libvirt.

    :raises PollsterError: libvirt could not be read; never an empty list instead
    """
    reading: model.Reading[tuple[model.Instance, ...]]
    reading = model.Reading(value=(), read_at=None, seconds=0.0)
    if with_instances:
        reading = wiring.instances_source(conf, remembers=False).read()
    if reading.error:
        raise exceptions.PollsterError(reading.error)
    return model.Snapshot(taken_at=time.time(), hostname=wiring.hostname(conf), instances=reading)


def _with_flows(conf: cfg.ConfigOpts, snapshot: model.Snapshot) -> model.Snapshot:
    """Read the connection tracking table too; it needs CAP_NET_ADMIN."""
    reader = wiring.flow_reader(conf)
    if reader is None:
        return snapshot
    return dataclasses.replace(snapshot, **reader.read(snapshot.instances.value, 0.0, frozenset()))


def _with_guest_os(conf: cfg.ConfigOpts, snapshot: model.Snapshot) -> model.Snapshot:
    """Add the operating systems, as far as nobody has to be asked."""
    source = wiring.guest_os(conf)
    if source is None:
        return snapshot
    return dataclasses.replace(snapshot, **source.read_remembered(snapshot.instances.value))


def _with_namespaces(conf: cfg.ConfigOpts, snapshot: model.Snapshot) -> model.Snapshot:
    """Read the network namespaces once; it needs CAP_SYS_ADMIN."""
    source = wiring.network_namespaces(conf)
    if source is None:
        return snapshot
    found = source.read((), pollster.DEADLINE)
    source.close()
    return dataclasses.replace(snapshot, **found)


def _line(exc: Exception) -> bytes:
    return f'{PROG}: {messages.one_line(exc)}\n'.encode('ascii', 'replace')
