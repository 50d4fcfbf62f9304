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

"""What we may use on this host: directories, groups, ports, sockets, the kernel."""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import dataclasses
import errno
import grp
import http.client
import json
import os
import pwd
import socket
import struct
import time

from oslo_config import cfg

from oie import config
from oie import model
from oie.cmd import check_table
from oie.outputs import ceilometer

SECONDS = 2.0
SCHEDSTATS = '/proc/sys/kernel/sched_schedstats'
RESCTRL = '/sys/fs/resctrl/info'
_EVERYWHERE = {'0.0.0.0': '127.0.0.1', '::': '::1'}  # noqa: S104 - addresses of options, not ours
# struct ucred: the process, its user and group. Source: unix(7).
_CREDENTIALS = struct.Struct('iII')

OK, INFO = check_table.Result.OK, check_table.Result.INFO
WARNING, FAILURE = check_table.Result.WARNING, check_table.Result.FAILURE
Row = check_table.Row


# --- who and where ------------------------------------------------------------


def user() -> Row:
    """Tell as whom we look."""
    uid = os.geteuid()
    groups = ', '.join(_group_name(gid) for gid in sorted({os.getegid(), *os.getgroups()}))
    detail = f'{_user_name(uid)} (uid {uid}), groups: {groups}'
    advice = (
        '' if uid else 'The rights of root tell nothing of others: check as the exporter\'s user.'
    )
    return Row('User', INFO, detail, advice)


def _user_name(uid: int) -> str:
    with contextlib.suppress(KeyError):
        return pwd.getpwuid(uid).pw_name
    return 'no name'


def _group_name(gid: int) -> str:
    with contextlib.suppress(KeyError):
        return grp.getgrgid(gid).gr_name
    return str(gid)


def suspects(conf: cfg.ConfigOpts) -> Row:
    """Tell whether the exporter can remember the guests that did not answer."""
    name, path = 'Suspects file', conf.libvirt.suspects_path
    if not path:
        forgotten = 'guests that did not answer and unplugged vCPUs are forgotten at a restart'
        return Row(name, INFO, f'off: {forgotten}')
    directory = os.path.dirname(os.path.abspath(path))
    if os.path.isdir(directory):
        if _may_write(directory):
            return Row(name, OK, f'{directory} is writable')
        detail = f'{directory} is not writable: suspects are forgotten at a restart'
        return Row(name, WARNING, detail, _make_advice(directory))
    if _may_write(_nearest(directory)):
        return Row(name, OK, f'{directory} will be made')
    detail = f'{directory} cannot be made: the exporter does not start'
    return Row(name, FAILURE, detail, _make_advice(directory))


def _may_write(directory: str) -> bool:
    return os.path.isdir(directory) and os.access(directory, os.W_OK | os.X_OK)


def _nearest(directory: str) -> str:
    while not os.path.lexists(directory):
        directory = os.path.dirname(directory)
    return directory


def _make_advice(directory: str) -> str:
    return (
        f'install -d -o USER {directory}, or let systemd do it by RuntimeDirectory= in the unit. '
        'USER is the one the exporter runs as.'
    )


# --- the endpoint -------------------------------------------------------------


def endpoint(address: config.Endpoint) -> Row:
    """Tell whether an exporter answers on an address, or could."""
    name = f'Endpoint {address}'
    error = _bind(address)
    if error is None:
        return Row(name, OK, 'free; no exporter runs there')
    other = 'Choose an address of this host and a free port in [exporter] listen_address.'
    if error.errno not in (errno.EADDRINUSE, errno.EACCES):
        return Row(name, FAILURE, f'an exporter could not listen: {_reason(error)}', other)
    try:
        server, status, text = _get(_tcp(address), '/readyz')
    except ConnectionRefusedError:
        return Row(name, FAILURE, f'an exporter could not listen: {_reason(error)}', other)
    except (OSError, http.client.HTTPException) as exc:
        detail = f'taken by something that does not answer as oie does: {_reason(exc)}'
        return Row(name, FAILURE, detail, other)
    if server != 'oie':
        detail = f'taken by another program: {server or "it does not tell its name"}'
        return Row(name, FAILURE, detail, other)
    if status == 200:
        return Row(name, OK, 'an exporter runs and is ready')
    advice = 'See the row libvirt, and the log of the exporter with oie_log_level = notice.'
    return Row(name, WARNING, f'an exporter runs and is not ready: {text}', advice)


def _bind(address: config.Endpoint) -> OSError | None:
    """Return why nobody could listen there; the address is let go at once."""
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
    except OSError as exc:
        return exc
    return None


def _tcp(address: config.Endpoint) -> Callable[[], socket.socket]:
    host = _EVERYWHERE.get(address.host, address.host)
    return lambda: socket.create_connection((host, address.port), SECONDS)


# --- the socket of the pollsters ----------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class Answers:
    """What the exporter's socket gave: entries by list, or why it did not."""

    entries: Mapping[str, int] = dataclasses.field(default_factory=dict)
    seconds: float = 0.0
    error: str = ''
    is_served: bool = False
    is_refused: bool = False


def ask_pollsters(path: str, names: tuple[str, ...]) -> Answers:
    """Ask a running exporter for every list, as ``oie-pollster`` does."""
    if not path:
        return Answers()
    started, entries = time.monotonic(), {}
    for name in names:
        try:
            _, status, text = _get(lambda: _unix(path), f'/pollsters/{name}')
            if status != 200:
                return Answers(error=text, is_served=True, is_refused=status == 403)
            entries[name] = len(json.loads(text))
        except (FileNotFoundError, ConnectionRefusedError):
            return Answers()
        except PermissionError as exc:
            return Answers(error=_reason(exc), is_served=True, is_refused=True)
        except (OSError, ValueError, http.client.HTTPException) as exc:
            return Answers(error=_reason(exc), is_served=True)
    return Answers(entries, time.monotonic() - started, is_served=True)


def pollsters(
    answers: Answers,
    snapshot: model.Snapshot | None,
    lists: Mapping[str, ceilometer.Pollster],
) -> Row:
    """Tell whether ``oie-pollster`` has an answer for Ceilometer, and whence.

    :param snapshot: what was read from libvirt just now, None when it failed
    """
    name = 'Pollsters'
    if answers.is_refused:
        detail = f'this user may not use the socket of the exporter: {answers.error}'
        advice = 'Put the user of Ceilometer\'s agent in [exporter] socket_group.'
        return Row(name, WARNING, detail, advice)
    if answers.error:
        advice = 'Ceilometer takes no samples meanwhile; see the row libvirt.'
        return Row(name, WARNING, f'the exporter gives no list: {answers.error}', advice)
    if answers.is_served:
        detail = f'the exporter gives {_count(answers.entries)} in {answers.seconds:.2f} s'
        return Row(name, OK, detail)
    if snapshot is None:
        detail = 'no exporter serves the socket, and libvirt could not be read'
        return Row(name, FAILURE, detail, 'See the row libvirt.')
    found = {name: len(json.loads(each.render(snapshot))) for name, each in lists.items()}
    detail = f'no exporter serves the socket; read from libvirt: {_count(found)}'
    return Row(name, OK, detail, 'Start oie-exporter: then a poll needs no rights and no libvirt.')


def _count(entries: Mapping[str, int]) -> str:
    return ', '.join(f'{number} {name}' for name, number in entries.items())


def socket_place(conf: cfg.ConfigOpts, *, is_served: bool) -> Row:
    """Tell whether the exporter could make its socket."""
    name, path = 'Socket', conf.exporter.socket_path
    if not path:
        return Row(name, INFO, 'off: every poll reads libvirt and needs the rights to do so')
    if is_served:
        return Row(name, OK, f'{path} is served by an exporter')
    directory = os.path.dirname(path)
    if os.path.isdir(directory):
        if _may_write(directory):
            return Row(name, OK, f'{directory} is writable')
    elif _may_write(os.path.dirname(directory)):
        return Row(name, OK, f'{directory} will be made')
    detail = f'{path} cannot be made: the exporter does not start'
    return Row(name, FAILURE, detail, _make_advice(directory))


def exporter_process(path: str) -> int | None:
    """Return the id of the process that serves the socket; None for nobody whom we can see."""
    try:
        with contextlib.closing(_unix(path)) as connection:
            size = _CREDENTIALS.size
            told = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    except OSError:
        return None
    # 0 is a process that is not in our PID namespace.
    return _CREDENTIALS.unpack(told)[0] or None


def socket_group(conf: cfg.ConfigOpts) -> Row:
    """Tell who may use the socket, besides root and the exporter's own user."""
    name, text = 'Socket group', conf.exporter.socket_group
    if not text:
        detail = f'that of the exporter; of this user it is {_group_name(os.getegid())}'
        return Row(name, INFO, detail, 'Name the group of Ceilometer\'s agent if it polls here.')
    try:
        group = grp.getgrgid(int(text)) if text.isdecimal() else grp.getgrnam(text)
    except (KeyError, OverflowError):
        advice = 'Correct [exporter] socket_group; the exporter does not start without it.'
        return Row(name, FAILURE, f'there is no group {text}', advice)
    gid = group.gr_gid
    if os.geteuid() and gid not in (os.getegid(), *os.getgroups()):
        detail = f'this user is not in {group.gr_name} and cannot give the socket to it'
        return Row(name, FAILURE, detail, f'usermod -a -G {group.gr_name} USER, the exporter\'s.')
    return Row(name, OK, f'{group.gr_name} (gid {gid}), members: {", ".join(group.gr_mem) or "-"}')


def _unix(path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(SECONDS)
    try:
        connection.connect(path)
    except OSError:
        connection.close()
        raise
    return connection


def _get(connect: Callable[[], socket.socket], path: str) -> tuple[str, int, str]:
    """Return the name of the server, the status and the text of its answer."""
    with contextlib.closing(http.client.HTTPConnection('oie')) as client:
        client.sock = connect()
        client.request('GET', path, headers={'Connection': 'close'})
        answer = client.getresponse()
        text = answer.read().decode(errors='replace').strip()
        return answer.getheader('Server', ''), answer.status, text


def _reason(exc: Exception) -> str:
    return (isinstance(exc, OSError) and exc.strerror) or str(exc) or type(exc).__name__


# --- the kernel ---------------------------------------------------------------


def kernel(conf: cfg.ConfigOpts) -> Iterator[Row]:
    """Tell of what the kernel must have for some optional groups of series."""
    wanted = frozenset(conf.collector.optional)
    yield _feature(
        'sched_schedstats',
        _reads(SCHEDSTATS) == '1',
        {'vcpu_wait'} & wanted,
        'vcpu_wait',
        'sysctl kernel.sched_schedstats=1; it costs the scheduler a little.',
    )
    yield _feature(
        'resctrl',
        os.path.isdir(RESCTRL),
        {'cache_occupancy', 'memory_bandwidth'} & wanted,
        'cache_occupancy and memory_bandwidth',
        'mount -t resctrl resctrl /sys/fs/resctrl, on CPUs that have it.',
    )


def _feature(
    name: str, is_on: bool, wanted: frozenset[str] | set[str], groups: str, advice: str
) -> Row:
    if is_on:
        return Row(f'Kernel: {name}', INFO, f'on; {groups} of [collector] optional can work')
    if wanted:
        detail = f'off, so {" and ".join(sorted(wanted))} of [collector] optional gives nothing'
        return Row(f'Kernel: {name}', WARNING, detail, advice)
    return Row(f'Kernel: {name}', INFO, f'off; only {groups} of [collector] optional needs it')


def _reads(path: str) -> str:
    try:
        with open(path, encoding='ascii', errors='replace') as file:
            return file.read().strip()
    except OSError:
        return ''
