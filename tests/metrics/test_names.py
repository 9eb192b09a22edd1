from jaxad.metrics import IMAGE_METRICS, LABELS, METRICS, PIXEL_METRICS


def test_metric_names_are_the_seven_and_their_mean():
    assert len(set(METRICS)) == 8
    assert (*IMAGE_METRICS, *PIXEL_METRICS, "mad") == METRICS
    assert tuple(LABELS) == METRICS
