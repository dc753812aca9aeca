#!/usr/bin/env bash
# Runs notebooks with labs, and the labs' tests, with Google Colab's versions of ipywidgets, IPython and the rest
# (tests/colab.txt), installed as Colab's first cell installs the course. In a new environment, some minutes:
#     tests/colab.sh [NAME ...]     such as 07_apd_superposition; without names, two quick ones
set -euo pipefail
cd "$(dirname "$0")/.."
if [ $# = 0 ]; then set -- 00_start_here 05_description_length; fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
source "$work/venv/bin/activate"

grep '==' tests/colab.txt | grep -v '^torch==' >"$work/colab.txt"
grep '^torch==' constraints.txt >>"$work/colab.txt"
python -m pip install -q -r "$work/colab.txt" jupytext nbformat pytest nbmake beartype hypothesis
export PYTHONPATH=tools PYDEVD_DISABLE_FILE_VALIDATION=1
mkdir "$work/course" && cp -r pd_helpers pyproject.toml README.md LICENSE "$work/course" # building leaves files behind
python -m pip install -q --no-deps $(python -c 'import badges; print(*badges.COLAB_LACKS)') "$work/course"
python -m pip check # the package's ranges admit these versions
python -c 'import IPython, ipywidgets, torch; print(IPython.__version__, ipywidgets.__version__, torch.__version__)'

python - "$@" <<'PYTHON'
import sys
import build

for name in sys.argv[1:]:
    notebook = build.assemble(name)
    seconds = build.execute(name, notebook)
    build.clean_outputs(name, notebook)  # raises for warnings and errors
    print(f"{name}: ran in {seconds:.0f} s", flush=True)
PYTHON
python -m pytest -q --noconftest -p no:nbmake -o addopts= tests/test_widgets.py
