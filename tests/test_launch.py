"""Launch links: what the command writes for whoever hosts the course, where it leads, and that it comes off again."""

import re
import shutil
import sys
import tomllib
import types
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import badges
import build
import launch
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

pytestmark = pytest.mark.slow  # each builds notebooks, or stands on two that were built

ROOT = Path(__file__).resolve().parents[1]
NAMES = ["00_start_here", "01_example"]
README = "# A course\n\nWhat it is.\n\n## Start\n"
SOURCE = "# %% [markdown]\n# # {}\n\n# %%\nprint(1 + 1)\n\n# %% [markdown]\n# The end.\n"
BADGE = re.compile(r"\[!\[(.+?)\]\((\S+?)\)\]\((\S+?)\)")


def set_host(root: Path, repository: str, branch: str = "main") -> None:
    (root / "pyproject.toml").write_text(f'[tool.pd-notebooks]\nrepository = "{repository}"\nbranch = "{branch}"\n')


def content(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in [root / "README.md", *(root / "notebooks").glob("*.ipynb")]}


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A tree like the course's, of two notebooks, that nobody hosts yet."""
    root = tmp_path_factory.mktemp("tree")
    (root / "notebooks" / "source").mkdir(parents=True)
    (root / "README.md").write_text(README)
    for name in NAMES:
        (root / "notebooks" / "source" / f"{name}.py").write_text(SOURCE.format(name))
    set_host(root, "")
    assert build.main([], root / "notebooks") == 0
    return root


@pytest.fixture
def tree(built, tmp_path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(built, tmp_path / "tree"))


def badges_of(root: Path) -> dict[str, list[tuple[str, str, str]]]:
    """Alt text, picture and link of every badge, by file."""
    cells = {name: build.read(name, root / "notebooks").cells for name in NAMES}
    texts = {name: "\n".join(c.source for c in cells[name] if c.cell_type == "markdown") for name in NAMES}
    return {name: BADGE.findall(text) for name, text in {**texts, "README": (root / "README.md").read_text()}.items()}


def target(root: Path, link: str, repository: str, branch: str) -> Path:
    """The file in the tree that a badge opens."""
    url = urlsplit(link)
    if url.netloc == "mybinder.org":
        assert [unquote(part) for part in url.path.split("/")[3:]] == [*repository.split("/"), branch]
        return root / parse_qs(url.query)["urlpath"][0].removeprefix("lab/tree/")
    assert url.netloc == "colab.research.google.com"
    return root / url.path.removeprefix(f"/github/{repository}/blob/{branch}/")


def test_nothing_is_written_where_nobody_hosts_it(tree):
    before = content(tree)
    assert launch.main(tree / "notebooks") == 0
    assert content(tree) == before
    assert badges_of(tree) == {"00_start_here": [], "01_example": [], "README": []}


@pytest.mark.parametrize("branch", ["main", "v1.0", "a/b"])
def test_every_badge_leads_to_a_file_of_the_repository(tree, branch):
    set_host(tree, "someone/a-course", branch)
    assert launch.main(tree / "notebooks") == 0
    for name, found in badges_of(tree).items():
        assert [alt for alt, _, _ in found] == ["Open in Binder", "Open in Colab"]
        for _, picture, link in found:
            file = target(tree, link, "someone/a-course", branch)
            assert file.is_file()
            assert file.stem == ("00_start_here" if name == "README" else name)
            assert urlsplit(picture).path.endswith(".svg")


def test_they_are_written_once(tree):
    set_host(tree, "someone/a-course")
    assert launch.main(tree / "notebooks") == 0
    written = content(tree)
    assert launch.main(tree / "notebooks") == 0
    assert content(tree) == written
    assert build.check(tree / "notebooks") == []


def test_another_host_replaces_the_first_everywhere(tree):
    set_host(tree, "someone/a-course")
    launch.main(tree / "notebooks")
    set_host(tree, "another/fork", "dev")
    assert build.check(tree / "notebooks") != []  # the notebooks are not what the setting says
    assert launch.main(tree / "notebooks") == 0
    assert not any(b"someone" in data for data in content(tree).values())
    assert all(b"another/fork" in data for data in content(tree).values())


def test_without_the_setting_everything_goes(tree):
    before = content(tree)
    set_host(tree, "someone/a-course")
    launch.main(tree / "notebooks")
    assert content(tree) != before
    set_host(tree, "")
    assert launch.main(tree / "notebooks") == 0
    assert content(tree) == before


def test_outputs_stay_valid_and_building_anew_changes_nothing(tree):
    set_host(tree, "someone/a-course")
    launch.main(tree / "notebooks")
    _, links, colab, code, _ = build.read("01_example", tree / "notebooks").cells
    assert (links.id, colab.id) == ("launch-links", "launch-colab")
    assert code.outputs[0].text == "2\n"
    assert code.execution_count == 1
    written = content(tree)
    assert build.main(["01_example"], tree / "notebooks") == 0
    assert content(tree) == written


def test_a_setting_that_is_no_repository_is_refused(tree, capsys):
    before = content(tree)
    set_host(tree, "https://github.com/someone/a-course")
    assert launch.main(tree / "notebooks") == 2
    assert '"owner/name" works' in capsys.readouterr().err
    assert content(tree) == before


def test_code_that_never_ran_is_named(tree, capsys):
    source = tree / "notebooks" / "source" / "01_example.py"
    source.write_text(source.read_text().replace("1 + 1", "1 + 2"))
    set_host(tree, "someone/a-course")
    assert launch.main(tree / "notebooks") == 1
    assert "01_example: its code has changed" in capsys.readouterr().err


def test_this_repository_s_readme_holds_what_the_setting_says():
    text = (ROOT / "README.md").read_text()
    assert badges.readme(text) == text


# --- Colab ------------------------------------------------------------------------------------------------


def run_line(monkeypatch, on_colab: bool) -> list[str]:
    """What Colab's line asks pip for."""
    asked = []
    shell = types.SimpleNamespace(run_line_magic=lambda magic, line: asked.append(f"{magic} {line}"))
    if on_colab:
        monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
    exec(badges.Host("someone/a-course", "v1.0").colab_line(), {"get_ipython": lambda: shell})
    return asked


def test_colab_s_line_does_nothing_elsewhere(monkeypatch):
    assert run_line(monkeypatch, on_colab=False) == []


def test_colab_s_line_leaves_colab_s_packages_alone(monkeypatch):
    [line] = run_line(monkeypatch, on_colab=True)
    command, options = line.split()[:2], line.split()[2:]
    assert command == ["pip", "install"]
    assert options[:2] == ["-q", "--no-deps"]
    assert options[-1] == "https://github.com/someone/a-course/archive/v1.0.tar.gz"
    assert not {"torch", "numpy", "ipywidgets"} & set(options)


def test_colab_has_what_its_line_does_not_install():
    """The versions in colab.txt are Colab's; with what the line installs they are what the package asks for."""
    pins = [line for line in (ROOT / "tests" / "colab.txt").read_text().splitlines() if "==" in line]
    colab = {canonicalize_name(name): version for name, version in (pin.split("==") for pin in pins)}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for requirement in map(Requirement, project["dependencies"]):
        if requirement.name not in badges.COLAB_LACKS:
            assert colab[canonicalize_name(requirement.name)] in requirement.specifier, requirement
