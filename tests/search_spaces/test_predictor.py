"""What looks ahead: processes and improvement against closed forms, and a predictor that knows when it is poor."""

import moocore
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search_spaces.choose_sampler import choose_sampler
from search_spaces.design import Kind
from search_spaces.foreseen import ForeseenLimits
from search_spaces.network import infer_shapes
from search_spaces.objectives import Direction, TrialState
from search_spaces.rank_correlation import JUDGED_FROM
from search_spaces.samplers import ToldTrial, make_sampler
from search_spaces.samplers.acquisition import hypervolume_improvement, non_dominated, quadrature
from search_spaces.samplers.encoding import Encoding
from search_spaces.samplers.gaussian_process import GaussianProcess, Hyperparameters, Inputs, choose
from search_spaces.samplers.history import History
from search_spaces.samplers.predictor import MOST_TRIALS, Predictor
from search_spaces.space import Decision
from search_spaces.spec import LimitSpec, ObjectiveSpec
from search_spaces.testing import chain_space, contract_spec

SPACE = chain_space([4] * 6)


def inputs_of(points):
    points = np.asarray(points, dtype=np.float64)
    return Inputs(points, points)


class TestGaussianProcess:
    def test_it_is_the_textbook_formula(self):
        """Mean and variance by solving the whole system, for a covariance written out here."""
        generator = np.random.default_rng(0)
        seen, asked = generator.random((12, 3)), generator.random((5, 3))
        targets = generator.random(12)
        chosen = Hyperparameters(linear_share=0.3, reach=1.0, noise=0.1)
        mean, deviation = GaussianProcess(inputs_of(seen), targets, chosen).predict(inputs_of(asked))
        distance2 = ((seen[:, None] - seen[None]) ** 2).sum(axis=-1).mean()

        def covariance(left, right):
            centred = [(one - seen.mean(axis=0)) / np.sqrt(seen.var(axis=0).sum()) for one in (left, right)]
            smooth = np.exp(-0.5 * ((left[:, None] - right[None]) ** 2).sum(axis=-1) / distance2)
            return 0.3 * centred[0] @ centred[1].T + 0.7 * smooth

        whole = covariance(seen, seen) + 0.1 * np.eye(12)
        centred = targets - targets.mean()
        scale2 = centred @ np.linalg.solve(whole, centred) / 12
        across = covariance(asked, seen)
        assert mean == pytest.approx(targets.mean() + across @ np.linalg.solve(whole, centred), rel=1e-4)
        variance = np.diag(covariance(asked, asked) - across @ np.linalg.solve(whole, across.T))
        assert deviation == pytest.approx(np.sqrt(scale2 * variance), rel=1e-4)

    def test_a_straight_line_is_taken_for_one_and_a_bump_is_not(self):
        points = np.random.default_rng(1).random((40, 4))
        assert choose(inputs_of(points), points @ [1.0, -2, 3, 0.5]).linear_share > 0.9
        bump = np.exp(-3 * ((points - 0.5) ** 2).sum(axis=1))
        assert choose(inputs_of(points), bump).linear_share < 0.9

    def test_it_is_surest_where_it_has_seen_something(self):
        points = np.random.default_rng(2).random((20, 2))
        process = GaussianProcess(inputs_of(points), points.sum(axis=1), Hyperparameters(0.3, 0.5, 0.002))
        _, near = process.predict(inputs_of(points[:5]))
        _, far = process.predict(inputs_of(points[:5] + 3))
        assert near.max() < far.min()


class TestImprovement:
    @settings(max_examples=60, deadline=None)
    @given(st.integers(0, 10_000))
    def test_it_is_the_difference_of_two_hypervolumes(self, seed):
        generator = np.random.default_rng(seed)
        points, reference = generator.random((12, 2)), np.array([0.9, 0.9])
        candidates = generator.random((20, 2))
        front = points[non_dominated(points)]
        front = front[np.argsort(front[:, 0])]
        front = front[(front < reference).all(axis=1)]
        before = moocore.hypervolume(front, ref=reference) if len(front) else 0.0
        found = hypervolume_improvement(candidates, front, reference)
        for candidate, gained in zip(candidates, found, strict=True):
            inside = np.vstack([front, candidate])
            inside = inside[(inside < reference).all(axis=1)]
            after = moocore.hypervolume(inside, ref=reference) if len(inside) else 0.0
            assert gained == pytest.approx(after - before, abs=1e-12)

    @pytest.mark.parametrize("objectives", [1, 2, 3])
    def test_what_is_not_dominated_is_what_moocore_says(self, objectives):
        points = np.random.default_rng(objectives).random((200, objectives))
        assert (non_dominated(points) == moocore.is_nondominated(points)).all()

    @pytest.mark.parametrize("unknown", [0, 1, 2])
    def test_quadrature_has_the_moments_of_normals(self, unknown):
        points, shares = quadrature(unknown)
        assert points.shape[1] == unknown
        assert shares.sum() == pytest.approx(1)
        assert (shares[:, None] * points).sum(axis=0) == pytest.approx(np.zeros(unknown), abs=1e-9)
        assert (shares[:, None] * points**2).sum(axis=0) == pytest.approx(np.ones(unknown))


def accuracy(row):
    return 0.9 / (1 + np.exp(np.dot(row, [0.1, 0.5, 0.2, 0.9, 0.3, 0.1]) - 3))


def some_rows(count, seed=0):
    return [tuple(map(int, row)) for row in np.random.default_rng(seed).integers(4, size=(count, 6))]


def predictor_told(rows, values):
    spec = contract_spec()
    predictor = Predictor(spec, SPACE, ForeseenLimits(SPACE, spec))
    for row, value in zip(rows, values, strict=True):
        predictor.add(row, {"accuracy": value}, lambda: np.ones(6))
    return predictor


class TestPredictor:
    def test_only_what_must_be_learned_is(self):
        assert predictor_told([], []).metrics == ("accuracy",)

    def test_it_tells_accuracies_that_it_has_not_seen(self):
        rows, others = some_rows(60), some_rows(200, seed=1)
        told = predictor_told(rows, map(accuracy, rows)).predict(others)["accuracy"]
        truth = np.array(list(map(accuracy, others)))
        assert np.corrcoef(told.at(0.0), truth)[0, 1] > 0.98
        assert np.abs(told.at(0.0) - truth).mean() < 0.02
        assert ((told.at(-3) <= truth) & (truth <= told.at(3))).mean() > 0.9

    def test_what_a_choice_does_in_one_place_is_expected_of_others(self):
        nothing, last, other = (0,) * 6, (0, 0, 0, 0, 0, 3), (3, 0, 0, 0, 0, 0)
        rows = [nothing, (1,) * 6, (1, 0, 1, 0, 1, 0), (0, 1, 0, 1, 0, 1)]
        values = [0.9, 0.88, 0.89, 0.89]
        before = predictor_told(rows, values).predict([other])["accuracy"].at(0.0)[0]
        after = predictor_told([*rows, last], [*values, 0.6]).predict([other])["accuracy"].at(0.0)[0]
        assert after < before - 0.02

    def test_no_better_than_guessing_says_at_most_so_good(self):
        """Where half of the choices are too much already, those of which all are say nothing of single ones."""
        network = SPACE.network
        guessed = 1 / infer_shapes(network)[network.output][0]

        def found(row):
            return max(guessed, guessed + (0.95 - guessed) / (1 + np.exp(1.5 * np.sum(row) - 5)))

        rows = [(step,) * 6 for step in range(4)] + [(0, 0, 1, 0, 0, 0), (0, 1, 0, 0, 0, 1), (1, 0, 0, 1, 0, 0)]
        told = predictor_told(rows, map(found, rows)).predict([(1, 1, 1, 0, 0, 0), (2, 0, 0, 0, 0, 0)])["accuracy"]
        truth = [found((1, 1, 1)), found((2,))]
        assert told.at(0.0) == pytest.approx(truth, abs=0.1)

    def test_of_thousands_it_is_fitted_to_the_best_and_a_spread(self):
        rows = some_rows(1500)
        predictor = predictor_told(rows, map(accuracy, rows))
        members = predictor._members(len(rows))
        assert len(members) <= MOST_TRIALS
        assert int(np.argmax(list(map(accuracy, rows)))) in members

    def test_it_is_trusted_until_it_is_found_to_be_poor_and_again_when_it_is_better(self):
        rows, generator = some_rows(30), np.random.default_rng(0)
        predictor = predictor_told(rows, map(accuracy, rows))
        assert predictor.is_trusted
        assert predictor.rank_correlation is None
        for _ in range(2 * JUDGED_FROM):
            predictor.judge({"accuracy": generator.random()}, {"accuracy": generator.random()})
        assert abs(predictor.rank_correlation) < 0.6
        for _ in range(40):
            predictor.judge({"accuracy": generator.random()}, {"accuracy": 0.5})  # no order at all
        assert predictor.rank_correlation == 0
        assert not predictor.is_trusted
        for share in np.linspace(0.1, 0.9, 40):
            predictor.judge({"accuracy": share}, {"accuracy": share + 0.01})
        assert predictor.rank_correlation == pytest.approx(1)
        assert predictor.is_trusted

    def test_running_designs_are_believed_and_so_not_worth_another_look(self):
        rows, spec = some_rows(20), contract_spec()
        history = History(spec, SPACE, ForeseenLimits(SPACE, spec))
        costs = ForeseenLimits(SPACE, spec).costs(rows, ["macs"])["macs"]
        for number, (row, macs) in enumerate(zip(rows, costs, strict=True)):
            values = {"accuracy": accuracy(row), "macs": float(macs)}
            told = ToldTrial(number, SPACE.design_at(row), TrialState.SUCCEEDED, values, {}, {}, False)
            history.add(told, row, lambda: np.ones(6))
        candidates = np.array(some_rows(300, seed=2))
        worth = history.worth([], np.random.default_rng(0))(candidates)
        best = tuple(map(int, candidates[worth.argmax()]))
        again = history.worth([best], np.random.default_rng(0))(candidates)
        assert again[worth.argmax()] < 0.2 * worth.max()

    def test_scores_of_cheaper_steps_do_not_judge_it(self):
        spec = contract_spec()
        history = History(spec, SPACE, ForeseenLimits(SPACE, spec))
        for state in (TrialState.STOPPED, TrialState.SUCCEEDED):
            for number in range(JUDGED_FROM):
                memo = {"predicted": {"accuracy": number / 20}}
                history.judge(ToldTrial(number, SPACE.design_at((0,) * 6), state, {"accuracy": 0.1}, {}, memo, False))
            judged = history._predictor.rank_correlation
            assert (judged is None) == (state is TrialState.STOPPED)

    def test_a_limit_on_accuracy_counts_by_its_probability(self):
        rows = some_rows(40)
        spec = contract_spec().model_copy(update={"limits": (LimitSpec(metric="accuracy", min=0.6),)})
        history = History(spec, SPACE, ForeseenLimits(SPACE, spec))
        costs = ForeseenLimits(SPACE, spec).costs
        for number, row in enumerate(rows):
            values = {"accuracy": accuracy(row), "macs": float(costs([row], ["macs"])["macs"][0])}
            told = ToldTrial(number, SPACE.design_at(row), TrialState.SUCCEEDED, values, {}, {}, False)
            history.add(told, row, lambda: np.ones(6))
        candidates = np.array(some_rows(400, seed=3))
        worth = history.worth([], np.random.default_rng(0))(candidates)
        truth = np.array(list(map(accuracy, candidates)))
        assert worth[truth < 0.4].max() < 0.05 * worth.max()


def latencies_told(count):
    """A predictor of a latency, which is to be low, and of accuracy."""
    limits = (LimitSpec(metric="latency_s", max=1.0, device="d"),)
    objectives = (
        ObjectiveSpec(metric="latency_s", direction=Direction.MINIMIZE, device="d"),
        ObjectiveSpec(metric="accuracy", direction=Direction.MAXIMIZE),
    )
    spec = contract_spec().model_copy(update={"objectives": objectives, "limits": limits})
    predictor = Predictor(spec, SPACE, ForeseenLimits(SPACE, spec))
    seconds = np.random.default_rng(0).permutation(np.linspace(0.1, 1.0, count))
    for row, latency_s in zip(some_rows(count), seconds, strict=True):
        predictor.add(row, {"latency_s": float(latency_s), "accuracy": accuracy(row)}, lambda: np.ones(6))
    return predictor, seconds


def test_of_many_trials_the_best_are_kept_whichever_way_is_better():
    predictor, seconds = latencies_told(600)
    kept = set(predictor._members(600))
    assert set(np.argsort(seconds)[:128]) <= kept
    assert len(kept) <= 256


def test_the_predictor_is_judged_by_the_score_that_pages_show():
    predictor, _ = latencies_told(20)
    for number in range(20):
        predicted = {"latency_s": float(number), "accuracy": number / 20}
        predictor.judge(predicted, {"latency_s": -float(number), "accuracy": number / 20})
    assert predictor.rank_correlation == pytest.approx(1.0)


@pytest.mark.parametrize("name", ["random", "tpe", "nsga2", "evolution", "ddpg", "greedy"])
def test_every_sampler_says_what_was_predicted_so_that_it_can_be_judged(name):
    spec = contract_spec(name=name, predictor=True)
    sampler, costs = make_sampler(spec, SPACE), ForeseenLimits(SPACE, spec).costs
    for number in range(30):
        (proposal,) = sampler.ask(1, number, [])
        row = SPACE.indices_of(proposal.design)
        values = {"accuracy": accuracy(row), "macs": float(costs([row], ["macs"])["macs"][0])}
        sampler.tell([ToldTrial(number, proposal.design, TrialState.SUCCEEDED, values, {}, dict(proposal.memo), False)])
    assert 0 < proposal.memo["predicted"]["accuracy"] < 1
    assert sampler._history._predictor.rank_correlation is not None


def test_what_is_believed_of_scores_at_chance_stays_so_while_trials_run():
    """A running design is taken to find what is predicted, and so moves no prediction."""
    rows = some_rows(60)
    predictor = predictor_told(rows, [max(accuracy(row), 0.1) for row in rows])
    hopeless = [row for row in rows if accuracy(row) < 0.07]
    assert len(hopeless) >= 3
    alone = predictor.predict(hopeless)["accuracy"].mean
    beside = predictor.predict(hopeless, running=[(1, 0, 2, 0, 1, 3)])["accuracy"].mean
    assert beside == pytest.approx(alone, abs=0.03)


def test_a_running_design_that_is_thought_hopeless_improves_no_other():
    """One that would lie beyond the reference point bounds nothing."""
    rows = some_rows(40)
    spec = contract_spec()
    history, costs = History(spec, SPACE, ForeseenLimits(SPACE, spec)), ForeseenLimits(SPACE, spec).costs
    good = [row for row in rows if accuracy(row) > 0.5]
    for number, row in enumerate(good):
        values = {"accuracy": accuracy(row), "macs": float(costs([row], ["macs"])["macs"][0])}
        told = ToldTrial(number, SPACE.design_at(row), TrialState.SUCCEEDED, values, {}, {}, False)
        history.add(told, row, lambda: np.ones(6))
    hopeless = (3,) * 6
    assert history.predicted(hopeless)["accuracy"] < 0.4
    fronts = [history.worth(running, np.random.default_rng(0))._front for running in ([], [hopeless])]
    assert np.array_equal(*fronts)


@pytest.mark.parametrize("name", ["evolution", "random"])
def test_where_accuracy_is_chance_the_predictor_is_left_aside(name):
    """Scores drawn at random: nothing can rank them, which is found out."""
    spec = contract_spec(name=name, predictor=True)
    sampler, generator = make_sampler(spec, SPACE), np.random.default_rng(3)
    costs = ForeseenLimits(SPACE, spec).costs
    for number in range(120):
        (proposal,) = sampler.ask(1, number, [])
        macs = float(costs([SPACE.indices_of(proposal.design)], ["macs"])["macs"][0])
        values = {"accuracy": float(generator.random()), "macs": macs}
        sampler.tell([ToldTrial(number, proposal.design, TrialState.SUCCEEDED, values, {}, dict(proposal.memo), False)])
    correlation = sampler._history._predictor.rank_correlation
    assert correlation is not None
    assert correlation < 0.5
    assert sampler._history.can_rank == (correlation >= 0.3)


def test_encodings_tell_how_much_is_taken_away():
    encoded = Encoding(SPACE.decisions)([(0,) * 6, (3,) * 6], np.ones(6))
    assert (encoded.coordinates[0] == 0).all()
    assert (encoded.coordinates[1] > 0.5).all()


def test_an_encoding_looks_up_each_decision_in_its_own_table():
    """Of methods, whose tables have as many coordinates as choices, beside tables of one."""
    methods = Decision("importance/network", Kind.IMPORTANCE, "network", ("l1", "l2", "random"))
    decisions, sizes = (methods, *SPACE.decisions), np.linspace(1, 3, 7)
    rows = np.random.default_rng(0).integers([3, *[4] * 6], size=(20, 7))
    found = Encoding(decisions)(rows, sizes)
    apart = [Encoding((one,))(rows[:, [column]], np.ones(1)) for column, one in enumerate(decisions)]
    weights = np.sqrt(sizes / sizes.mean())
    coordinates = [weight * one.coordinates for weight, one in zip(weights, apart, strict=True)]
    assert (found.coordinates == np.concatenate(coordinates, axis=1)).all()
    # Of one decision alone, what adds up over its kind is itself again; methods add up to nothing.
    terms = [apart[0].features, *(one.features[:, : one.features.shape[1] // 2] for one in apart[1:])]
    own, summed = np.concatenate(terms, axis=1), sum(terms[1:])
    assert (found.features[:, : own.shape[1]] == own).all()
    assert found.features[:, own.shape[1] :] == pytest.approx(summed)
    assert found.features.flags.c_contiguous
    assert found.coordinates.flags.c_contiguous


def test_designs_beside_others_differ_by_one_step_in_the_order_of_the_decisions():
    space = chain_space([3, 1, 2])
    sampler = make_sampler(contract_spec(name="evolution"), space)
    beside = sampler._beside(np.array([[0, 0, 1], [1, 0, 0]]))
    assert beside.tolist() == [[0, 0, 0], [1, 0, 1], [2, 0, 0], [0, 0, 0], [1, 0, 1]]
    assert sampler._beside(np.zeros((0, 3), dtype=np.int64)).shape == (0, 3)


@pytest.mark.parametrize(("trials", "name"), [(4096, "grid"), (100, "evolution")])
def test_auto_says_what_it_takes_and_why(trials, name):
    chosen = choose_sampler(contract_spec(trials=trials, name="auto"), SPACE)
    assert chosen.name == name
    assert "4,096 designs" in chosen.why
    assert choose_sampler(contract_spec(name="tpe"), SPACE).why == ""
