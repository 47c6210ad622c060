from pathlib import Path

import numpy as np
import pytest

from benchmarks.graph import __main__ as command
from benchmarks.graph import rows, runs
from benchmarks.graph.author_files import AuthorData
from benchmarks.graph.cfkg import CFKGConfig, fit_cfkg
from benchmarks.graph.rows import CIKG, LIGHTGCN, PROFILE, Row
from benchmarks.graph.validation import hold_out, validation_of
from serendipity.offline.graph.config import GraphConfig
from tests.offline.graph.small_graph import tiny, two_tastes

QUICK = GraphConfig.model_validate(
    {
        "dim": 8,
        "reconstruction": {"weight": 0.01},
        "contrast": {"weight": 0.0},
        "trainer": {"max_epochs": 2, "check_every": 1, "learning_rate": 0.05},
    }
)


def small_data() -> AuthorData:
    graph = two_tastes()
    kept, held = hold_out(graph.clicks, 0.4, np.random.default_rng(0))
    return AuthorData(graph.with_clicks(kept), held)


def write_author_files(folder: Path, data: AuthorData) -> None:
    graph = data.graph
    known = graph.num_items + graph.num_entities
    for name, number in (("user", graph.num_users), ("item", graph.num_items), ("entity", known), ("relation", 1)):
        (folder / f"{name}_list.txt").write_text("org_id remap_id\n" + "".join(f"x{i} {i}\n" for i in range(number)))
    for name, clicks in (("train", graph.clicks), ("test", data.test)):
        (folder / f"{name}.txt").write_text("".join(f"{user} {item}\n" for user, item in clicks.T))
    (folder / "kg_final.txt").write_text("".join("{} {} {}\n".format(*triple) for triple in graph.knowledge.T))
    (folder / "user_interest_clustered.txt").write_text("".join(f"{u} {known + i}\n" for u, i in graph.holds.T))


@pytest.fixture
def quick_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    def main_rows(trials: int | None) -> tuple[Row, ...]:
        other = QUICK.model_copy(update={"l2": 0.01})
        return (
            Row("popularity"),
            Row(LIGHTGCN, (QUICK,), rows._bare),
            Row("CFKG", (CFKGConfig(dim=8, max_epochs=2, check_every=1),)),
            Row(CIKG, (QUICK, other)[:trials]),
        )

    monkeypatch.setattr(command, "main_rows", main_rows)


@pytest.mark.usefixtures("quick_rows")
def test_the_page_holds_every_row_seed_and_ablation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, work, out = tmp_path / "small", tmp_path / "work", tmp_path / "page.md"
    data.mkdir()
    write_author_files(data, small_data())
    argv = ["--data", str(data), "--work", str(work), "--out", str(out)]
    assert command.main([*argv, "--full"]) == 0
    page = out.read_text()
    for line in (
        "# CIKG on small",
        "| popularity | – |",
        "| LightGCN | 0, 1, 2 |",
        "| w/o UIR | ",
        "| with contrast | ",
        "Trials of CIKG",
    ):
        assert line in page
    assert "| 50% noise, w/o UIR | " in page
    # CIKG has UIR and no contrast here: neither can the one be added nor the other be left out.
    assert "with UIR" not in page
    assert "w/o contrast" not in page
    # Nothing is trained again, and what was not asked for is not on the page.
    told = len(capsys.readouterr().err.splitlines())
    assert told > 20
    assert command.main([*argv, "--rows", "popularity", LIGHTGCN, "--seeds", "2"]) == 0
    assert capsys.readouterr().err == ""
    page = out.read_text()
    assert "| LightGCN | 0, 1 |" in page
    assert CIKG not in page.removeprefix("# CIKG on small")
    assert "w/o UIR" not in page
    assert command.main([*argv, "--rows", CIKG, "--ablations", "w/o interests"]) == 0
    page = out.read_text()
    assert "| w/o interests | " in page
    assert "w/o UIR" not in page


@pytest.mark.usefixtures("quick_rows")
def test_what_cannot_be_compared_is_said_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--data", str(tmp_path)]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    data = tmp_path / "small"
    data.mkdir()
    write_author_files(data, small_data())
    assert command.main(["--data", str(data), "--rows", "SVD", "--work", str(tmp_path / "work")]) == 1
    assert "--rows: found 'SVD', expected some of popularity, LightGCN, CFKG, CIKG" in capsys.readouterr().err
    assert command.main(["--data", str(data), "--ablations", "users", "--work", str(tmp_path / "work")]) == 1
    assert "--ablations: found 'users', expected some of w/o UIR" in capsys.readouterr().err
    assert command.main(["--data", str(data), "--rows", LIGHTGCN, "--ablations"]) == 1
    assert "--ablations: found no CIKG among --rows" in capsys.readouterr().err


@pytest.mark.usefixtures("quick_rows")
def test_a_data_set_is_compared_by_its_logs(tmp_path: Path) -> None:
    out = tmp_path / "page.md"
    argv = ["--dataset", "ml-100k", "--users", "40", "--epochs", "1", "--work", str(tmp_path), "--out", str(out)]
    assert command.main([*argv, "--ablations", PROFILE]) == 0
    page = out.read_text()
    assert "# CIKG on ml-100k" in page
    assert "- data: 40 users" in page
    assert "neither validation nor test leaks" in page
    assert f"| {PROFILE} | " in page
    assert "| 64 singular vectors, p = 0.25 |" in page
    assert "1 of 1" in page
    assert "| inferred |" in page


def test_options_of_logs_are_refused_with_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--data", str(tmp_path), "--users", "5"]) == 1
    assert "expected them with --dataset" in capsys.readouterr().err


def test_limits_change_nothing_but_the_training() -> None:
    row = rows.limited(rows.main_rows(1)[-1], 7, 65_536)
    (found,), (whole,) = row.trials, rows.main_rows(1)[-1].trials
    assert isinstance(found, GraphConfig)
    assert isinstance(whole, GraphConfig)
    assert (found.trainer.max_epochs, found.trainer.batch_clicks) == (7, 65_536)
    assert found.model_copy(update={"trainer": whole.trainer}) == whole
    assert rows.limited(rows.spectral_row(), 7, None) == rows.spectral_row()


def test_popularity_ranks_by_clicks() -> None:
    found = runs.popularity(tiny()).scores(np.array([0, 2]))
    assert found.tolist() == [[1, 2, 1], [1, 2, 1]]


def test_cfkg_learns_more_than_popularity() -> None:
    graph = two_tastes()
    kept, validate = validation_of(graph, 0)
    found = fit_cfkg(kept, CFKGConfig(dim=8, learning_rate=0.02, batch_clicks=64, max_epochs=40), validate=validate)
    assert found.best_score is not None
    assert found.best_score > 1.1 * validate(runs.popularity(kept))


def test_rows_see_what_their_names_say() -> None:
    graph = two_tastes()
    seen = {row.name: row.sees(graph, 0) for row in (*rows.main_rows(None), *rows.ablations())}
    assert seen[LIGHTGCN].holds.size == seen[LIGHTGCN].knowledge.size == 0
    assert seen[CIKG] is graph
    assert seen["w/o interests"].holds.size == 0
    assert seen["w/o knowledge"].knowledge.size == 0
    assert seen["50% noise"].holds.shape[1] == 1.5 * graph.holds.shape[1]
    assert np.array_equal(seen["50% noise"].holds, seen["50% noise, w/o UIR"].holds)


def test_lightgcn_is_tried_as_often_as_cikg() -> None:
    full = {row.name: len(row.trials) for row in rows.main_rows(None)}
    assert full[LIGHTGCN] == full[CIKG]
    assert all(len(row.trials) <= 1 for row in rows.main_rows(1))
