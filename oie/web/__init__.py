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

"""Ready bytes -> HTTP clients: what a caller needs.

``Server([TcpListener(host, port, routes)]).start()`` is all of it; handlers take
a Request and give a Response. The package knows nothing of metrics.
"""

from oie.web.activation import passed
from oie.web.limits import Limits
from oie.web.listeners import group_id
from oie.web.listeners import Listener
from oie.web.listeners import parse_address
from oie.web.listeners import PassedListener
from oie.web.listeners import TcpListener
from oie.web.listeners import UnixListener
from oie.web.messages import Peer
from oie.web.messages import Request
from oie.web.messages import RequestError
from oie.web.messages import Response
from oie.web.register import Statistics
from oie.web.routes import Handler
from oie.web.routes import Route
from oie.web.routes import Routes
from oie.web.server import Server

__all__ = (
    'Handler',
    'Limits',
    'Listener',
    'PassedListener',
    'Peer',
    'Request',
    'RequestError',
    'Response',
    'Route',
    'Routes',
    'Server',
    'Statistics',
    'TcpListener',
    'UnixListener',
    'group_id',
    'parse_address',
    'passed',
)
