#!/usr/bin/env bash
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

# Show oie at work, from a bare Debian 12 on: sets up what is missing, then
# prints the JSON of every pollster and serves the endpoint until Ctrl-C.
#
#   tools/demo.sh           stay until Ctrl-C
#   tools/demo.sh --once    print the JSON and one scrape, and leave

set -euo pipefail
# shellcheck source=tools/_setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/_setup.sh"

prepare demo '' --editable .
exec .venv/bin/python tools/demo.py "$@"
