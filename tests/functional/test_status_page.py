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


"""A real browser shows the status page: whole, by itself, in every light, and nothing runs."""

from collections.abc import Iterator
import dataclasses
import http.client

import pytest

from oie import endpoint
from oie import model
from oie import service
from oie import web
from oie.cmd import wiring
from oie.outputs import page_style
from oie.outputs import prometheus
from tests import builders
from tests import machine
from tests.functional import chromium
from tests.functional import exporter as exporters
from tests.functional import processes
from tests.functional import test_demo

# Each would set the title of the page, if it were more than a text.
ATTACKS = (
    '<script>document.title="owned"</script>',
    '<img src=x onerror=document.title="owned">',
    '"><svg onload=document.title="owned">',
    '</style><style>*{display:none}</style>',
    "javascript:document.title='owned'",
    '</td></table></section><h1>owned</h1>',
    '\u202eowned\u2066\0\x1b[31m',
    '<!--',
)
NARROW, WIDE = 360, 1400


@pytest.fixture(scope='module')
def browser(laboratory: None) -> Iterator[chromium.Browser]:
    machine.require(chromium.what_is_missing())
    with chromium.Browser() as running:
        yield running


class Served:
    """The page of one snapshot behind our real server."""

    def __init__(self, snapshot: model.Snapshot) -> None:
        nothing = prometheus.Exposition(b'', b'')
        collectors = ('instance', 'namespaces')
        self._endpoint = endpoint.Endpoint(
            lambda: service.Publication(snapshot, nothing),
            first=lambda: nothing,
            content_type=prometheus.CONTENT_TYPE,
            telemetry_path='/metrics',
            pollsters=wiring.pollsters(),
            max_age=lambda: 30.0,
            collectors=collectors,
            version='1.2.3',
            clock=lambda: builders.NOW,
        )
        self.port = processes.free_port()
        listener = web.TcpListener('127.0.0.1', self.port, self._endpoint.tcp_routes())
        self._server = web.Server([listener])

    @property
    def url(self) -> str:
        return f'http://127.0.0.1:{self.port}/'

    def __enter__(self) -> 'Served':
        self._server.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.stop(2.0)


@pytest.fixture(scope='module')
def hostile() -> Iterator[Served]:
    """Serve a node of which every text is an attack, and every instance is old."""
    with Served(_hostile()) as served:
        yield served


@pytest.mark.parametrize('scheme', ['light', 'dark'])
@pytest.mark.parametrize('width', [NARROW, WIDE])
def test_page_is_styled_by_its_own_policy_and_asks_nobody_for_anything(
    browser: chromium.Browser, hostile: Served, width: int, scheme: str
) -> None:
    page = browser.open(hostile.url, width=width, scheme=scheme)

    assert page.complaints() == []
    remote = [url for url in page.requests() if not url.startswith('data:')]
    assert remote == [hostile.url]
    # Refused, the style sheet would leave a browser's own white.
    shown = page.evaluate('getComputedStyle(document.body).backgroundColor')
    assert shown == {'light': 'rgb(243, 245, 247)', 'dark': 'rgb(15, 21, 27)'}[scheme]
    assert page.evaluate('document.documentElement.scrollWidth') <= width


def test_no_name_becomes_more_than_a_text(browser: chromium.Browser, hostile: Served) -> None:
    page = browser.open(hostile.url)

    assert page.evaluate('document.title') == f'{builders.HOST} - OpenStack Instance Exporter'
    assert page.evaluate('document.querySelectorAll("script, img, svg, iframe").length') == 0
    assert page.evaluate('document.querySelectorAll("style").length') == 1
    assert page.evaluate('document.querySelectorAll("h1").length') == 1
    text = page.evaluate('document.body.textContent')
    for attack in ATTACKS:
        assert attack in text or not attack.isprintable()
    assert '\u202e' not in text


def test_what_a_name_might_smuggle_in_would_not_run(
    browser: chromium.Browser, hostile: Served
) -> None:
    """The second line of defence: were a name markup, the policy still refuses it."""
    page = browser.open(hostile.url)

    page.evaluate(
        'document.body.insertAdjacentHTML("beforeend", '
        '"<img src=/x onerror=document.title=1><p style=color:red id=p>x</p>'
        '<a id=a onclick=document.title=1>x</a>")'
    )
    page.evaluate('document.getElementById("a").click()')

    assert page.evaluate('document.title') != '1'
    assert (
        page.evaluate('getComputedStyle(document.getElementById("p")).color') != 'rgb(255, 0, 0)'
    )
    assert len(page.complaints()) >= 2


def test_page_reads_well_aloud(browser: chromium.Browser, hostile: Served) -> None:
    page = browser.open(hostile.url)

    headings = page.accessible('heading')
    assert headings[0] == builders.HOST
    assert {'Sources', 'Instances', 'Threat feeds', 'Network namespaces'} <= set(headings)
    assert {'Source', 'State', 'Last read', 'Took'} <= set(page.accessible('columnheader'))
    assert len(page.accessible('rowheader')) > 5
    assert page.accessible('link') == ['Metrics', 'Ready?', 'Alive?']
    assert {'banner', 'main', 'contentinfo', 'navigation'} <= {
        role for role in ('banner', 'main', 'contentinfo', 'navigation') if page.accessible(role)
    }
    assert page.evaluate('document.documentElement.lang') == 'en'


@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_every_text_stands_out_from_its_ground(
    browser: chromium.Browser, hostile: Served, scheme: str
) -> None:
    page = browser.open(hostile.url, scheme=scheme)

    poorest = page.evaluate(_POOREST_CONTRAST)

    # WCAG 2.1, 1.4.3, for texts of any size.
    assert poorest['ratio'] >= 4.5, poorest


def test_page_of_a_running_exporter(browser: chromium.Browser, laboratory: None) -> None:
    with exporters.Exporter(test_demo.URI) as running:
        running.next_scrape()
        page = browser.open(f'http://{running.address}/')

        assert page.complaints() == []
        assert page.evaluate('document.querySelector("h1").textContent') == exporters.HOST
        words = page.evaluate(
            '[...document.querySelectorAll("section .state")].map(e => e.textContent)'
        )
        facts = page.evaluate('document.querySelector("header dl").innerText')
        links = page.evaluate('[...document.querySelectorAll("nav a")].map(a => a.pathname)')

        assert words
        assert set(words) == {'ok'}
        assert 'ready' in facts
        assert [running.get(path)[0] for path in links] == [200] * 3


def test_the_policy_names_the_style_that_is_served(hostile: Served) -> None:
    connection = http.client.HTTPConnection('127.0.0.1', hostile.port, timeout=5)
    connection.request('GET', '/')
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    assert answer.getheader('Content-Security-Policy') == page_style.POLICY
    assert f'<style>{page_style.SHEET}</style>' in body


def _hostile() -> model.Snapshot:
    """Return a node that is in trouble, and whose every name is chosen by an enemy."""
    node = builders.node()
    instances = tuple(
        builders.instance(
            builders.definition(uuid=f'00000000-0000-4000-8000-{n:012}', domain=attack),
            is_fresh=bool(n % 2),
            is_complete=False,
        )
        for n, attack in enumerate(ATTACKS)
    )
    lists = tuple(builders.threat_list(attack, error=attack) for attack in ATTACKS)
    partial = (builders.dhcp_netns(name=attack, failures={attack: attack}) for attack in ATTACKS)
    groups = {
        name: model.GroupHealth(is_success=False, seconds=0.1, succeeded_at=builders.NOW - 9)
        for name in ('libvirt', 'conntrack', 'netns', *ATTACKS)
    }
    assert node.threats is not None
    return dataclasses.replace(
        node,
        instances=builders.reading(*instances, error=' '.join(ATTACKS)[:150]),
        namespaces=builders.namespaces(*partial, error=ATTACKS[0]),
        hypervisor=builders.hypervisor(domains_by_state=dict.fromkeys(ATTACKS, 1)),
        threats=dataclasses.replace(node.threats, lists=lists),
        ledger=builders.ledger_health(is_durable=False),
        cycle=builders.cycle(groups={**groups, **builders.cycle().groups}),
    )


# Of each text its colour against the first ground below it that is not transparent.
_POOREST_CONTRAST = """
(() => {
  const parts = c => c.match(/[\\d.]+/g).map(Number);
  const light = c => {
    const [r, g, b] = parts(c).map(v => v / 255)
      .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = e => {
    for (; e; e = e.parentElement) {
      const c = getComputedStyle(e).backgroundColor;
      if (parts(c)[3] !== 0) return c;
    }
    return 'rgb(255, 255, 255)';
  };
  let worst = {ratio: 21};
  document.querySelectorAll('body *').forEach(e => {
    if (![...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim())) return;
    const [a, b] = [light(getComputedStyle(e).color), light(ground(e))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < worst.ratio) worst = {ratio, text: e.textContent, tag: e.tagName};
  });
  return worst;
})()
"""
