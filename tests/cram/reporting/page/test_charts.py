"""What a chart of a page is drawn from."""

from cram.reporting.page.blocks import Chart, Series
from cram.reporting.page.charts import make_keys
from cram.reporting.pictures.palette import SERIES


def test_series_that_share_a_colour_differ_in_marker_and_dash() -> None:
    series = [Series(str(number), {}, [], color=number) for number in range(3 * len(SERIES))]
    keys = make_keys(Chart("loss", [], series, "nats"))
    assert len({(key.color, key.marker) for key in keys}) == len(series)
    assert len({(key.color, key.dashes) for key in keys}) == len(series)
    assert [key.dashes for key in keys[:2]] == [0, 2]  # 1 is what `dashed` asks for
