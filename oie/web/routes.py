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

"""Which handler answers a request."""

from collections.abc import Callable
from collections.abc import Mapping
import dataclasses

from oie.web import messages

Handler = Callable[[messages.Request], messages.Response]


@dataclasses.dataclass(frozen=True, slots=True)
class Route:
    """A handler that runs in the loop or, if it takes milliseconds, on a worker.

    Nothing interrupts a handler, and while one runs in the loop nobody else is served.
    """

    handler: Handler
    is_slow: bool | Callable[[messages.Request], bool] = False

    def is_slow_for(self, request: messages.Request) -> bool:
        """Return whether this request wants a worker."""
        return self.is_slow if isinstance(self.is_slow, bool) else self.is_slow(request)


# Exact path -> method -> route. HEAD is made from GET.
Routes = Mapping[str, Mapping[str, Route]]


def find(routes: Routes, request: messages.Request) -> Route:
    """Return what answers the request, if only by saying that nothing else does."""
    methods = routes.get(request.path)
    if methods is None:
        return Route(lambda _: messages.sentence(404))
    route = methods.get('GET' if request.method == 'HEAD' else request.method)
    if route is None:
        allowed = ', '.join(sorted({*methods, 'HEAD'} if 'GET' in methods else methods))
        return Route(lambda _: messages.sentence(405, '', ('Allow', allowed)))
    return route
