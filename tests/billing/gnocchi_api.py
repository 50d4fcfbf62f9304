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

"""The API of Gnocchi on a port of 127.0.0.1, under waitress: runs in Gnocchi's environment.

python -m tests.billing.gnocchi_api CONFIGURATION PORT
"""

import sys

_, _configuration, _port = sys.argv
# Gnocchi's application reads the command line when it is imported.
sys.argv = ['gnocchi-api', '--config-file', _configuration]

from gnocchi.rest import wsgi  # noqa: E402
import waitress  # noqa: E402

waitress.serve(wsgi.application, host='127.0.0.1', port=int(_port), threads=8)
