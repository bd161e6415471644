"""What the benchmark of the console's pages reports about one."""

from bench.pages import Measured


def test_a_page_has_its_weight_its_times_and_no_ids() -> None:
    account = "0198a000-0000-7000-8000-00000000000a"
    page = Measured("seller", f"/admin/events/{account}?account={account}", 151.2, [3.0, 1.0, 2.0])

    figure = page.figure()

    assert figure.name == "seller: /admin/events/<id>?account=<id>"
    assert (figure.measured, figure.target, figure.verdict) == ("151 KB", "≤ 150 KB", "miss")
    assert figure.detail == "server p50 2 ms, p99 3 ms of 3"


def test_the_first_paint_is_named_if_a_browser_measured_it() -> None:
    page = Measured("buyer", "/usage", 9.0, [1.0], 12.4, 0.0, is_complete=False)

    assert page.figure().detail.endswith(
        ", first paint 12 ms, layout shift 0; a part was unavailable"
    )
