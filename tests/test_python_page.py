"""docs/python.md: every example runs, in order, and each section runs by itself behind the page's first example."""

from __future__ import annotations

import re
from typing import Any

import pytest

from sparse_xp.places import CONF

PAGE = CONF.parent / "docs" / "python.md"
TEXT = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
#: packages that an example may name and that need not be installed
OPTIONAL = ("sentence_transformers", "lightning")


def examples(text: str) -> list[str]:
    """The blocks of Python in a text."""
    return re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


FIRST, *SECTIONS = re.split(r"^## ", TEXT, flags=re.MULTILINE)


def test_the_page_is_read():
    assert len(examples(FIRST)) == 1
    assert len([section for section in SECTIONS if examples(section)]) >= 8


@pytest.mark.parametrize("section", SECTIONS, ids=[section.partition("\n")[0] for section in SECTIONS])
def test_the_examples_of_a_section_run(section, tmp_path, monkeypatch):
    for package in OPTIONAL:
        if re.search(rf"^(from|import) {package}\b", section, re.MULTILINE):
            pytest.importorskip(package, reason=f"{package} is an extra")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "example"}
    for number, example in enumerate([*examples(FIRST), *examples(section)]):
        exec(compile(example, f"{PAGE.name}, {section.partition(chr(10))[0]}, example {number}", "exec"), names)  # noqa: S102


#: what the loops of the other pages have before they begin
BEFORE = """
model, teacher = make_model(), make_model(1)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
"""
RECIPE = """modifiers:
  - !EpochRangeModifier {start_epoch: 0, end_epoch: 2}
  - !DistillationModifier {hardness: 0.5}
  - !GMPruningModifier {params: __ALL_PRUNABLE__, init_sparsity: 0, final_sparsity: 0.5, start_epoch: 0, end_epoch: 1,
      update_frequency: 0.5}
"""


@pytest.mark.parametrize("page", ["README.md", "docs/migration.md"])
def test_the_loops_of_other_pages_run(page, tmp_path, monkeypatch):
    (example,) = (each for each in examples((CONF.parent / page).read_text(encoding="utf-8")) if "Sparsifier(" in each)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    names: dict[str, Any] = {"__name__": "example"}
    for block in (*examples(FIRST), BEFORE, example):
        exec(compile(block, page, "exec"), names)  # noqa: S102
    assert names["sparsifier"].finalized
    assert (names["model"].bert.encoder.layer[0].output.dense.weight == 0).float().mean() == 0.5
