"""Prices come with terms and sources; what nobody publishes is an error that says what is known."""

import pytest

from workbench.chips import api_prices, power_kw, purchases, rent


def test_a_rent_depends_on_the_terms():
    assert (rent("h100").value, rent("H200", "hyperscaler").value) == (1.69, 1.41)
    assert rent("gb300", "three_year").value == 3.96
    assert rent("a100").value == 2.79  # the catalog's single rent
    assert "neocloud" in rent("b200").source


def test_an_ascend_has_no_rent_but_purchases():
    with pytest.raises(ValueError, match=r"no rent of ascend-910c is published; .*CNY 180,000 \(community"):
        rent("910C")
    assert [p["price"] for p in purchases("ascend-910c")] == [180000, 332000]
    with pytest.raises(ValueError, match=r"rent: terms 'spot' are unknown; choose one of"):
        rent("h100", "spot")


def test_all_in_power_is_more_than_the_chip_draws():
    assert power_kw("mi355x").value == 2.65
    assert power_kw("ascend-910c").value == pytest.approx(559 / 384, abs=1e-3)
    with pytest.raises(ValueError, match=r"power_kw: the all-in power of mlu590 is not known"):
        power_kw("mlu590")


def test_list_prices_are_rows_with_dates():
    offers = {p.offer: p for p in api_prices("deepseek-v4-pro")}
    assert (offers["launch"].cache_miss, offers["promotion"].output) == (1.74, 0.87)
    assert offers["Pro-0813, peak"].output == 2 * offers["Pro-0813, off-peak"].output
    with pytest.raises(ValueError, match=r"model 'deepseek-v4' is unknown; did you mean deepseek-v4-pro"):
        api_prices("deepseek-v4")
