"""The papers' schedules. Above all, the averaging must reach exactly 1."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ramda_jax import GroupLasso, ramda, rmda, sqrt_growth, stage_growth, stages


@pytest.mark.covering
@pytest.mark.parametrize(
    ("averaging", "full"),
    [
        *[(0.01, 10_000), (0.1, 100), (0.3, 12), (0.5, 4), (1 / 3, 9), (0.7, 3), (1.0, 1)],
        # Values at which c sqrt(1 / c^2) rounds to less than 1: in float32, in float64, and in both.
        *[(1 / 41, 1681), (1 / 49, 2401), (3**-0.5, 3)],
    ],
)
@pytest.mark.parametrize("start", [0, 1234])
@pytest.mark.parametrize("x64", [False, True], ids=["float32", "float64"])
def test_sqrt_growth_is_exactly_one_from_the_ceiling_of_one_over_c_squared_on(averaging, full, start, x64):
    with jax.enable_x64(x64):
        schedule = sqrt_growth(averaging, start)
        i = np.unique(np.concatenate([np.arange(1, min(full, 200) + 1), np.arange(max(full - 200, 1), full + 300)]))
        values = np.asarray(jax.jit(jax.vmap(schedule))(jnp.asarray(start + i - 1, jnp.int32)))
        assert values.dtype == (np.float64 if x64 else np.float32)
        assert np.all(values[i >= full] == 1.0)
        assert np.all(values[i < full] < 1.0)
        rtol = 1e-14 if x64 else 2e-7
        np.testing.assert_allclose(values[i < full], averaging * np.sqrt(i[i < full]), rtol=rtol)
        # Before the last stage the schedule is c.
        for step in range(0, start, 100):
            np.testing.assert_allclose(float(schedule(step)), averaging, rtol=rtol)


def test_sqrt_growth_takes_python_numpy_and_traced_steps():
    schedule = sqrt_growth(0.1, start=5)
    for step in (0, 4, 5, 50, 103, 104, 10_000):
        values = [schedule(step), schedule(np.int32(step)), jax.jit(schedule)(step)]
        assert len({float(value) for value in values}) == 1


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((0.0,), ValueError, r"`averaging` must be in \(0, 1\], got 0.0; use `averaging=1.0`"),
        ((1.5,), ValueError, r"`averaging` must be in \(0, 1\], got 1.5"),
        ((float("nan"),), ValueError, r"`averaging` must be in \(0, 1\], got nan"),
        (("0.1",), TypeError, r"`averaging` must be a real number or a schedule, got '0.1'"),
        ((0.1, -1), ValueError, r"`start` must be at least 0, got -1; use 0 or more"),
    ],
)
def test_sqrt_growth_refuses_bad_settings_by_name(arguments, error, message):
    with pytest.raises(error, match=message):
        sqrt_growth(*arguments)


@pytest.mark.parametrize(
    ("averaging", "ends", "growth", "expected"),
    [
        (0.01, (10, 20), 10.0, [0.01, 0.1, 1.0]),
        (0.001, (10, 20, 30), 10.0, [0.001, 0.01, 0.1, 1.0]),
        (0.1, (10, 20, 30), 10.0, [0.1, 1.0, 1.0, 1.0]),
        (0.2, (3,), 2.0, [0.2, 0.4]),
        (0.3, (), 10.0, [0.3]),
        (1 / 49, (10, 20), 7.0, [1 / 49, 1 / 7, 1.0]),  # 7 * 7 / 49 rounds to less than 1 in float64
    ],
)
def test_stage_growth_multiplies_after_every_end(x64, averaging, ends, growth, expected):
    schedule = stage_growth(averaging, ends, growth)
    bounds = [0, *ends, (ends[-1] if ends else 0) + 50]
    for value, first, after in zip(expected, bounds, bounds[1:], strict=False):
        for step in (first, after - 1):
            found = float(schedule(step))
            assert found == float(jax.jit(schedule)(step))
            # The 1 must be exact, because otherwise zeros would not be exact.
            assert found == 1.0 if value == 1.0 else found == pytest.approx(value, rel=1e-6)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((0.0, (10,)), ValueError, r"`averaging` must be in \(0, 1\], got 0.0"),
        ((0.1, (10, 10)), ValueError, r"`ends` must be positive and increasing, got \(10, 10\); use increasing"),
        ((0.1, (0, 10)), ValueError, r"`ends` must be positive and increasing, got \(0, 10\)"),
        ((0.1, (10.0,)), TypeError, r"`ends` must hold whole numbers, got 10.0 in \(10.0,\)"),
        ((0.1, 10), TypeError, r"`ends` must be a sequence of step counts, got 10"),
        ((0.1, (10,), 1.0), ValueError, r"`growth` must be finite and above 1, got 1.0; use 10.0"),
    ],
)
def test_stage_growth_refuses_bad_settings_by_name(arguments, error, message):
    with pytest.raises(error, match=message):
        stage_growth(*arguments)


def test_stages_multiplies_learning_rate_and_eps_after_every_end_and_grows_in_the_last_stage(x64):
    settings = stages(learning_rate=0.5, averaging=0.25, ends=(4, 10), factor=0.1, eps=1e-2)
    assert settings["restarts"] == (4, 10)
    jitted = {name: jax.jit(settings[name]) for name in ("learning_rate", "averaging", "eps")}
    for step in range(40):
        stage = (step >= 4) + (step >= 10)
        i = step - 9
        c = 0.25 if i < 1 else min(0.25 * i**0.5, 1.0)
        jitted = {
            name: float(jax.jit(settings[name])(jnp.int32(step))) for name in ("learning_rate", "averaging", "eps")
        }
        assert jitted["learning_rate"] == pytest.approx(0.5 * 0.1**stage, rel=1e-14)
        assert jitted["eps"] == pytest.approx(1e-2 * 0.1**stage, rel=1e-14)
        assert jitted["averaging"] == pytest.approx(c, rel=1e-14)
    assert float(settings["averaging"](25)) == 1.0


def test_stages_without_eps_serves_rmda_and_with_it_ramda():
    params = {"kernel": jnp.ones((2, 3))}
    with_eps = stages(learning_rate=0.1, averaging=0.1, ends=(3,), eps=1e-6)
    without = stages(learning_rate=0.1, averaging=0.1, ends=(3,))
    assert set(with_eps) - set(without) == {"eps"}
    for method, settings in ((ramda, with_eps), (ramda, without), (rmda, without)):
        optimizer = method(regularizer=GroupLasso(), strength=1e-3, **settings)
        optimizer.update(params, optimizer.init(params), params)


def test_stages_takes_a_traced_learning_rate_and_eps_and_refuses_other_traced_numbers():
    @jax.jit
    def rate_and_eps(rate, eps):
        settings = stages(rate, 0.5, ends=(2,), eps=eps)
        assert "traced * 0.1" in str(settings)
        return [settings[name](jnp.int32(3)) for name in ("learning_rate", "eps")]

    np.testing.assert_allclose(rate_and_eps(0.5, 1e-3), [0.05, 1e-4], rtol=1e-6)
    for name in ("averaging", "factor"):
        with pytest.raises(TypeError, match=f"`{name}` must be known before .* may be traced"):
            jax.jit(lambda value, name=name: stages(0.1, total_steps=20, **{name: value})["restarts"])(0.5)


def test_stages_passes_a_schedule_of_averaging_on_and_takes_no_ends():
    schedule = stage_growth(0.01, (5,))
    assert stages(learning_rate=0.1, averaging=schedule, ends=(5,))["averaging"] is schedule
    endless = stages(learning_rate=0.1, averaging=0.5, ends=())
    assert endless["restarts"] == ()
    assert [float(endless["averaging"](step)) for step in (0, 3)] == [0.5, 1.0]
    assert float(endless["learning_rate"](1000)) == np.float32(0.1)


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"learning_rate": -0.1}, ValueError, "`learning_rate` must be finite and at least 0, got -0.1"),
        ({"averaging": 0}, ValueError, r"`averaging` must be in \(0, 1\], got 0"),
        ({"factor": 0.0}, ValueError, "`factor` must be finite and above 0, got 0.0"),
        ({"ends": (20, 10)}, ValueError, r"`ends` must be positive and increasing, got \(20, 10\)"),
        ({"eps": 0.0}, ValueError, "`eps` must be finite and above 0, got 0.0"),
        ({"eps": "small"}, TypeError, "`eps` must be a real number or a schedule, got 'small'"),
    ],
)
def test_stages_refuses_bad_settings_by_name(changed, error, message):
    settings = {"learning_rate": 0.1, "averaging": 0.1, "ends": (10,), "eps": 1e-6} | changed
    with pytest.raises(error, match=message):
        stages(**settings)


@pytest.mark.parametrize("start", [0, 2**31 - 2, 2**31 - 1, 2**31, 2**40])
def test_sqrt_growth_goes_on_to_the_end_of_the_counter(start):
    schedule = sqrt_growth(1e-3, start=start)
    for step in (0, 2**31 - 3, 2**31 - 2, 2**31 - 1):
        i = min(max(step - start + 1, 1), 2**31 - 1)
        np.testing.assert_allclose(schedule(jnp.int32(step)), min(1e-3 * i**0.5, 1.0), rtol=1e-6)


@pytest.mark.parametrize("averaging", [2e-5, 2.158e-5, 1e-30, 1e-200, 5e-324])
def test_sqrt_growth_takes_an_averaging_that_the_counter_takes_to_one_or_not_at_all(averaging):
    schedule = sqrt_growth(averaging)
    for step in (0, 10**6, 2**31 - 1):
        i = min(step + 1, 2**31 - 1)
        np.testing.assert_allclose(
            schedule(jnp.int32(step)), np.float32(min(averaging * i**0.5, 1.0)), rtol=1e-6, atol=1e-44
        )


@pytest.mark.parametrize("last", [2**31 - 1, 2**31, 2**70])
def test_restarts_beyond_the_counter_are_refused(last):
    for make in (
        lambda: rmda(0.1, restarts=(5, last)),
        lambda: ramda(0.1, restarts=(5, last)),
        lambda: stage_growth(0.1, ends=(5, last)),
        lambda: stages(0.1, 0.1, ends=(5, last)),
    ):
        with pytest.raises(ValueError, match=r"must be below 2147483647.*leave out"):
            make()
