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

"""Plugins load by name, or one line says which one does not and why."""

from oslo_config import cfg
import pytest

from oie import exceptions
from oie import plugins
from oie.feeds import base
from tests.unit import entry_points

HERE = 'tests.unit.test_plugins'


class Cpu:
    """Gives CPU figures.

    The rest of this text is for programmers.
    """

    OPTS = (cfg.IntOpt('minimum', default=1, help='A number.'),)


class Disk:
    """Gives disk figures."""

    GROUP = 'disk'
    GROUP_HELP = 'About disks.'


class Unfinished(base.ThreatFeed):
    def sources(self):
        return ()


class Wrong:
    OPTS = ('minimum',)


NO_CLASS = object()


@pytest.fixture(autouse=True)
def _nothing_installed(monkeypatch):
    for namespace in plugins.NAMESPACES:
        entry_points.install(monkeypatch, namespace, ())


@pytest.fixture
def collectors(monkeypatch):
    """Return a function that installs collectors of this module."""

    def install(*found):
        entry_points.install(
            monkeypatch, 'oie.collectors', [(name, f'{HERE}:{value}') for name, value in found]
        )

    return install


def message_of(action, *arguments):
    with pytest.raises(exceptions.ConfigError) as caught:
        action(*arguments)
    return str(caught.value)


class TestLoad:
    def test_all_plugins_come_in_the_order_of_the_alphabet(self, collectors):
        collectors(('disk', 'Disk'), ('cpu', 'Cpu'))
        assert list(plugins.load('oie.collectors').items()) == [('cpu', Cpu), ('disk', Disk)]

    def test_named_plugins_come_in_the_order_of_the_names(self, collectors):
        collectors(('cpu', 'Cpu'), ('disk', 'Disk'))
        assert list(plugins.load('oie.collectors', ['disk', 'cpu'])) == ['disk', 'cpu']

    def test_a_plugin_that_nobody_wants_is_not_imported(self, collectors):
        collectors(('cpu', 'Cpu'), ('broken', 'Missing'))
        assert plugins.load('oie.collectors', ['cpu']) == {'cpu': Cpu}

    def test_no_name_is_not_all_names(self, collectors):
        collectors(('cpu', 'Cpu'))
        assert plugins.load('oie.collectors', []) == {}

    def test_unknown_name_is_told_with_the_known_ones(self, collectors):
        collectors(('disk', 'Disk'), ('cpu', 'Cpu'))
        assert message_of(plugins.load, 'oie.collectors', ['gpu']) == (
            "plugin 'gpu' of oie.collectors is not installed; these are: cpu, disk"
        )

    def test_unknown_name_where_nothing_is_installed(self):
        assert message_of(plugins.load, 'oie.collectors', ['cpu']) == (
            "plugin 'cpu' of oie.collectors is not installed; these are: none"
        )

    def test_one_name_for_two_plugins_is_told_with_both_homes(self, collectors):
        collectors(('cpu', 'Cpu'), ('disk', 'Disk'), ('cpu', 'Disk'))
        assert message_of(plugins.load, 'oie.collectors') == (
            "plugin 'cpu' of oie.collectors is installed more than once "
            '(tests.unit.test_plugins:Cpu, tests.unit.test_plugins:Disk); uninstall all but one'
        )

    def test_missing_class_is_told_with_its_cause(self, collectors):
        collectors(('cpu', 'Missing'))
        assert message_of(plugins.load, 'oie.collectors') == (
            "plugin 'cpu' of oie.collectors (tests.unit.test_plugins:Missing) cannot be loaded: "
            "AttributeError: module 'tests.unit.test_plugins' has no attribute 'Missing'; "
            'repair its package or uninstall it'
        )

    def test_missing_module_is_told_with_its_cause(self, monkeypatch):
        entry_points.install(monkeypatch, 'oie.sources', [('far', 'oie_of_nobody:Far')])
        assert message_of(plugins.load, 'oie.sources') == (
            "plugin 'far' of oie.sources (oie_of_nobody:Far) cannot be loaded: "
            "ModuleNotFoundError: No module named 'oie_of_nobody'; "
            'repair its package or uninstall it'
        )

    def test_a_failing_assertion_in_the_module_is_told_in_one_line(self, monkeypatch, tmp_path):
        (tmp_path / 'oie_asserts.py').write_text("assert False, 'two\\nlines'\n")
        monkeypatch.syspath_prepend(tmp_path)
        entry_points.install(monkeypatch, 'oie.sources', [('far', 'oie_asserts:Far')])
        assert message_of(plugins.load, 'oie.sources') == (
            "plugin 'far' of oie.sources (oie_asserts:Far) cannot be loaded: "
            'AssertionError: two lines; repair its package or uninstall it'
        )

    def test_something_else_than_a_class_is_refused(self, collectors):
        collectors(('cpu', 'NO_CLASS'))
        assert message_of(plugins.load, 'oie.collectors') == (
            "plugin 'cpu' of oie.collectors (tests.unit.test_plugins:NO_CLASS) cannot be "
            'loaded: it is not a class; repair its package or uninstall it'
        )

    def test_class_that_lacks_a_part_is_refused_by_its_name(self, collectors):
        collectors(('cpu', 'Unfinished'))
        assert message_of(plugins.load, 'oie.collectors') == (
            "plugin 'cpu' of oie.collectors (tests.unit.test_plugins:Unfinished) cannot be "
            'loaded: it does not define parse; repair its package or uninstall it'
        )


class TestOptions:
    def test_group_is_prefix_and_name(self):
        assert plugins.group_of('oie.collectors', 'cpu', Cpu) == 'collector_cpu'
        assert plugins.group_of('oie.sources', 'cpu', Cpu) == 'source_cpu'

    def test_group_of_the_class_stands_above_the_prefix(self):
        assert plugins.group_of('oie.collectors', 'disk', Disk) == 'disk'

    def test_a_class_without_options_has_none(self):
        assert plugins.options_of(Disk) == ()

    def test_options_that_are_none_are_refused(self):
        assert message_of(plugins.options_of, Wrong) == (
            'plugin tests.unit.test_plugins:Wrong: '
            "OPTS holds 'minimum', which is not an option of oslo.config"
        )

    def test_every_installed_plugin_has_a_group(self, collectors, monkeypatch):
        collectors(('cpu', 'Cpu'), ('disk', 'Disk'))
        entry_points.install(monkeypatch, 'oie.sources', [('host', f'{HERE}:Cpu')])
        groups = plugins.option_groups()
        assert [(group.name, group.help, opts) for group, opts in groups] == [
            ('collector_cpu', 'Gives CPU figures.', Cpu.OPTS),
            ('disk', 'About disks.', ()),
            ('source_host', 'Gives CPU figures.', Cpu.OPTS),
        ]

    def test_names_come_once_and_in_the_order_of_the_alphabet(self, collectors):
        collectors(('disk', 'Disk'), ('cpu', 'Cpu'), ('cpu', 'Disk'))
        assert plugins.names('oie.collectors') == ('cpu', 'disk')
