"""The choice of gallery cases."""

import numpy as np

from jaxad.inference.results import choose_cases


def test_cases_of_a_category_with_a_missed_defect():
    scores, labels = np.array([0.1, 0.2, 0.3, 0.9, 0.8, 0.05]), np.array([0, 0, 0, 1, 1, 1])
    assert choose_cases(scores, labels) == {"best": 3, "median": 4, "worst": 5}


def test_the_worst_case_is_a_false_alarm_where_that_is_further_off():
    scores, labels = np.array([0.1, 0.2, 0.99, 0.9, 0.8, 0.5]), np.array([0, 0, 0, 1, 1, 1])
    assert choose_cases(scores, labels) == {"best": 3, "median": 4, "worst": 2}


def test_cases_without_anomalous_images_and_of_tiny_categories():
    assert choose_cases(np.array([0.3, 0.1, 0.2]), np.zeros(3)) == {"best": 1, "median": 2, "worst": 0}
    assert choose_cases(np.array([0.3]), np.ones(1)) == {"best": 0}
    assert choose_cases(np.array([]), np.array([])) == {}
