#!/usr/bin/env bash
# All tests in an environment of their own: bash tests/run.sh [arguments for pytest]
#
# The environment lies in .venv-test and is made anew when pyproject.toml has changed. The data are
# looked for in $GAMMAPY_DATA, else in ../shared/gammapy-data (see tests/conftest.py).
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
venv=.venv-test
stamp=$(cksum <pyproject.toml)
if [ "$(cat $venv/stamp 2>/dev/null)" != "$stamp" ]; then
    rm -rf $venv
    "$python" -m venv $venv
    $venv/bin/python -m pip install -q --disable-pip-version-check -e '.[test,distributed]'
    echo "$stamp" >$venv/stamp
fi
export PATH="$PWD/$venv/bin:$PATH"

exec python -m pytest "$@"
