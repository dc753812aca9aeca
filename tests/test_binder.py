"""Binder's files and conda's: they ask for what pyproject.toml asks for, and do what Binder expects of them."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).resolve().parents[1]
BINDER, CONDA = "binder/environment.yml", "environment.yml"
ON_CONDA = {"torch": {"pytorch", "pytorch-cpu"}, "matplotlib": {"matplotlib-base"}, "seaborn": {"seaborn-base"}}
"""Packages that go by other names on conda-forge; `-base` leaves out a window system and statsmodels."""


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def required() -> dict[str, SpecifierSet]:
    """What pip would install for `.[lab]`."""
    lines = project()["dependencies"] + project()["optional-dependencies"]["lab"]
    return {r.name: r.specifier for r in map(Requirement, lines)}


def listed(file: str) -> dict[str, str]:
    """Names and ranges of an environment file's conda packages, names as pip knows them."""
    lines = [line for line in yaml.safe_load((ROOT / file).read_text())["dependencies"] if isinstance(line, str)]
    split = (re.fullmatch(r"([a-z-]+)(.*)", line).groups() for line in lines)
    on_pip = {conda: pip for pip, names in ON_CONDA.items() for conda in names}
    return {on_pip.get(name, name): versions for name, versions in split}


@pytest.mark.parametrize("file", [BINDER, CONDA])
def test_an_environment_file_lists_what_pip_would_install(file):
    found = listed(file)
    assert "pip" in found
    python = found.pop("python")
    assert {name: SpecifierSet(versions) for name, versions in found.items() if name != "pip"} == required()
    if python.startswith("="):
        assert python.removeprefix("=") in SpecifierSet(project()["requires-python"])
    else:
        assert python == project()["requires-python"]


def test_torch_is_the_cpu_s_on_binder():
    assert "- pytorch-cpu" in (ROOT / BINDER).read_text()


def test_the_tested_versions_lie_in_the_ranges():
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    pins = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pins.items()}
    assert [name for name, versions in required().items() if pins[name] not in versions] == []


def test_conda_installs_the_package_itself_last():
    assert yaml.safe_load((ROOT / CONDA).read_text())["dependencies"][-1] == {"pip": ["--editable ."]}


@pytest.mark.slow
def test_repo2docker_uses_every_file(tmp_path):
    command = ["repo2docker", "--no-build", "--debug", str(ROOT)]
    script = "import sys; from repo2docker.__main__ import main; sys.argv = sys.argv[1:]; main()"
    done = subprocess.run([sys.executable, "-c", script, *command], capture_output=True, text=True, cwd=tmp_path)
    steps = done.stderr + done.stdout  # it logs the Dockerfile, which no engine reads here
    assert done.returncode == 0, steps
    assert "Building conda environment for python=3.12" in steps
    assert re.search(r'env update .* --file "binder/environment\.yml"', steps)
    assert "RUN chmod +x binder/postBuild" in steps
    assert "RUN ./binder/postBuild" in steps
    assert 'R2D_ENTRYPOINT="${REPO_DIR}/binder/start"' in steps


def test_start_limits_threads_and_becomes_its_command():
    reads = "import os; print(os.getpid(), *(os.environ[f'{x}_NUM_THREADS'] for x in ('OMP', 'OPENBLAS', 'MKL')))"
    environment = {key: value for key, value in os.environ.items() if not key.endswith("_NUM_THREADS")}
    command = [ROOT / "binder/start", sys.executable, "-c", reads, "an argument with  spaces"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        said = process.communicate(timeout=60)[0]
    assert said.split() == [str(process.pid), "1", "1", "1"]  # the same process: signals reach the server


def test_start_passes_arguments_on_unchanged():
    says = [sys.executable, "-c", "import sys; print(sys.argv[1:])"]
    command = [ROOT / "binder/start", *says, "two  words", "$HOME", "*"]
    assert subprocess.check_output(command, text=True) == "['two  words', '$HOME', '*']\n"


@pytest.mark.parametrize("name", ["postBuild", "start"])
def test_binder_s_scripts_are_executable(name):
    assert os.access(ROOT / "binder" / name, os.X_OK)
