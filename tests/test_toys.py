"""Toys: their numbers must not depend on how they are made, and must find what is planted."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from imgfit_widgets.core import toys
from imgfit_widgets.core.errors import FitError, InputError, ModelError
from imgfit_widgets.core.fit import Fit
from imgfit_widgets.core.models import FoVBackgroundModel, GaussianPrior, Models
from imgfit_widgets.core.progress import Cancelled
from imgfit_widgets.core.toys import binomial_interval, fake_counts, run_toys, ts_p_value


@pytest.fixture
def dataset(small):
    return small.datasets["stacked"]


@pytest.fixture
def models(demo_store, dataset):
    """The bright source of the simulated sky and the background."""
    bright = Models.read(demo_store / "truth.yaml")["bright"].copy()
    return Models([bright, FoVBackgroundModel(dataset_name="stacked")])


def one_error(result):
    """Intervals of one error, as a fit with asymmetric errors would give them."""
    return {
        key: (v - e, v + e)
        for key, v, e in zip(result.names, result.values, result.errors, strict=True)
    }


def test_what_a_prior_knows_is_drawn_anew_too(dataset, models):
    """With one mean for all toys, a prior that decides leaves pulls of no width."""
    amplitude = models["bright"].spectral_model.amplitude
    amplitude.prior = GaussianPrior(amplitude.value, 0.01 * amplitude.value)
    result = run_toys(dataset, models, n_toys=80, seed=1)
    pull = result.pull("bright", "amplitude")
    errors = result.errors[:, 0]
    assert np.median(errors) == pytest.approx(0.01 * amplitude.value, rel=0.1), "the prior decides"
    assert abs(pull.mean) < 3.5 * pull.mean_err and abs(pull.width - 1) < 3.5 * pull.width_err
    assert amplitude.prior.mu == amplitude.value, "the models are not changed"
    chance = ts_p_value(dataset, "bright", models, n_toys=2, seed=1)
    assert chance.n_failed == 0


def test_fake_counts_are_poisson_counts_of_the_prediction(dataset, models):
    found = fake_counts(dataset, models, seed=5)["stacked"]
    again = fake_counts(dataset, models, seed=5)["stacked"]
    other = fake_counts(dataset, models, seed=6)["stacked"]
    np.testing.assert_array_equal(found.counts.data, again.counts.data)
    assert (found.counts.data != other.counts.data).any()
    assert found.models is models
    assert np.all(found.counts.data == np.rint(found.counts.data))
    mean, counts = found.npred().data, found.counts.data
    seen = mean > 0.5
    # Variance of (n - mu)^2 / mu for a Poisson count: 2 + 1 / mu.
    chi2 = float(((counts[seen] - mean[seen]) ** 2 / mean[seen]).sum())
    assert abs(chi2 - seen.sum()) < 4 * np.sqrt((2 + 1 / mean[seen]).sum())


def test_pulls_are_standard_and_one_error_covers_two_thirds(dataset, models):
    result = run_toys(dataset, models, n_toys=150, seed=1, intervals=one_error)
    assert result.n_toys == 150
    assert result.n_failed == 0
    assert set(result.names) == {
        ("bright", "amplitude"), ("bright", "lon_0"), ("bright", "lat_0"), ("stacked-bkg", "norm"),
    }  # fmt: skip
    for pull in result.pulls:
        assert pull.n == 150
        assert abs(pull.mean) < 3.5 * pull.mean_err, pull
        assert abs(pull.width - 1) < 3.5 * pull.width_err, pull
        assert pull.coverage == pytest.approx(0.683, abs=0.12), pull
        assert pull.coverage_low < pull.coverage < pull.coverage_high
        assert (pull.n_intervals, pull.interval_coverage) == (150, pull.coverage)
    found = result.pull("bright", "amplitude")
    own = (result.values[:, 0] - result.truth[0]) / result.errors[:, 0]
    assert found.mean == pytest.approx(own.mean())
    assert found.width == pytest.approx(own.std(ddof=1))
    assert found.mean_err == pytest.approx(own.std(ddof=1) / np.sqrt(150))
    assert found.coverage == np.mean(np.abs(own) <= 1)
    assert np.median(result.ts["bright"]) > 100


def test_numbers_do_not_depend_on_the_workers_nor_on_how_many_toys(dataset, models):
    alone = run_toys(dataset, models, n_toys=7, seed=2, intervals=one_error)
    shared = run_toys(dataset, models, n_toys=7, seed=2, intervals=one_error, n_jobs=2)
    for name in ("values", "errors", "intervals", "stat", "success"):
        np.testing.assert_array_equal(getattr(alone, name), getattr(shared, name))
    assert alone.messages == shared.messages
    fewer = run_toys(dataset, models, n_toys=3, seed=2)
    np.testing.assert_array_equal(fewer.values, alone.values[:3])
    other = run_toys(dataset, models, n_toys=3, seed=3)
    assert (other.values != fewer.values).all()


def test_models_stay_as_they_were(dataset, models):
    before = [(p.value, p.error, p.frozen) for p in models.parameters]
    run_toys(dataset, models, n_toys=2)
    ts_p_value(dataset, "bright", models, n_toys=2)
    assert [(p.value, p.error, p.frozen) for p in models.parameters] == before


def test_a_fit_that_fails_is_counted_with_its_reason(dataset, models, monkeypatch):
    """Every third fit ends without a minimum, and one raises."""
    solve, calls = Fit.solve, []

    def fails(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == 5:
            raise FitError("fit: no counts in the bins to fit")
        result = solve(self, *args, **kwargs)
        if len(calls) % 3:
            return result
        return replace(result, success=False, message="bright ran to the edge of the map")

    monkeypatch.setattr(Fit, "solve", fails)
    result = run_toys(dataset, models, n_toys=10)
    assert result.n_failed == 4
    assert result.failures == {
        "bright ran to the edge of the map": 3,
        "fit: no counts in the bins to fit": 1,
    }
    assert result.pulls[0].n == 6
    assert np.isnan(result.values[4]).all()
    assert np.isfinite(result.values[2]).all()
    text = str(result)
    assert "10 toys, seed 0: 4 fits failed" in text
    assert "3 x bright ran to the edge of the map" in text
    assert json.loads(json.dumps(result.to_dict()))["failures"] == result.failures


def test_chance_gives_the_significance_that_wilks_promises(dataset, models):
    """With the position held, TS without a source is a chi-square of one degree of freedom."""
    source = models["bright"]
    source.spatial_model.lon_0.value, source.spatial_model.lat_0.value = 30.9, 0.6
    source.spatial_model.parameters.freeze_all()
    source.spectral_model.amplitude.value = 1e-13
    null = Models([models["stacked-bkg"].copy()])
    data = fake_counts(dataset, null, seed=40)["stacked"]
    found = ts_p_value(data, "bright", models, n_toys=200, seed=4)
    assert (found.n_toys, found.n_failed, found.dof) == (200, 0, 1)
    assert stats.kstest(found.ts, stats.chi2(1).cdf).pvalue > 0.01
    assert found.n_above == np.count_nonzero(found.ts >= found.observed_ts)
    assert found.p_value == pytest.approx((1 + found.n_above) / 201)
    assert found.p_wilks == pytest.approx(stats.chi2(1).sf(found.observed_ts))
    assert found.p_low <= found.p_value + 0.01
    assert abs(found.p_value - found.p_wilks) < 4 * np.sqrt(0.25 / 200)
    assert found.p_worst == found.p_value
    assert found.sigma == pytest.approx(stats.norm.isf(found.p_value / 2))
    assert f"p = {found.p_value:.2g}" in str(found)


def test_a_bright_source_is_never_reached_by_chance(dataset, models):
    # Its position, which means nothing without the source, is held.
    models["bright"].spatial_model.parameters.freeze_all()
    found = ts_p_value(dataset, "bright", models, n_toys=20)
    assert found.observed_ts > 100
    assert found.n_above == 0
    assert found.p_value == pytest.approx(1 / (1 + 20 - found.n_failed))
    assert found.p_low == 0.0
    assert found.p_high == pytest.approx(binomial_interval(0, 20)[1])
    assert json.loads(json.dumps(found.to_dict()))["n_above"] == 0


def test_failed_toys_are_in_the_worst_case(dataset, models, monkeypatch):
    models["bright"].spatial_model.parameters.freeze_all()
    one = toys._one

    def sometimes(work, number, progress):
        toy = one(work, number, progress)
        return replace(toy, success=False, message="no") if number < 4 else toy

    monkeypatch.setattr(toys, "_one", sometimes)
    found = ts_p_value(dataset, "bright", models, n_toys=10)
    assert (found.n_failed, found.failures) == (4, {"no": 4})
    assert found.p_value == pytest.approx(1 / 7)
    assert found.p_worst == pytest.approx(5 / 11)
    assert "4 toys failed; had they all been above, p = 0.45" in str(found)


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_progress_tells_toys_and_cancels(dataset, models, n_jobs):
    seen: list[tuple[float, str]] = []

    def watch(fraction: float, message: str) -> None:
        seen.append((fraction, message))
        if fraction >= 0.3:
            raise Cancelled

    with pytest.raises(Cancelled):
        run_toys(dataset, models, n_toys=30, n_jobs=n_jobs, progress=watch)
    assert [f for f, _ in seen] == sorted(f for f, _ in seen)
    assert seen[0][1] == "Toys: 0 of 30"
    assert seen[-1][0] < 0.6


def test_intervals_of_shares_are_those_of_clopper_and_pearson():
    low, high = binomial_interval(7, 20)
    tail = 0.5 * (1 - 0.6826894921)
    assert stats.binom.sf(6, 20, low) == pytest.approx(tail)
    assert stats.binom.cdf(7, 20, high) == pytest.approx(tail)
    assert binomial_interval(0, 0) == (0.0, 1.0)
    assert binomial_interval(5, 5)[1] == 1.0


def test_bad_input_is_named(dataset, models):
    for n_toys in (0, 2.5, True):
        with pytest.raises(InputError, match=r"n_toys: .* expected a whole number from 1 up"):
            run_toys(dataset, models, n_toys=n_toys)
    with pytest.raises(InputError, match="seed: -1; expected a whole number from 0 up"):
        run_toys(dataset, models, seed=-1)
    with pytest.raises(InputError, match="there is no dataset"):
        run_toys([], models)
    with pytest.raises(InputError, match="there is no model; add a source"):
        run_toys(dataset, Models())
    with pytest.raises(ModelError, match="source: there is no 'dim'; there are bright"):
        ts_p_value(dataset, "dim", models)
    with pytest.raises(ModelError, match=r"bright.index: is no free parameter"):
        run_toys(dataset, models, n_toys=1).pull("bright", "index")
    models.parameters.freeze_all()
    with pytest.raises(InputError, match="every parameter is frozen; free at least one"):
        run_toys(dataset, models)


def test_a_script_without_a_guard_is_told_so(tmp_path):
    """Each process ran the script again, and broke off with another one's traceback."""
    script = tmp_path / "script.py"
    script.write_text(
        "from imgfit_widgets.core.parallel import imap, open_executor\n"
        "with open_executor(2) as executor:\n"
        "    print(list(imap(abs, [-1, -2, -3], executor)))\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and not done.stdout
    last = done.stderr.strip().splitlines()[-1]
    assert "InputError: n_jobs: 2 processes ended before their work" in last
    assert "has to stand below `if __name__ == '__main__':`" in last
    assert "RuntimeError" not in done.stderr
