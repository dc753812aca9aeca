"""Every number in the README's results has a source: a shipped run, a shipped sweep, or a notebook's output."""

import re
from pathlib import Path

import pytest
import results

from pd_helpers.runs.presets import PRESETS, preset

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_the_tables_are_those_of_their_sources():
    assert results.filled(README) == README


def test_a_number_that_is_changed_is_found_and_mended(tmp_path, monkeypatch, capsys):
    wrong = README.replace("| 92 of 100 |", "| 93 of 100 |")
    assert wrong != README
    (tmp_path / "README.md").write_text(wrong)
    (tmp_path / "notebooks").symlink_to(Path(__file__).parents[1] / "notebooks")
    monkeypatch.setattr(results, "ROOT", tmp_path)
    assert results.main(["--check"]) == 1
    assert "92 of 100" in capsys.readouterr().out
    assert results.main([]) == 0
    assert (tmp_path / "README.md").read_text() == README
    assert results.main(["--check"]) == 0


def test_a_table_without_a_place_is_an_error():
    with pytest.raises(ValueError, match="README.md has no <!-- results gated -->"):
        results.filled(README.replace("results gated", "gated"))
    with pytest.raises(ValueError, match="no table of notebook 13_spd_superposition has nothing"):
        results.printed("13_spd_superposition", "nothing of the kind")


def test_numbers_in_the_text_around_the_tables():
    text = README[README.index("## What it reproduces") : README.index("## How fast it is")]
    text = re.sub(r"\s+", " ", re.sub(r"<!-- results .*?<!-- /results", "", text, flags=re.S))
    gated, three = preset("apd/gated"), preset("spd/resid_mlp_3")
    assert f"{gated.config.steps:,} steps of {gated.config.batch_size:,}" in text
    assert f"against {gated.paper.steps:,} of {gated.paper.batch_size:,}" in text
    assert f"after {three.config.steps:,} steps (the paper: {three.paper.steps:,})" in text
    toy = [name for name in PRESETS if re.fullmatch(r"(apd|spd)/tms_\d+-\d+", name)]  # in the tables
    assert {preset(name).config.n_init for name in toy} == {3}
    assert "best of three initialisations" in text
