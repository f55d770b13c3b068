"""What `eval_params` gives to the bit: by default compilation, the quick one need not do the same thing twice alike."""

import ramda_jax
from tests.inspection.test_eval_params import ALL, PLAIN, STRENGTH, check_equal, every_method, init_params, train


@every_method
def test_eval_params_with_zero_learning_rate_or_strength_moves_no_bit(method):
    params = init_params()
    *_, (_, state) = train(PLAIN[method](ALL, STRENGTH, learning_rate=0.0), params, num_steps=3)
    check_equal(ramda_jax.eval_params(state, params), params)
    *_, (_, state) = train(PLAIN[method](ALL, 0.0), params, num_steps=3)
    *_, (_, without) = train(PLAIN[method](None, None), params, num_steps=3)
    check_equal(ramda_jax.eval_params(state, params), ramda_jax.eval_params(without, params))
