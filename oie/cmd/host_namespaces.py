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


"""Whether network namespaces can be read, for ``oie-status host check``."""

from collections.abc import Iterator

from oslo_config import cfg

from oie import exceptions
from oie import model
from oie.cmd import check_table
from oie.cmd import host_access
from oie.cmd import wiring
from oie.config import netns_settings
from oie.sources import mount_propagation

NAME = 'Network namespaces'
# For who gets no answer at all.
ADVICE = (
    'See how long ip netns list takes and how busy the host is; raise [netns] timeout, and '
    'deadline if namespaces are skipped by it.'
)
Row = check_table.Row
# Seconds for which what was read is good, however slow this host is.
AGE = 60.0
_OK, _INFO = check_table.Result.OK, check_table.Result.INFO
_WARNING = check_table.Result.WARNING
_LOOK = 'See what lies in {directory}: ls -l, ip netns.'
_RIGHTS = {
    'setns': 'Give the service CAP_SYS_ADMIN and CAP_NET_ADMIN (AmbientCapabilities of its unit), '
    'or set [netns] enabled = false.',
    'nsid': 'Give the service CAP_NET_ADMIN (AmbientCapabilities of its unit), or set [netns] '
    'enabled = false.',
}
_LOG = 'See the log of the exporter.'
# By pieces of what is said of a reading that failed.
_BY_TEXT = (
    ('[netns] directory', 'Correct [netns] directory, and let the service list it.'),
    (' has not ', ADVICE),
)
# By the reason for which namespaces are skipped; those that vanished need none.
_BY_REASON = {
    'deadline': ADVICE,
    'failed': _LOG,
    'name': _LOOK,
    'no_id': 'Set [netns] assign_nsid = true, or give each an id: ip netns set NAME auto.',
    'not_a_namespace': _LOOK,
    'stale': _LOOK,
    'symlink': _LOOK,
}


def rows(conf: cfg.ConfigOpts) -> tuple[Row, ...]:
    """Return rows if namespaces are to be read; they are read once, which writes nothing."""
    if not conf.netns.enabled:
        return ()
    try:
        source = wiring.network_namespaces(conf)
        settings = wiring.namespace_settings(conf)
    except exceptions.ConfigError as exc:
        return (Row(NAME, check_table.Result.FAILURE, str(exc), 'Correct the file.'),)
    if source is None:
        return ()
    reading = source.read((), AGE)['namespaces']
    source.close()
    return (_found(conf, reading), *_notes(settings))


def _notes(settings: netns_settings.Settings) -> Iterator[Row]:
    if settings.notes:
        yield Row(f'{NAME}: file', _INFO, '; '.join(settings.notes))
    if settings.overlooked:
        advice = 'Nothing, if oie-pollster routers is not asked, or need not know.'
        yield Row(f'{NAME}: filters', _INFO, '; '.join(settings.overlooked), advice)


def _found(conf: cfg.ConfigOpts, reading: model.Reading[model.NamespaceTable | None]) -> Row:
    """Tell what one pass found, and what it could not read."""
    table, directory = reading.value, conf.netns.directory
    if table is None or reading.error:
        error = reading.error or 'nothing was read'
        return Row(NAME, _WARNING, error, _by_text(conf.netns.mode, error))
    detail = _detail(directory, reading.seconds, table)
    if private := _private(conf, table):
        return Row(NAME, _WARNING, detail, private)
    advice = dict.fromkeys(_advice(conf.netns.mode, table))
    if advice:
        return Row(NAME, _WARNING, detail, ' '.join(advice).format(directory=directory))
    if not table.found:
        hint = 'A container needs this directory of the host.'
        return Row(NAME, _INFO, f'none in {directory}', hint)
    return Row(NAME, _OK, detail)


def _detail(directory: str, seconds: float, table: model.NamespaceTable) -> str:
    devices = sum(len(each.devices or ()) for each in table.namespaces)
    detail = (
        f'{len(table.namespaces)} of {table.found} in {directory} read, with {devices} devices, '
        f'in {seconds:.2f} s'
    )
    if table.filtered:
        detail += f'; left out by filters: {table.filtered}'
    if table.skipped:
        skipped = [f'{number} {reason}' for reason, number in sorted(table.skipped.items())]
        detail += f'; skipped: {", ".join(skipped)}'
    failures = {part: why for each in table.namespaces for part, why in each.failures.items()}
    if failures:
        told = [f'{part} ({why})' for part, why in sorted(failures.items())]
        detail += f'; not everywhere read: {", ".join(told)}'
    return detail


def _advice(mode: str, table: model.NamespaceTable) -> Iterator[str]:
    """Give what to do about each kind of thing that could not be read."""
    for reason in sorted(table.skipped):
        if reason == 'refused':
            yield _RIGHTS[mode]
        elif reason in _BY_REASON:
            yield _BY_REASON[reason]
    for text in sorted({why for each in table.namespaces for why in each.failures.values()}):
        yield _by_text(mode, text)


def _by_text(mode: str, text: str) -> str:
    if 'CAP_' in text:
        return _RIGHTS[mode]
    return next((advice for piece, advice in _BY_TEXT if piece in text), _LOG)


def _private(conf: cfg.ConfigOpts, table: model.NamespaceTable) -> str:
    """Return what to do about mounts that do not reach the exporter, or us.

    They need not reach a process in the mount namespace of the host: there they are made.
    """
    directory = conf.netns.directory
    if table.skipped.get('stale') and (text := mount_propagation.problem(directory)):
        return text
    exporter = host_access.exporter_process(conf.exporter.socket_path)
    who = mount_propagation.SELF if exporter is None else str(exporter)
    if mount_propagation.is_apart(who):
        return mount_propagation.problem(directory, who)
    return ''
