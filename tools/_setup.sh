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

# Set-up that test.sh and demo.sh share: system packages by bindep and a
# virtual environment in .venv. Sourced, not run; gives one function:
#
#   prepare STAMP 'BINDEP PROFILES' PIP-ARGUMENTS...
#
# It prints one line per thing it really does, nothing when all is in place.
# What apt and pip say goes to .setup.log, which is shown when they fail.

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
cd "$top"
log=$top/.setup.log

die() {
    printf '%s: %s\n' "$0" "$*" >&2
    exit 1
}

say() {
    printf -- '-- %s\n' "$*"
}

# Run a command with its output in the log. Descriptor 9 is our lock: a
# service that a package starts must not keep it.
quietly() {
    printf '\n$ %s\n' "$*" >>"$log"
    "$@" >>"$log" 2>&1 </dev/null 9>&-
}

must() {
    quietly "$@" && return
    tail -n 30 "$log" >&2
    die "failed: $* (all of the output: $log)"
}

apt() {
    DEBIAN_FRONTEND=noninteractive quietly \
        apt-get -qy -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 "$@"
}

lists_are_fresh=
install_packages() {
    command -v apt-get >/dev/null || die "install these packages first: $*"
    [ "$(id -u)" -eq 0 ] || die "run as root, or have root run: apt-get install $*"
    say "installing system packages: $*"
    # One unreachable third-party list must not stop us: the installation
    # tells whether something is really missing.
    [ -n "$lists_are_fresh" ] || apt update || say "apt-get update failed; trying with the old lists"
    lists_are_fresh=yes
    apt install --no-install-recommends "$@" && return
    tail -n 30 "$log" >&2
    die "apt-get could not install: $* (all of the output: $log)"
}

python_is_new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1
}

find_python() {
    local candidate
    for candidate in python3 python3.13 python3.12 python3.11 python3.10 /usr/bin/python3; do
        if python_is_new_enough "$candidate"; then
            command -v "$candidate"
            return
        fi
    done
    return 1
}

# The scripts inside an environment name its place: after a move it is made
# anew, as after the loss of its interpreter.
environment_works() {
    .venv/bin/python -c 'import pip' >/dev/null 2>&1 &&
        python_is_new_enough .venv/bin/python &&
        grep -qF "$top/.venv/" .venv/bin/pip
}

make_environment() {
    environment_works && return
    local python
    python=$(find_python) || install_packages python3 python3-venv
    python=${python:-$(find_python)} || die "no Python 3.10 or newer found"
    if ! "$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then
        install_packages "$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')"
    fi
    say "making the virtual environment .venv with $("$python" --version)"
    rm -rf .venv
    must "$python" -m venv .venv
}

install_system_packages() {
    local missing
    # shellcheck disable=SC2086  # a list of profiles
    if missing=$(.venv/bin/python -m bindep --brief $1 2>>"$log"); then
        return
    fi
    [ -n "$missing" ] || die "bindep failed; see $log"
    # shellcheck disable=SC2086  # a list of packages
    install_packages $missing
}

pip_install() {
    must .venv/bin/python -m pip install --disable-pip-version-check --no-input "$@"
}

# pbr takes the version of the package from git. Git refuses a tree that
# belongs to somebody else (a bind mount, the checkout of a CI system), and an
# unpacked archive has no history at all.
let_git_answer() {
    git rev-parse HEAD >/dev/null 2>&1 && return
    export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0=$top
    git rev-parse HEAD >/dev/null 2>&1 && return
    unset GIT_CONFIG_COUNT GIT_CONFIG_KEY_0 GIT_CONFIG_VALUE_0
    PBR_VERSION=$(sed -n 's/^version *= *//p' setup.cfg)
    export PBR_VERSION
}

prepare() {
    local stamp=.venv/.stamp-$1 profiles=$2 want
    shift 2
    exec 9>.setup.lock
    flock --nonblock 9 || { say 'waiting for another set-up to end' && flock 9; }
    : >"$log"
    if [ -n "${TOX_CONSTRAINTS_FILE:-}" ]; then
        export PIP_CONSTRAINT=$TOX_CONSTRAINTS_FILE
    fi

    make_environment
    if ! quietly .venv/bin/python -c 'import bindep'; then
        pip_install bindep
    fi
    install_system_packages "$profiles"
    let_git_answer
    want=$(cat setup.cfg setup.py pyproject.toml requirements.txt bindep.txt tools/_setup.sh | sha256sum)
    if [ "$(cat "$stamp" 2>/dev/null)" != "$want" ]; then
        say "installing into .venv: $*"
        pip_install "$@"
        printf '%s\n' "$want" >"$stamp"
    fi
    exec 9>&-
}
