#!/usr/bin/env bash
# All tests in an environment of their own: bash tests/run.sh [arguments for pytest]
#
# The environment lies in .venv-test and is made anew when pyproject.toml has changed. The data are
# looked for in $GAMMAPY_DATA, else in ../shared/gammapy-data (see tests/conftest.py). Without
# arguments all tests run: those without a browser file by file side by side, then those with one,
# which need the machine to themselves.
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
# Many tests start processes of their own, and each would compile the package anew.
unset PYTHONDONTWRITEBYTECODE

if [ $# -gt 0 ]; then
    exec python -m pytest "$@"
fi
failed=0
python -m pytest --numprocesses=auto --maxprocesses=4 --dist=loadfile --ignore-glob="*/test_browser_*" || failed=$?
python -m pytest tests/test_browser_*.py || failed=$?
exit $failed
