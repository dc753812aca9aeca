#!/usr/bin/env bash
# Runs the unit tests with the oldest or the newest versions that pyproject.toml admits, in a new environment: what
# constraints.txt does not see. Without arguments for pytest, all tests but those of notebooks and browsers.
#     tests/versions.sh oldest|newest [PYTEST ARGUMENTS ...]
set -euo pipefail
cd "$(dirname "$0")/.."
which=$1
shift

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
source "$work/venv/bin/activate"
python -m pip install -q packaging

python - "$which" >"$work/versions.txt" <<'PYTHON'
import sys
import tomllib
from packaging.requirements import Requirement

with open("pyproject.toml", "rb") as file:
    requirements = [Requirement(line) for line in tomllib.load(file)["project"]["dependencies"]]
for requirement in requirements if sys.argv[1] == "oldest" else []:
    for bound in requirement.specifier:
        if bound.operator == ">=":
            print(f"{requirement.name}=={bound.version}.*")
PYTHON
cat "$work/versions.txt"
python -m pip install -q --upgrade -c "$work/versions.txt" -e ".[test]"
python -c 'import numpy, torch; print("numpy", numpy.__version__, "torch", torch.__version__)'

if [ $# = 0 ]; then set -- tests --ignore-glob='tests/test_browser*'; fi
python -m pytest -q "$@"
