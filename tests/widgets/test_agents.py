"""The agents' explorers: their numbers, and that they follow their sliders."""

from workbench.reasoning.agent_study import read_talks
from workbench.reasoning.effort_study import frontier_rows, read_study
from workbench.widgets.agents import price_explorer, price_figure, transcript_explorer


def test_a_free_token_pays_for_max_and_a_dear_one_for_low():
    rows = frontier_rows(read_study())
    assert "max is worth most" in price_figure(rows, 0.0, 0).layout.title.text
    explorer = price_explorer(rows)
    explorer._controls["token_price"].value = 0.15
    assert "low is worth most" in explorer.figure.layout.title.text
    explorer._controls["problem"].value = 3
    table = explorer.figure.data[-1]
    trace = next(row for row in rows if row["effort"] == "low")["traces"][3]
    assert trace["question"] in table.header["values"][1]
    place = [name.removeprefix("<b>").removesuffix("</b>") for name in table.cells["values"][0]].index("low")
    assert table.cells["values"][4][place] == f"{trace['is_right'] - 0.15 * trace['tokens']:.2f}"


def test_a_conversation_is_shown_up_to_its_turn():
    talks = read_talks()
    explorer = transcript_explorer(talks)
    explorer._controls["turn"].value = 2
    assert list(explorer.figure.data[0].cells["values"][0]) == ["system", "user"]
