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


"""What a dashboard shows: panels in rows, their queries, and the choices above them.

In queries a few short forms stand for what every one of them needs:

    @host     the hosts that are chosen above the dashboard
    @project  the same hosts, and the projects
    @uuid     the instance
    @site     the sites, for what a portal has federated
    @rate     a window that always holds some scrapes
    @range    the time that is shown
"""

from collections.abc import Iterator
from collections.abc import Mapping
import dataclasses
from typing import Any

SHORT = {
    '@host': 'instance=~"$host"',
    '@project': 'instance=~"$host",project_uuid=~"$project"',
    '@uuid': 'instance_uuid="$uuid"',
    '@site': 'location=~"$location"',
    '@rate': '$__rate_interval',
    '@range': '$__range',
}
# What colours say, from a value on; the first one holds from the smallest on.
ZERO_IS_GOOD = (('green', None), ('red', 1))
ONE_IS_GOOD = (('red', None), ('green', 1))
PLAIN = (('blue', None),)
YES = {'0': ('no', 'red'), '1': ('yes', 'green')}


@dataclasses.dataclass(frozen=True)
class Query:
    """An expression, and what its series are called; labels stand in double braces."""

    expression: str
    legend: str = ''

    @property
    def text(self) -> str:
        """What Prometheus gets, but for the variables of Grafana."""
        text = ' '.join(self.expression.split())
        for short, long in SHORT.items():
            text = text.replace(short, long)
        return text


@dataclasses.dataclass(frozen=True, kw_only=True)
class Panel:
    """One picture: ``kind`` is timeseries, stat, bargauge or table.

    :ivar unit: as Grafana names it
    :ivar steps: colours and the values from which they hold
    :ivar words: what is shown for a value, and its colour
    :ivar columns: of a table, label (or ``Value``, ``Value #B``) → title; others are hidden
    :ivar units: of the columns of a table that have one of their own, by title
    """

    title: str
    description: str
    queries: tuple[Query, ...]
    kind: str = 'timeseries'
    unit: str = 'short'
    width: int = 8
    height: int = 8
    steps: tuple[tuple[str, float | None], ...] = PLAIN
    words: Mapping[str, tuple[str, str]] = dataclasses.field(default_factory=dict)
    columns: Mapping[str, str] = dataclasses.field(default_factory=dict)
    units: Mapping[str, str] = dataclasses.field(default_factory=dict)
    minimum: float | None = None
    maximum: float | None = None
    is_stacked: bool = False


@dataclasses.dataclass(frozen=True)
class Row:
    """Panels under a heading."""

    title: str
    panels: tuple[Panel, ...]
    is_collapsed: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Variable:
    """A choice above a dashboard: ``query`` gives values, ``pattern`` takes them apart."""

    name: str
    title: str
    query: str
    pattern: str = ''
    is_multiple: bool = True


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dashboard:
    """A page of panels; ``uid`` is its address and never changes."""

    uid: str
    title: str
    description: str
    variables: tuple[Variable, ...]
    rows: tuple[Row, ...]

    def panels(self) -> Iterator[Panel]:
        """Give all panels in their order."""
        for row in self.rows:
            yield from row.panels


def graph(title: str, description: str, *queries: Query, **more: Any) -> Panel:
    """Return lines over time."""
    return Panel(title=title, description=description, queries=queries, **more)


def stat(title: str, description: str, expression: str, **more: Any) -> Panel:
    """Return one large number."""
    values = {'kind': 'stat', 'width': 3, 'height': 4, **more}
    return Panel(title=title, description=description, queries=(Query(expression),), **values)


def bars(title: str, description: str, *queries: Query, **more: Any) -> Panel:
    """Return a bar for each series."""
    return Panel(title=title, description=description, queries=queries, kind='bargauge', **more)


def table(
    title: str, description: str, columns: Mapping[str, str], *queries: Query, **more: Any
) -> Panel:
    """Return a table of what holds now; rows of several queries join by their labels."""
    values = {'kind': 'table', 'width': 12, 'columns': columns, **more}
    return Panel(title=title, description=description, queries=queries, **values)
