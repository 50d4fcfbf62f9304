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

"""What openstacksdk and its parts raise → ``UsageError``, with its reason."""

from collections.abc import Iterator
import contextlib
from typing import Any

import requests

from oie import exceptions
from oie.config import messages

_UNAUTHORIZED, _FORBIDDEN = 401, 403
_MOST_CHARACTERS = 300


class Forbidden(exceptions.UsageError):
    """The user is known and may not ask for this."""

    def __init__(self, place: str) -> None:
        super().__init__('auth', f'{place}: the user may not ask for it; give it the right to')


@contextlib.contextmanager
def translated(place: str) -> Iterator[None]:
    """Raise what openstacksdk raises within as UsageError.

    :param place: what was asked for
    """
    try:
        yield
    except exceptions.OieError:
        raise
    # openstacksdk, keystoneauth1, requests and the plugins of all of them may raise anything.
    except Exception as exc:
        text = messages.one_line(str(exc) or repr(exc))[:_MOST_CHARACTERS]
        raise exceptions.UsageError(
            _reason(exc), f'{place}: {type(exc).__name__}: {text}'
        ) from exc


def check(place: str, answer: Any) -> None:
    """Look at the status of an answer.

    :raises UsageError: it is no success; Forbidden where the user lacks a right
    """
    status = answer.status_code
    if status == _FORBIDDEN:
        raise Forbidden(place)
    if status == _UNAUTHORIZED:
        raise exceptions.UsageError('auth', f'{place}: the cloud does not take our token')
    if status != requests.codes.ok:
        raise exceptions.UsageError('http', f'{place}: the cloud answered {status}')


def _reason(exc: Exception) -> str:
    import keystoneauth1.exceptions as of_session
    import openstack.exceptions as of_sdk

    # keystoneauth1 wraps what it does not know; a body that is cut off is such a thing.
    cause = getattr(exc, 'original', None) or exc
    if isinstance(cause, requests.exceptions.ChunkedEncodingError):
        return 'truncated'
    for reason, kinds in (
        ('auth', (of_session.Unauthorized, of_session.Forbidden, of_session.AuthorizationFailure)),
        ('timeout', (of_session.ConnectTimeout, requests.Timeout)),
        ('connect', (of_session.ConnectionError, requests.ConnectionError)),
        ('http', (of_session.HttpError, of_sdk.HttpException)),
        (
            'setup',
            (
                of_session.MissingRequiredOptions,
                of_session.MissingAuthPlugin,
                of_session.NoMatchingPlugin,
                of_session.CatalogException,
                of_sdk.ConfigException,
            ),
        ),
        ('connect', (of_session.DiscoveryFailure,)),
        # A body that is no JSON.
        ('malformed', (ValueError, requests.RequestException)),
    ):
        if isinstance(exc, kinds):
            return reason
    return 'other'
