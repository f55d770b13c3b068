"""The ICLR paper's synthetic experiments (section 5.1, Figure 1), where the true pattern is known."""

from examples import models
from examples.experiments.config import ICLR, LASSO, Config, Method, relabel
from examples.experiments.tasks import Synthetic, conv_data, logistic_data

_NOTES = (
    "The paper gives no sizes, strengths or seeds; these are ours, chosen so that the regularized problem's solution "
    "has the true pattern. All methods have the same strength. The seed makes data, weights and batches."
)


def _methods(strength):
    own = {
        "rmda": Method(1e-1, strength, averaging=0.01, growth="stage"),
        "ramda": Method(1e-2, strength, averaging=0.1),
        "prox_sgd": Method(1e-1, strength),
        "prox_adamw": Method(1e-3, strength),
        "prox_ssi": Method(1e-3, strength),
    }
    return relabel(own, "ours; the paper gives none")


synthetic_logistic = Config(
    name="synthetic_logistic",
    paper=ICLR,
    table="Figure 1",
    row="logistic regression",
    task=Synthetic(lambda *, rngs, dtype: models.Linear(200, 4, rngs=rngs, dtype=dtype), logistic_data),
    regularizer=LASSO,
    methods=_methods(1e-2),
    length=50,
    milestones=(10, 20, 30),
    scan=True,
    notes=_NOTES,
)

synthetic_conv = Config(
    name="synthetic_conv",
    paper=ICLR,
    table="Figure 1",
    row="one convolution, one fully connected layer",
    task=Synthetic(models.SyntheticConvNet, conv_data, start_near=0.1),
    regularizer=LASSO,
    methods=_methods(6e-3),
    length=50,
    milestones=(10, 20, 30),
    notes=_NOTES
    + " Started at the truth plus a tenth of noise, as the paper starts near it. The strength must lie between the "
    "noise of an unneeded input's mean gradient, which falls with the root of the number of samples, and what the "
    "weakest needed input is worth, which falls with the number of needed inputs. With 10,000 samples, 6 of 16 "
    "channels and 32 of 128 outputs there was hardly room between them: at 6e-3, chosen on seed 1, RMDA kept an "
    "input too many for one of five seeds, and RAMDA lost one for two of them. So the strength has stayed, and "
    "there are 30,000 samples, 4 channels and 16 outputs, and filters of equal length. (In half as many epochs RMDA "
    "keeps an input too many for two of the five seeds: its first stage must be long enough to find the zeros.)",
)

CONFIGS = [synthetic_logistic, synthetic_conv]
