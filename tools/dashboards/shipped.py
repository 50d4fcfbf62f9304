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


"""The dashboards of etc/grafana, and what provisions them."""

from collections.abc import Iterable

from tools.dashboards import grafana
from tools.dashboards import host
from tools.dashboards import instance
from tools.dashboards import network
from tools.dashboards import panels
from tools.dashboards import project
from tools.dashboards import usage

ALL = (
    host.DASHBOARD,
    instance.DASHBOARD,
    project.DASHBOARD,
    network.DASHBOARD,
    usage.DASHBOARD,
)


def files(dashboards: Iterable[panels.Dashboard] = ALL) -> dict[str, str]:
    """Return the text of every dashboard by its path in the repository."""
    return {f'etc/grafana/dashboards/{each.uid}.json': grafana.text(each) for each in dashboards}
