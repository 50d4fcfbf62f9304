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


"""What the collectors make of a snapshot, in a form that is easy to compare."""

from collections.abc import Iterable
from collections.abc import Mapping
import os
from typing import Any

from oslo_config import cfg

from oie import model
from oie import plugins
from oie.cmd import wiring
from oie.collectors import base
from oie.config import core_options

Samples = dict[str, dict[frozenset[tuple[str, str]], float | int]]

CLASSES: Mapping[str, type[base.Collector]] = plugins.load(wiring.COLLECTORS)
ALL_OPTIONAL = tuple(core_options.OPTIONAL)
# What collectors switch on by options of their own.
ALL_SWITCHES = {
    f'{plugins.group_of(wiring.COLLECTORS, name, each)}__{option.dest}': True
    for name, each in CLASSES.items()
    for option in each.OPTS
    if isinstance(option, cfg.BoolOpt)
}


def options(**overrides: Any) -> cfg.ConfigOpts:
    """Return all options with their defaults, but for those given as ``group__name``."""
    conf = wiring.load(('--config-file', os.devnull), 'test')
    for name, value in overrides.items():
        group, _, option = name.partition('__')
        conf.set_override(option, value, group)
    return conf


def collectors(**overrides: Any) -> dict[str, base.Collector]:
    """Return every collector of every metric set, with these options."""
    return wiring.collectors(options(exporter__metric_sets='oie,libvirt_nova,netns', **overrides))


def collector(name: str, **overrides: Any) -> base.Collector:
    """Return one collector with these options."""
    return collectors(**overrides)[name]


def everything(**overrides: Any) -> dict[str, base.Collector]:
    """Return every collector with everything that is optional switched on."""
    chosen = {
        'collector__optional': ','.join(ALL_OPTIONAL),
        'netns__interface_metrics': model.LinkStatistics._fields,
        'netns__statistics': ('Tcp.CurrEstab',),
    }
    return collectors(**{**chosen, **ALL_SWITCHES, **overrides})


def families(
    wanted: Iterable[base.Collector],
    current: model.Snapshot,
    previous: model.Snapshot | None = None,
) -> list[model.Family]:
    """Return what these collectors give in the first cycle that has these two snapshots."""
    return [family for each in wanted for family in each.collect(previous, current, {})]


def samples(found: Iterable[model.Family]) -> Samples:
    """Return the values by name and labels, the order of labels forgotten.

    Two samples of one identity fail: Prometheus would refuse the whole scrape.
    """
    values: Samples = {}
    for family in found:
        of_name = values.setdefault(f'{family.meter.prometheus}{family.suffix}', {})
        for labels, value in family.samples:
            identity = frozenset(labels.pairs)
            assert len(dict(labels.pairs)) == len(labels.pairs), labels.pairs
            assert identity not in of_name, (family.meter.prometheus, labels.pairs)
            of_name[identity] = value
    return values


def shown(
    each: base.Collector,
    current: model.Snapshot,
    previous: model.Snapshot | None = None,
    notes: base.Notes | None = None,
) -> Samples:
    """Return what one collector shows in one cycle."""
    return samples(each.collect(previous, current, {} if notes is None else notes))


def only(values: Mapping[frozenset[tuple[str, str]], float | int]) -> float | int:
    """Return the value of a name that has one sample."""
    [value] = values.values()
    return value
