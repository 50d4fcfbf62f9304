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

"""The options: what may be set, and the command line and files that set it.

Programs call load(); plugins take from here the types of their options.
"""

from oie.config import core_options
from oie.config import endpoints
from oie.config import loading
from oie.config import logs
from oie.config import option_types

OPTS = core_options.OPTS

Direction = option_types.Direction
Duration = option_types.Duration
Endpoint = endpoints.Endpoint
FeedUrl = option_types.FeedUrl
FilePath = option_types.FilePath
HttpPath = option_types.HttpPath
Licences = option_types.Licences
ListenAddress = option_types.ListenAddress
Names = option_types.Names
Pattern = option_types.Pattern
PluginNames = option_types.PluginNames
ProcFiles = option_types.ProcFiles
SocketPath = option_types.SocketPath
Text = option_types.Text
Thresholds = option_types.Thresholds

LOG_LEVELS = tuple(logs.LEVELS)

fail = loading.fail
load = loading.load
register = loading.register
set_log_level = logs.set_level
setup_logging = logs.setup
