import dataclasses

import numpy as np
import pytest
import torch

from serendipity.groups.prompt import MAX_PROFILE_CHARS
from serendipity.groups.sequence import DEFAULT_GROUP, long_sequence
from serendipity.novelty import Clicks
from serendipity.offline.finite import DivergedError
from serendipity.offline.groups.group_model import GroupModel, GroupsError
from serendipity.offline.groups.rq_vae import RqVae, train_rq_vae
from serendipity.offline.language_models.language_model import GREEDY, Completion, Prompt, Sampling
from serendipity.offline.logs.histories import Histories
from tests.offline.groups.shoppers import CONFIG, draw_histories, make_catalogue, make_histories


def sequences_of(model: GroupModel, histories: Histories) -> torch.Tensor:
    rows = []
    for user in range(len(histories)):
        clicks = slice(histories.offsets[user], histories.offsets[user + 1])
        newest_first = Clicks(
            histories.items[clicks][::-1], histories.categories[clicks][::-1], histories.times[clicks][::-1]
        )
        rows.append(long_sequence(newest_first, model.rule))
    return torch.from_numpy(np.stack(rows))


def profiles_of(model: GroupModel, histories: Histories) -> torch.Tensor:
    return torch.from_numpy(np.stack([model.fields.encode_profile(profile) for profile in histories.profiles]))


def test_users_of_one_kind_share_groups_and_those_of_two_do_not(group_model: GroupModel) -> None:
    histories = draw_histories()
    groups = group_model.assign(histories).group_id
    warm = groups > DEFAULT_GROUP
    even = np.arange(len(histories)) % 2 == 0
    assert warm.sum() >= 50
    assert not set(groups[warm & even]) & set(groups[warm & ~even])


def test_profiles_name_what_sets_a_group_apart(group_model: GroupModel) -> None:
    groups = group_model.assign(draw_histories()).group_id
    even, odd = group_model.profiles[groups[10]], group_model.profiles[groups[11]]
    assert even.startswith("prefers ")
    assert {"Bread", "Fish"} & set(even.split(". rarely")[0].replace(",", "").split())
    assert {"Milk", "Tea"} & set(odd.split(". rarely")[0].replace(",", "").split())
    assert "rarely" in even
    assert all(0 < len(profile) <= MAX_PROFILE_CHARS for profile in group_model.profiles)


def test_the_default_groups_profile_is_the_populations(group_model: GroupModel) -> None:
    assert group_model.profiles[DEFAULT_GROUP].startswith("often ")
    records = list(group_model.groups)
    assert [record.group_id for record in records] == list(range(group_model.spec.num_groups + 1))
    assert sum(record.users for record in records) == 60


def test_users_with_too_little_history_are_in_the_default_group(group_model: GroupModel) -> None:
    # None, one, and three clicks of which the threshold keeps two.
    assignment = group_model.assign(make_histories([[], [1], [1, 2, 1]]))
    assert assignment.group_id.tolist() == [DEFAULT_GROUP] * 3
    assert (assignment.csid == -1).all()


def test_every_clicks_group_is_the_one_assigned_as_of_its_moment(group_model: GroupModel) -> None:
    drawn = draw_histories(users=24, seed=5)
    # Two clicks a second: neither knows of the other.
    histories = dataclasses.replace(drawn, times=drawn.times // 2)
    found = group_model.click_groups(histories)
    assert len(set(found.tolist())) > 2
    for nth in range(25):
        users = np.flatnonzero(np.diff(histories.offsets) > nth)
        places = histories.offsets[users] + nth
        times = np.zeros(len(histories), np.int64)
        times[users] = histories.times[places]
        assert found[places].tolist() == group_model.assign(histories, times).group_id[users].tolist()


def test_clicks_after_a_moment_change_nothing_before_it(group_model: GroupModel) -> None:
    histories = draw_histories(users=12, seed=6)
    times = np.full(len(histories), 8, np.int64)
    cut = make_histories(
        [histories.items[a:b][:8].tolist() for a, b in zip(histories.offsets[:-1], histories.offsets[1:], strict=True)]
    )
    before, alone = group_model.assign(histories, times), group_model.assign(cut)
    assert np.array_equal(before.csid, alone.csid)
    assert np.allclose(group_model.vectors(histories, times), group_model.vectors(cut), atol=1e-5)


def test_the_exported_program_answers_as_the_model(group_model: GroupModel, tmp_path) -> None:
    histories = draw_histories()
    group_model.write(tmp_path)
    program = torch.export.load(tmp_path / "group_encoder.pt2").module()
    sequences, profiles = sequences_of(group_model, histories), profiles_of(group_model, histories)
    assignment = group_model.assign(histories)
    warm = assignment.group_id > DEFAULT_GROUP
    for batch in (1, 7, len(histories)):
        csid, group_id = program(sequences[:batch], profiles[:batch])
        assert csid.dtype == group_id.dtype == torch.int32
        assert group_id.shape == (batch, 1)
        assert np.array_equal(csid.numpy()[warm[:batch]], assignment.csid[:batch][warm[:batch]])
        assert np.array_equal(group_id.numpy()[:, 0][warm[:batch]], assignment.group_id[:batch][warm[:batch]])


def test_unknown_items_and_profile_values_are_answered(group_model: GroupModel) -> None:
    length = group_model.rule.length
    sequences = torch.full((2, length), 10**9)
    profiles = torch.full((2, 1), 77, dtype=torch.int32)
    csid, group_id = group_model.encoder(sequences, profiles)
    assert csid.shape == (2, CONFIG.quantizer.num_quantizers)
    assert bool(((group_id >= 1) & (group_id <= group_model.spec.num_groups)).all())


def test_training_depends_on_the_seed_alone() -> None:
    histories, catalogue = draw_histories(users=20), make_catalogue()
    config = CONFIG.model_copy(update={"interest": CONFIG.interest.model_copy(update={"epochs": 2})})
    torch.manual_seed(1)
    first = GroupModel.fit(histories, catalogue, config)
    torch.manual_seed(2)
    state = torch.random.get_rng_state()
    second = GroupModel.fit(histories, catalogue, config)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert first.report == second.report
    assert first.spec == second.spec
    assert np.array_equal(first.vectors(histories), second.vectors(histories))
    other = GroupModel.fit(histories, catalogue, config.model_copy(update={"seed": 1}))
    assert not np.array_equal(first.vectors(histories), other.vectors(histories))


def test_histories_without_a_warm_user_are_refused() -> None:
    with pytest.raises(GroupsError, match=r"found no user with 3 kept clicks \(threshold 2 by category\) among 2"):
        GroupModel.fit(make_histories([[], [1, 2]]), make_catalogue(), CONFIG)


class Scribe:
    """Answers every prompt alike, and keeps what it was asked."""

    name = "scribe"

    def __init__(self, text: str, *, finished: bool = True) -> None:
        self.text, self.finished = text, finished
        self.asked: list[Prompt] = []

    def complete(self, prompts: list[Prompt], sampling: Sampling = GREEDY) -> list[Completion]:
        self.asked += prompts
        return [Completion(self.text, 1, 1, self.finished) for _ in prompts]


def test_a_profile_llms_sentence_follows_the_facts() -> None:
    scribe = Scribe('Bakers: <they> love "bread".\nSecond line')
    histories = draw_histories(users=20)
    config = CONFIG.model_copy(update={"interest": CONFIG.interest.model_copy(update={"epochs": 1})})
    plain = GroupModel.fit(histories, make_catalogue(), config)
    model = GroupModel.fit(histories, make_catalogue(), config, profile_llm=scribe)
    assert model.profiles[0] == plain.profiles[0]
    assert model.profiles[1] == f"{plain.profiles[1]}. Bakers: they love bread ."
    assert len(scribe.asked) == model.spec.num_groups
    assert f"Group: {plain.profiles[1]}" in scribe.asked[0].user
    assert "Member 1: " in scribe.asked[0].user
    assert "Latest: " in scribe.asked[0].user


def test_groups_whose_training_diverges_are_not_made() -> None:
    diverging = CONFIG.interest.model_copy(update={"learning_rate": 1e39})
    config = CONFIG.model_copy(update={"interest": diverging})
    with pytest.raises(DivergedError, match=r"^long-term interests, epoch 1, step 2: found loss nan, expected finite"):
        GroupModel.fit(draw_histories(), make_catalogue(), config)


def test_csids_of_interests_that_are_not_finite_are_not_learned() -> None:
    interests = torch.ones(8, CONFIG.interest.dim)
    interests[3, 2] = torch.inf
    with pytest.raises(DivergedError, match=r"^CSIDs, epoch 0, step 1: found loss nan, expected finite numbers"):
        train_rq_vae(RqVae(CONFIG.interest.dim, CONFIG.quantizer), interests, CONFIG.quantizer, seed=0)
