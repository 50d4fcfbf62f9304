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


"""The operating system that the QEMU guest agent in a guest tells.

libvirt asks the agent over a read-write connection only, which can do anything to
any guest. So the daemon never holds one: a child process opens it for one question,
and is ended at a limit with all it started. What the agent says is up to whoever
rules the guest.
"""

from collections.abc import Mapping
import json
import os
import sys
from typing import Any
from typing import ClassVar

from oslo_config import cfg

from oie import config
from oie import exceptions
from oie import model
from oie.sources.guest_os import base
from oie.sources.guest_os import catalogue
from oie.sources.guest_os import sessions

COMMAND = (sys.executable, '-m', 'oie.sources.guest_os.agent_worker')

OPTS = (
    cfg.BoolOpt(
        'allow_read_write',
        default=False,
        help='Whether read-write connections to libvirt may be opened: libvirt gives the '
        'answers of guest agents over no other. One is open in a short-lived process for as '
        'long as one guest is asked. The user of oie-exporter must have the right to use it, '
        'and with that right it could stop or change any guest.',
    ),
    cfg.StrOpt(
        'uri',
        default='',
        help='URI of the hypervisor for these connections. Empty: that of [libvirt] uri.',
    ),
    cfg.Opt(
        'timeout',
        type=config.Duration(minimum=1, maximum=30),
        default='5s',
        help='How long an agent may take to answer, in whole seconds. While one is asked, and '
        'for that long at most, the same limit holds for what others ask of this agent; '
        'afterwards libvirt waits without a limit again, which is its default.',
    ),
)

# Beyond the agent's own limit: to start, to connect, for libvirt to find the agent in step
# (5 s in qemuAgentGuestSync of libvirt 9.0.0), and to wait for others that ask it.
GRACE = 20.0

_KEPT_VARIABLES = ('PATH', 'LANG', 'LC_ALL', 'PYTHONPATH', 'PYTHONHOME')
_FAILURES = frozenset(
    {'not_connected', 'unresponsive', 'denied', 'gone', 'unreachable', 'refused', 'invalid'}
)
# Of qemu-ga for Windows; other systems tell variants of their own.
_VARIANTS: Mapping[str, str] = {'server': 'Server', 'client': 'Client'}


class GuestAgentDriver(base.GuestOsDriver):
    """guest-get-osinfo of the QEMU guest agent.

    :param grace: seconds beyond ``timeout`` after which the child is killed
    """

    OPTS: ClassVar[tuple[cfg.Opt, ...]] = OPTS
    IS_SLOW: ClassVar[bool] = True

    def __init__(
        self,
        options: Any = None,
        uri: str = '',
        *,
        grace: float = GRACE,
        command: tuple[str, ...] = COMMAND,
    ) -> None:
        """Make sure that it is allowed.

        :raises ConfigError: the operator has not allowed read-write connections
        """
        super().__init__(options, options.uri or uri)
        if not options.allow_read_write:
            raise exceptions.ConfigError(
                '[guest_os] drivers names guest_agent, which needs read-write connections to '
                'libvirt; set [guest_os_guest_agent] allow_read_write = true or take it out'
            )
        # libvirt takes whole seconds.
        self._timeout = max(1, int(options.timeout))
        self._limit = self._timeout + grace
        self._command = command
        self._runner = sessions.Runner()

    def read(self, instance: model.Instance) -> model.GuestOs | None:
        """Return what the agent says, None for a guest without a channel for one.

        :raises InspectionFailed: the guest does not run, or there is no proper answer
        """
        definition = instance.definition
        if not definition.has_agent_channel:
            return None
        if instance.state != model.DomainState.RUNNING:
            raise base.InspectionFailed('not_running', 'the guest is not running')
        return parse(self._ask(definition.uuid, instance.domain_id))

    def check(self) -> None:
        """Open a read-write connection, and close it; no guest is asked.

        :raises InspectionFailed: libvirt does not let us in
        """
        self._ask('', 0)

    def _ask(self, uuid: str, domain_id: int) -> Mapping[str, str] | None:
        """Return the agent's facts by libvirt's names; None where it cannot tell them."""
        job = {
            'parent': os.getpid(),
            'uri': self.uri,
            'uuid': uuid,
            'domain_id': domain_id,
            'timeout': self._timeout,
        }
        try:
            ending = self._runner.run(
                self._command,
                json.dumps(job).encode(),
                environment={n: os.environ[n] for n in _KEPT_VARIABLES if n in os.environ},
                seconds=self._limit,
                stop=self.stopping,
            )
        except OSError as exc:
            raise base.InspectionFailed('not_started', f'no child process: {exc}') from exc
        return decode(ending, self._limit)


def decode(ending: sessions.Ending, limit: float) -> Mapping[str, str] | None:
    """Return the facts that the child has brought, None where the agent cannot tell.

    :raises InspectionFailed: it has brought none
    """
    if ending.why == 'timeout':
        raise base.InspectionFailed(
            'timeout', f'killed after {limit:g} s; is libvirtd stopped or overloaded?'
        )
    if ending.why:
        raise base.InspectionFailed('broken', f'the child process was ended: {ending.why}')
    try:
        answer = json.loads(ending.output)
        failure, facts = answer.get('failure', ''), answer.get('os')
    except (ValueError, AttributeError, RecursionError) as exc:
        last = base.clean(ending.said.strip().rpartition('\n')[2])
        raise base.InspectionFailed(
            'broken', f'the child process gave no answer (status {ending.status}): {last}'
        ) from exc
    if failure:
        is_ours = isinstance(failure, str) and failure in _FAILURES
        raise base.InspectionFailed(
            failure if is_ours else 'failed', base.clean(answer.get('text'))
        )
    if facts is None:
        return None
    if not isinstance(facts, dict):
        raise base.InspectionFailed('invalid', 'the child process gave no facts')
    return {name: text for name, text in facts.items() if isinstance(text, str)}


def parse(facts: Mapping[str, str] | None) -> model.GuestOs | None:
    """Return the operating system that an agent tells, None where it tells nothing.

    :param facts: keys of virDomainGetGuestInfo without ``os.``; the values are those of
        os-release(5), or of the agent's own table for Windows
    """
    if not facts:
        return None
    given = {name: base.clean(text) for name, text in facts.items()}
    distro, version = given.get('id', ''), given.get('version-id', '')
    found = catalogue.describe(distro, '' if version == model.UNKNOWN else version)
    if found is None:
        found = model.GuestOs()
    if found.family == catalogue.WINDOWS:
        found = catalogue.windows(version, _known(given, 'kernel-version'))
    variant = given.get('variant-id', '').lower()
    return _with_product(
        found,
        _known(given, 'pretty-name') or _known(given, 'name'),
        _VARIANTS.get(variant) or _known(given, 'variant'),
    )


def _known(given: Mapping[str, str], name: str) -> str:
    text = given.get(name, '')
    return '' if text == model.UNKNOWN else text


def _with_product(found: model.GuestOs, product: str, variant: str) -> model.GuestOs:
    return model.GuestOs(
        family=found.family,
        distro=found.distro,
        info=found.info,
        product_name=product or found.product_name,
        product_variant=variant or found.product_variant,
        version=found.version,
        version_major=found.version_major,
        version_minor=found.version_minor,
    )
