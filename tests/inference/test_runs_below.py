"""Which folders hold runs."""

from jaxad.inference.steps import DEPTH, FOLDER, runs_below


def test_runs_are_found_once_in_the_order_of_their_numbers_and_no_link_is_followed(tmp_path):
    for name in ("seed-10", "seed-2", "more/a", ".hidden", "/".join("d" * DEPTH)):
        (tmp_path / name / FOLDER).mkdir(parents=True)
    (tmp_path / "seed-2/inside" / FOLDER).mkdir(parents=True)
    (tmp_path / "latest").symlink_to(tmp_path / "seed-2")
    (tmp_path / "more/again").symlink_to(tmp_path)
    deep = "/".join("d" * DEPTH)
    assert [str(run.relative_to(tmp_path)) for run in runs_below(tmp_path)] == [deep, "more/a", "seed-2", "seed-10"]
    (tmp_path / deep / FOLDER).rename(tmp_path / deep / "deeper")
    (tmp_path / deep / "deeper" / FOLDER).mkdir()
    assert len(runs_below(tmp_path)) == 3
    assert runs_below(tmp_path / "seed-2") == []
