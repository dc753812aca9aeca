"""CITATION.cff says how to cite the course and what it reproduces; the licences say what is under which."""

import re
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_what_the_format_requires():
    assert CITATION["cff-version"] == "1.2.0"
    assert CITATION["message"]
    assert CITATION["title"]
    assert CITATION["authors"]
    for reference in CITATION["references"]:
        assert {"type", "title", "authors"} <= reference.keys()


def test_it_is_about_this_package():
    assert CITATION["version"] == PROJECT["version"]
    assert CITATION["authors"] == PROJECT["authors"]


def test_references_are_papers_with_people_and_addresses():
    for reference in CITATION["references"]:
        assert all(author["given-names"] and author["family-names"] for author in reference["authors"])
        [identifier] = reference["identifiers"]
        assert re.fullmatch(r"arXiv:\d{4}\.\d{5}", identifier["value"])
        assert reference["url"] == f"https://arxiv.org/abs/{identifier['value'].removeprefix('arXiv:')}"
        assert 2000 + int(identifier["value"][6:8]) == reference["year"]


def test_the_papers_reproduced_are_cited():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    cited = {reference["url"] for reference in CITATION["references"]}
    assert set(re.findall(r"https://arxiv\.org/abs/[\d.]+", readme)) <= cited


def test_licences():
    assert CITATION["license"] == ["MIT", "CC-BY-4.0"]
    assert (ROOT / "LICENSE").read_text(encoding="utf-8").startswith("MIT License")
    assert "https://creativecommons.org/licenses/by/4.0/" in (ROOT / "LICENSE-text").read_text(encoding="utf-8")
