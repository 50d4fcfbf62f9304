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


"""What the code knows → the files that are made of it.

Run it by ``tox -e genconfig``. With ``--check`` it writes nothing and says what
is stale; a unit test does the same.

* etc/ceilometer: pollsters.d/oie.yaml, polling.yaml, pipeline.yaml
* etc/gnocchi, etc/cloudkitty
* etc/sudoers.d/oie-ceilometer
* doc/source/admin/metrics.rst, doc/source/admin/pollsters.rst
* etc/grafana/dashboards
"""

import argparse
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
import configparser
import importlib.metadata
import inspect
import os
import pathlib
import sys
import tempfile
import textwrap
from unittest import mock

from oslo_config import cfg
import yaml

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from oie import model  # noqa: E402
from oie import plugins  # noqa: E402
from oie.cmd import wiring  # noqa: E402
from oie.collectors import base  # noqa: E402
from oie.collectors import cpu  # noqa: E402
from oie.config import core_options  # noqa: E402
from oie.outputs import ceilometer  # noqa: E402
from tests import builders  # noqa: E402
from tools import chain  # noqa: E402
from tools import emission  # noqa: E402
from tools import lists  # noqa: E402
from tools.dashboards import shipped  # noqa: E402

WIDTH = 95

POLLSTERS_HEADER = """\
# Dynamic pollsters for Ceilometer's compute agent. Each one gives all meters of one
# list that have a type and a unit in common; the comment above it names them.
# Written by tools/generate.py; do not edit it in the source tree.
#
# Copy it to /etc/ceilometer/pollsters.d, add the source of polling.yaml beside
# it to the agent's polling.yaml, and restart the agent.
#
# Each definition runs its command once in every interval. oie-pollster asks the
# running oie-exporter over a unix socket, which takes some 40 ms and no rights
# but those of the socket: set [exporter] socket_group to the agent's group.
# Delete the definitions that nobody needs; each stands by itself. To leave out one
# meter, add its name without "oie." to the definition's skip_sample_values.
#
# Where no oie-exporter runs, oie-pollster reads libvirt itself, with the rights
# of the agent. If these do not suffice, install the file of etc/sudoers.d and
# let sudo run the command. What sudo itself has to say must not be mixed into
# the answer:
#
#   host_command: sudo -n /usr/bin/oie-pollster instances 2>/dev/null
#
# What could not be read is null in the answer and gives no sample, never 0.
---
"""

POLLING = """\
# The source for Ceilometer's polling.yaml: put it below the other sources.
# Written by tools/generate.py; do not edit it in the source tree.
#
# The agent polls all sources of one interval in one thread and gives commands
# no time limit, so the interval must be one that no other source has; 300 is
# that of Ceilometer's own file. One below 300 leaves no period of five minutes,
# as Gnocchi's archive policies have it, without a sample.
---
sources:
  - name: oie
    interval: 299
    meters:
      - "oie.*"
"""

SUDOERS = """\
# Lets Ceilometer's compute agent run oie-pollster as root. Only for hosts where
# no oie-exporter runs and libvirt's read-only socket is closed to the agent.
# Written by tools/generate.py; do not edit it in the source tree.
#
# Copy it to /etc/sudoers.d, owned by root, mode 0440, and check it: visudo -c.
#
# Each line has its exact argument and no wildcard: whoever may choose an
# argument, --config-file above all, chooses what root reads, writes and runs.

Cmnd_Alias OIE_POLLSTERS = {commands}
Defaults!OIE_POLLSTERS !requiretty
ceilometer ALL = (root) NOPASSWD: OIE_POLLSTERS
"""

METRICS_HEADER = """\
..
   Written by tools/generate.py, see tox -e genconfig; do not edit.

=======
Metrics
=======

Every series and every meter there is, by collector: ``[collector] enabled``
chooses among the collectors, ``[collector] optional`` adds the groups of
series that are marked with their names, and some collectors have switches of
their own.

Labels that many series share are named in short:

========================  ===================================================
*instance*                ``domain``, ``instance_uuid``, ``project_uuid``,
                          ``user_uuid``
*disk*                    those of *instance*, and ``disk_uuid``,
                          ``disk_type``, ``disk_path``
*interface*               those of *instance*, and ``interface``
*address*                 those of *instance*, and ``ip``, ``family``
========================  ===================================================

*When* says which of them are there when. What could not be read, or what a
hypervisor does not report, is absent in any case, never 0.

Beside these there are ``process_*`` and ``python_*``, the client library's
figures about the process of the exporter.
"""

INSTANCE = frozenset({'domain', 'instance_uuid', 'project_uuid', 'user_uuid'})
SHARED = (
    ('*disk*', INSTANCE | {'disk_uuid', 'disk_type', 'disk_path'}),
    ('*interface*', INSTANCE | {'interface'}),
    ('*address*', INSTANCE | {'ip', 'family'}),
    ('*instance*', INSTANCE),
)
TYPES = {
    model.Kind.GAUGE: 'gauge',
    model.Kind.INFO: 'gauge',
    model.Kind.CUMULATIVE: 'counter',
    model.Kind.SUMMARY: 'summary',
    model.Kind.HISTOGRAM: 'histogram',
}

Classes = Mapping[str, type[base.Collector]]
Labels = dict[str, tuple[str, ...]]
Switch = tuple[str, str]


def main() -> int:
    """Write the files, or say which are stale; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--check', action='store_true', help='write nothing, compare')
    is_check = parser.parse_args().check
    found = stale()
    for path, text in found.items():
        if not is_check:
            (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
            (ROOT / path).write_text(text, encoding='ascii')
        print(f'{path}: {"stale, run: tox -e genconfig" if is_check else "written"}')
    return int(is_check and bool(found))


def stale() -> dict[str, str]:
    """Return what the code makes today of the files that differ, by path."""
    return {path: text for path, text in files().items() if _stored(path) != text}


def files() -> dict[str, str]:
    """Return the text of every file by its path in the repository."""
    classes = collectors()
    pollsters = wiring.pollsters(classes.values())
    series = frozenset(meter.prometheus for each in classes.values() for meter in each.meters())
    commands = ', \\\n    '.join(f'/usr/bin/oie-pollster {name}' for name in sorted(pollsters))
    return {
        'etc/ceilometer/pollsters.d/oie.yaml': POLLSTERS_HEADER + definitions(pollsters),
        'etc/ceilometer/polling.yaml': POLLING,
        'etc/sudoers.d/oie-ceilometer': SUDOERS.format(commands=commands),
        'doc/source/admin/metrics.rst': metrics(classes),
        'doc/source/admin/pollsters.rst': lists.page(pollsters.values(), table, section),
        **chain.files(pollsters, series),
        **shipped.files(),
    }


def _stored(path: str) -> str:
    try:
        return (ROOT / path).read_text(encoding='ascii')
    except FileNotFoundError:
        return ''


def collectors() -> Classes:
    """Return the collectors that setup.cfg names, whatever else is installed here."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / 'setup.cfg')
    lines = setup['entry_points'][wiring.COLLECTORS].strip().splitlines()
    pairs = sorted(tuple(part.strip() for part in line.split('=')) for line in lines)
    return {
        name: importlib.metadata.EntryPoint(name, value, wiring.COLLECTORS).load()
        for name, value in pairs
    }


# --- Ceilometer -------------------------------------------------------------


def definitions(pollsters: Mapping[str, ceilometer.Pollster]) -> str:
    """Return the definitions as YAML, each with the meters that it gives and what they mean."""
    parts = []
    for pollster in pollsters.values():
        groups = pollster.groups().values()
        for meters, definition in zip(groups, pollster.definitions(), strict=True):
            text = yaml.safe_dump(
                [definition], default_flow_style=None, sort_keys=False, width=WIDTH
            )
            about = '\n'.join(_comment(f'{meter.ceilometer}: {meter.help}') for meter in meters)
            parts.append(f'{about}\n{text}')
    return '\n'.join(parts)


def _comment(text: str) -> str:
    return textwrap.fill(text, WIDTH, initial_indent='# ', subsequent_indent='#   ')


# --- the reference ----------------------------------------------------------


def metrics(classes: Classes) -> str:
    """Return the reference of all metrics."""
    labels = Shown(classes)
    titles = ('Name', 'Type', 'Unit', 'Labels', 'When', 'What it says', 'Source')
    parts = [METRICS_HEADER]
    for name, each in classes.items():
        rows = [_row(meter, labels) for meter in each.meters() if meter.prometheus]
        about = inspect.getdoc(each) or ''
        parts.append(section(name, '=', _introduction(each, about)))
        parts.append(table(titles, rows))
    return '\n'.join(parts)


class Shown:
    """The names of the labels by metric: by default, and with what is optional.

    :ivar optional: by group of series that is switched on
    :ivar switched: with every switch of the collectors on
    :ivar without: the same but for one switch, by that switch
    :ivar conditions: what a series needs beside its group and its switches, in words
    """

    def __init__(self, classes: Classes) -> None:
        self.default = shown(classes)
        self.optional = {name: shown(classes, (name,)) for name in core_options.OPTIONAL}
        switches = tuple(_switches(classes))
        self.switched = shown(classes, switches=switches)
        self.without = {
            switch: shown(classes, switches=[other for other in switches if other != switch])
            for switch in switches
        }
        everything = shown(classes, core_options.OPTIONAL, switches)
        hidden: dict[str, set[str]] = {}
        for sentence, nodes in emission.hidings(builders.node_before(), builders.node()):
            seen = set(shown(classes, core_options.OPTIONAL, switches, nodes))
            hidden[sentence] = hidden.get(sentence, seen) & seen
        self.conditions = emission.conditions(everything, hidden)


def _switches(classes: Classes) -> Iterator[Switch]:
    """Give group and name of the options that switch series on."""
    for name, each in classes.items():
        group = plugins.group_of(wiring.COLLECTORS, name, each)
        for option in each.OPTS:
            if isinstance(option, cfg.BoolOpt) and not option.default:
                yield group, option.dest


def shown(
    classes: Classes,
    optional: Iterable[str] = (),
    switches: Iterable[Switch] = (),
    nodes: emission.Nodes | None = None,
) -> Labels:
    """Return the names of the labels by metric, as a node that tells all shows them."""
    conf = wiring.load(('--config-file', os.devnull), 'generate')
    conf.set_override('optional', ','.join(optional), 'collector')
    for group, option in switches:
        conf.set_override(option, True, group)
    conf.set_override('extra_specs', [builders.EXTRA_SPEC], 'collector_instance')
    conf.set_override('interface_metrics', model.LinkStatistics._fields, 'netns')
    conf.set_override('statistics', ('Tcp.CurrEstab',), 'netns')
    before, now = nodes or (builders.node_before(), builders.node())
    names: Labels = {}
    with tempfile.NamedTemporaryFile('w') as schedstats:
        schedstats.write('1')
        schedstats.flush()
        # Whether this kernel counts the waiting of vCPUs must not show in the reference.
        with mock.patch.object(cpu, 'SCHEDSTATS', schedstats.name):
            for name, each in classes.items():
                group = plugins.group_of(wiring.COLLECTORS, name, each)
                collector = each(conf[group] if group in conf else None, conf.collector)
                for family in collector.collect(before, now, {}):
                    labels = (n for of in family.labels for n, _ in of.pairs)
                    known = names.get(family.meter.prometheus, ())
                    names[family.meter.prometheus] = tuple(dict.fromkeys((*known, *labels)))
    return names


def _row(meter: model.Meter, shown: Shown) -> tuple[str, ...]:
    name, default, optional = meter.prometheus, shown.default, shown.optional
    groups = [group for group, found in optional.items() if found.get(name) != default.get(name)]
    when = [shown.conditions[name]] if name in shown.conditions else []
    if name in default:
        labels = _labels(default[name])
        for group in groups:
            more = _labels(n for n in optional[group][name] if n not in default[name])
            labels += f'; with ``{group}`` also {more}'
    elif groups:
        [group] = groups
        labels = _labels(optional[group][name])
        when.insert(0, f'with ``{group}`` in ``[collector] optional``')
    else:
        labels = _labels(shown.switched[name])
        needed = [switch for switch, found in shown.without.items() if name not in found]
        when[:0] = [f'with ``[{group}] {option}``' for group, option in needed]
    return (
        f'``{name}``',
        TYPES[meter.kind],
        meter.unit,
        labels,
        ', '.join(dict.fromkeys(when)) or 'always',
        meter.help,
        f'``{meter.source}``',
    )


def _labels(names: Iterable[str]) -> str:
    found = list(names)
    for short, shared in SHARED:
        if shared <= set(found):
            return ', '.join([short, *(f'``{name}``' for name in found if name not in shared)])
    return ', '.join(f'``{name}``' for name in found)


def _introduction(each: type[base.Collector], about: str) -> str:
    if each.METRIC_SET == 'oie':
        return about
    return f'{about}\n\nOnly with ``{each.METRIC_SET}`` in ``[exporter] metric_sets``.'


def section(title: str, underline: str, text: str) -> str:
    return f'{title}\n{underline * len(title)}\n' + (f'\n{text}\n' if text else '')


def table(titles: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    return '\n'.join(
        ('.. list-table::', '   :header-rows: 1', '', *_cells(titles), *_lines(rows), '')
    )


def _lines(rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    for row in rows:
        yield from _cells(row)


def _cells(row: tuple[str, ...]) -> Iterator[str]:
    """Give the lines of one row of a list-table."""
    for number, cell in enumerate(row):
        first = '   * - ' if number == 0 else '     - '
        yield (
            textwrap.fill(
                cell,
                WIDTH,
                initial_indent=first,
                subsequent_indent=' ' * len(first),
                break_long_words=False,
                break_on_hyphens=False,
            ).rstrip()
            or first.rstrip()
        )


if __name__ == '__main__':
    sys.exit(main())
