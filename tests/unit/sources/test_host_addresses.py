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

"""The addresses of chosen interfaces that are up; one that is not there has none."""

import pytest

from oie import exceptions
from oie.sources import host_addresses


@pytest.fixture
def sysfs(tmp_path):
    """Return a function that makes an interface with these flags."""

    def make(name, flags):
        (tmp_path / name).mkdir()
        (tmp_path / name / 'flags').write_text(flags)
        return str(tmp_path)

    return make


def read(sysfs, *names):
    return host_addresses.HostAddresses(names, sysfs=sysfs).read()


def test_interface_that_is_up_has_its_addresses(sysfs):
    assert '127.0.0.1' in read(sysfs('lo', '0x9\n'), 'lo')


def test_interface_that_is_down_has_none(sysfs):
    assert read(sysfs('lo', '0x1008\n'), 'lo') == ()


def test_interface_that_does_not_exist_has_none(sysfs):
    assert read(sysfs('lo', '0x9\n'), 'oie-nowhere') == ()


def test_flags_that_are_none_are_an_error(sysfs):
    with pytest.raises(exceptions.SourceError, match='interface lo'):
        read(sysfs('lo', 'up\n'), 'lo')
