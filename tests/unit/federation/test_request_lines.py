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

"""A request line is what Prometheus makes of the same selectors."""

import urllib.parse

from hypothesis import given
from hypothesis import strategies
import yaml

from oie.federation import request_lines


def test_line_is_encoded_as_go_encodes_it():
    # Made by url.Values.Encode of Go for these two values.
    line = request_lines.request_line(('{job="a b",x=~"c+|d~*"}', 'up'))
    assert line == (
        '/federate?match%5B%5D=%7Bjob%3D%22a+b%22%2Cx%3D~%22c%2B%7Cd~%2A%22%7D&match%5B%5D=up'
    )


def test_order_of_the_selectors_is_kept():
    assert request_lines.request_line(('b', 'a'), '/p/federate') == (
        '/p/federate?match%5B%5D=b&match%5B%5D=a'
    )


@given(strategies.lists(strategies.text(min_size=1), min_size=1))
def test_line_is_one_line_of_ascii_and_means_the_selectors(selectors):
    line = request_lines.request_line(selectors)
    assert line.isascii()
    assert line.isprintable()
    assert ' ' not in line
    assert urllib.parse.parse_qs(line.partition('?')[2], strict_parsing=True) == {
        'match[]': selectors
    }


def test_each_request_is_listed_once():
    assert request_lines.listed((('a',), ('b', 'c'), ('a',)), '/f') == (
        '/f?match%5B%5D=a\n/f?match%5B%5D=b&match%5B%5D=c\n'
    )


@given(strategies.lists(strategies.text('ab"\'\\:#{}€ ', min_size=1), min_size=1))
def test_parameters_of_a_portal_are_yaml_that_means_the_selectors(selectors):
    text = request_lines.scrape_parameters((selectors, ('up',)), '/federate')
    assert list(yaml.safe_load_all(text)) == [
        {'metrics_path': '/federate', 'params': {'match[]': selectors}},
        {'metrics_path': '/federate', 'params': {'match[]': ['up']}},
    ]
