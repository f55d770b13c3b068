"""An experiment: a model on data, a regularizer, and each method's settings."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import ramda_jax
from examples.experiments.tasks import Task
from ramda_jax.solvers import Solver

METHODS = ("ramda", "rmda", "prox_sgd", "prox_adamw", "prox_ssi", "msgd", "adam", "adamw", "rigl")
AVERAGED = ("ramda", "rmda")
#: Methods without a regularizer.
DENSE = ("msgd", "adam", "adamw")
NEURIPS = "NeurIPS 2024"
ICLR = "ICLR 2022"
OWN = "the paper's"
#: The groups are the inputs of layers: pixels, features or channels.
LASSO = ramda_jax.GroupLasso("input")
#: The solver of the NeurIPS paper's scripts with the nuclear norm; each iteration takes an SVD.
FIVE_SVDS = ramda_jax.ProximalGradient(max_steps=5, rtol=1e-3)


@dataclasses.dataclass(frozen=True)
class Method:
    """The settings of one method in one experiment.

    Attributes:
        learning_rate: the learning rate of the first stage.
        strength: lambda.
        averaging: c of the first stage, for RAMDA and RMDA.
        growth: how c grows: `"sqrt"` in the last stage (NeurIPS), or `"stage"`, ten times after every stage (ICLR).
        schedule: `"stages"` multiplies the learning rate by 0.1 at the milestones; `"cosine"` and `"linear"` end at 0.
        milestones: where this method's stages end; None for the experiment's milestones.
        weight_decay: coupled (L2) for MSGD and Adam, decoupled for AdamW.
        label_smoothing: None for the label smoothing of the task.
        solver: the solver of the subproblems, for RAMDA, ProxAdamW and ProxSSI; None for the library's default.
        source: the source of the settings: the paper or another experiment.
    """

    learning_rate: float
    strength: float = 0.0
    averaging: float | None = None
    growth: Literal["sqrt", "stage"] = "sqrt"
    schedule: Literal["stages", "cosine", "linear", "rigl"] = "stages"
    milestones: tuple[int, ...] | None = None
    weight_decay: float = 0.0
    label_smoothing: float | None = None
    solver: Solver | None = None
    source: str = OWN

    def as_dict(self) -> dict[str, Any]:
        """These settings as plain data. The solver is its Python expression."""
        settings = dataclasses.asdict(dataclasses.replace(self, solver=None))
        return settings if self.solver is None else settings | {"solver": repr(self.solver)}


@dataclasses.dataclass(frozen=True)
class Config:
    """An experiment.

    Attributes:
        name: its name on the command line.
        paper, table, row: where the paper reports it.
        task: the model, the data, the augmentation and the loss.
        regularizer: the specification for the optimizer.
        methods: settings by method. `complete` borrows missing settings.
        length: the number of epochs, or of steps if `unit` says so.
        milestones: the numbers of epochs (steps) after which a stage ends.
        batch_size: the number of examples in a batch (for text, of streams).
        reported: the paper's numbers by method: (metric, sparsity), as printed there.
        measure: the sparsity that the paper prints: `"weighted"`, `"kernel"` or `"low_rank"`.
        unit: the unit of `length`, `milestones` and `evaluate_every`.
        evaluate_every: the interval at which accuracy and sparsity are measured.
        clip: the largest global norm of a gradient, or None.
        scan: whether an epoch is one `lax.scan`. On CPU it saves most of the time of a small dense net, but makes a
            convolutional net several times slower.
        notes: where the paper and its code differ, which one we follow, and why.
    """

    name: str
    paper: str
    table: str
    row: str
    task: Task
    regularizer: Any
    methods: Mapping[str, Method]
    length: int
    milestones: tuple[int, ...]
    batch_size: int = 128
    reported: Mapping[str, tuple[str, str]] = dataclasses.field(default_factory=dict)
    measure: Literal["weighted", "kernel", "low_rank"] = "weighted"
    unit: Literal["epoch", "step"] = "epoch"
    evaluate_every: int = 1
    clip: float | None = None
    scan: bool = False
    notes: str = ""

    def __post_init__(self):
        ends = self.milestones
        if list(ends) != sorted(set(ends)) or (ends and not 0 < ends[0] <= ends[-1] < self.length):
            raise ValueError(
                f"`milestones` must increase between 0 and {self.length}, got {ends!r}; use steps inside the run."
            )
        unknown = sorted(set(self.methods) - set(METHODS))
        if unknown:
            raise ValueError(f"`methods` must be some of {METHODS}, got {unknown}; remove these.")
        object.__setattr__(self, "methods", complete(self.methods, self.length, self.milestones))

    def task_of(self, name: str) -> Task:
        """The task with the loss that a method trains with."""
        smoothing = self.methods[name].label_smoothing
        return self.task if smoothing is None else dataclasses.replace(self.task, smoothing=smoothing)

    def with_method(self, name: str, **changes) -> "Config":
        """This experiment with some settings of one method changed."""
        method = dataclasses.replace(self.methods[name], **changes)
        return dataclasses.replace(self, methods={**self.methods, name: method})


def relabel(methods: Mapping[str, Method], source: str) -> dict[str, Method]:
    """The methods with `source` instead of the paper, for an experiment that is not from the paper."""
    return {
        name: dataclasses.replace(method, source=source) if method.source == OWN else method
        for name, method in methods.items()
    }


#: RigL as in the ICLR paper's Table 14, at a density of 2 %.
RIGL = Method(
    1e-1,
    schedule="rigl",
    weight_decay=1e-4,
    source="the ICLR paper's Table 14 (ResNet50 on CIFAR), without its label smoothing",
)


def complete(own: Mapping[str, Method], length: int, milestones: tuple[int, ...]) -> dict[str, Method]:
    """`own`, and borrowed settings with their source for every method that the paper did not run."""
    rmda = own["rmda"]
    methods = dict(own)

    def borrow(name, method, source):
        methods.setdefault(name, dataclasses.replace(method, source=source))

    # In the code of all experiments of the NeurIPS paper's Table 7 RAMDA has a tenth of RMDA's learning rate, c = 0.01.
    ramda = dataclasses.replace(rmda, learning_rate=rmda.learning_rate / 10, averaging=0.01, growth="sqrt")
    borrow(
        "ramda", ramda, "a tenth of RMDA's learning rate and c = 0.01, as in the NeurIPS paper's Table 7; its strength"
    )
    plain = dataclasses.replace(rmda, averaging=None, growth="sqrt")
    borrow(
        "prox_sgd", dataclasses.replace(plain, learning_rate=1e-1), "the usual learning rate of 0.1; RMDA's strength"
    )
    adaptive = own.get("prox_adamw", own.get("prox_ssi", dataclasses.replace(plain, learning_rate=1e-3)))
    whose = next((name for name in ("prox_adamw", "prox_ssi") if name in own), "RMDA, at Adam's learning rate of 0.001")
    borrow("prox_adamw", adaptive, f"those of {whose}")
    borrow("prox_ssi", adaptive, f"those of {whose}")
    fifths = tuple(length * part // 5 for part in range(1, 5))  # of 1000 epochs 200, 400, 600 and 800
    msgd = Method(1e-1, weight_decay=5e-4, milestones=None if fifths == milestones else fifths)
    borrow("msgd", msgd, "the NeurIPS paper's CIFAR experiments")
    borrow("adam", Method(1e-3), "Adam's defaults")
    borrow("adamw", Method(1e-3, weight_decay=1e-2), "PyTorch's defaults of AdamW")
    borrow("rigl", RIGL, RIGL.source)
    return {name: methods[name] for name in METHODS}


def iclr_methods(
    rate: float, prox_sgd: float, prox_ssi: float, rmda: float, every: tuple[int, ...]
) -> dict[str, Method]:
    """The ICLR paper's settings: RMDA's learning rate, three strengths, and the milestones of the other methods."""
    return {
        "rmda": Method(rate, rmda, averaging=0.01, growth="stage"),
        "prox_sgd": Method(1e-1, prox_sgd, milestones=every),
        "prox_ssi": Method(1e-3, prox_ssi, milestones=every),
    }


def table_7_methods(
    rmda: float, ramda: float, prox_sgd: float, prox_ssi: float, prox_adamw: float
) -> dict[str, Method]:
    """The settings of the NeurIPS paper's Table 7. The rows differ only in the strengths."""
    return {
        "rmda": Method(1e-1, rmda, averaging=0.1),
        # The paper's scripts have a flag for c but do not pass it on, so they ran with the class's default of 0.01.
        "ramda": Method(1e-2, ramda, averaging=0.01),
        "prox_sgd": Method(1e-1, prox_sgd),
        "prox_ssi": Method(1e-3, prox_ssi),
        "prox_adamw": Method(1e-3, prox_adamw),
    }
