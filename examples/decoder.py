"""A decoder of characters, trained dense and with RAMDA on heads and hidden units, made small, decoding by its cache.

    python -m examples.decoder --keep 0.5                                       # on the text that every Python brings
    python -m examples.decoder --keep 0.7 0.5 0.3 --data-dir data/wikitext-2 --json out/decoder.json
    python -m examples.decoder --decode out/decoder/0.5 --prompt "The first "   # the small one, from its files alone

The layers are one stack (`nnx.vmap`, `nnx.scan`). The groups come from the trace: index i of the hidden units, and of
the heads, of all layers.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from tabulate import tabulate

import ramda_jax
from examples.data.characters import random_pieces, read_text, spread_pieces
from examples.data.errors import DataError
from examples.models.decoder import Decoder, continued
from examples.training.arguments import at_least, command
from examples.training.language import bits_per_character, losses, tokens_per_second
from ramda_jax import compaction, files

VOCABULARY = 256  # bytes
SIZES = {"width": 64, "depth": 4, "groups": 4, "queries": 2, "size": 8, "hidden": 192}
# The numbers of pieces of held-out text, of the context's length, that are measured and continued.
MEASURED, CONTINUED = 512, 8


def make(sizes, seed=0):
    """A fresh decoder."""
    return Decoder(VOCABULARY, **sizes, rngs=nnx.Rngs(seed))


def num_params(model):
    """The number of entries of all parameters."""
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))


@nnx.jit(donate_argnames=("model", "optimizer"))
def train_step(model, optimizer, tokens):
    """One step; returns the loss."""
    loss, grads = nnx.value_and_grad(lambda model: losses(model, tokens).mean())(model)
    optimizer.update(model, grads)
    return loss


def train(model, tx, text, args):
    """Trains a model in place."""
    optimizer, rng = nnx.Optimizer(model, tx, wrt=nnx.Param), np.random.default_rng(args.seed)
    shown, start = [], time.perf_counter()
    for step in range(1, args.steps + 1):
        shown.append(train_step(model, optimizer, random_pieces(text, args.batch_size, args.context + 1, rng)))
        if step % max(args.steps // 5, 1) == 0:
            loss, seconds = float(np.mean(shown)) / np.log(2), time.perf_counter() - start
            print(f"   step {step:5d}: {loss:.3f} bits per byte in training, {seconds:.0f} s", flush=True)
            shown = []
    return optimizer


def make_recipe(model, tokens, keep, args):
    """The groups, and an optimizer (RAMDA until the groups have settled, then Adam) that leaves about `keep`."""
    dims = compaction.trace_dims(model, tokens)
    groups = compaction.groups(dims, ramda_jax.GroupLasso(), weight="saving")
    costs = compaction.costs(dims, "parameters", groups)
    # No entry belongs to two of the widths that can shrink, so the costs add up to everything that can be removed.
    can_go = sum(float(np.sum(cost)) for cost in costs.values()) / num_params(model)
    if not 1 - can_go < keep < 1:
        raise ValueError(
            f"--keep must be above the share of what cannot be removed, {1 - can_go:.3f}, and below 1, got {keep}; use "
            f"for example --keep {1 - can_go / 2:.2f}."
        )
    target = ramda_jax.Target((1 - keep) / can_go, of=costs)
    return groups, ramda_jax.ramda_then_hold(args.learning_rate, groups, target, total_steps=args.steps)


def rebuild(folder):
    """The small model from the saved files and its original sizes, which is all that another process has."""
    plan, variables = compaction.load_compact(folder)
    sizes = json.loads((Path(folder) / "sizes.json").read_text())
    tokens = jax.ShapeDtypeStruct((1, 16), jnp.int32)
    return compaction.rebuild(nnx.eval_shape(lambda: make(sizes)), plan, variables, tokens)


def decode(folder, prompts, count):
    """Rebuilds, continues the prompts, writes the continuations beside the model, and shows the first."""
    found = np.asarray(continued(rebuild(folder), prompts, count))
    np.save(Path(folder) / "continued.npy", found)
    print(bytes(prompts[0].astype(np.uint8)).decode(errors="replace"), end="")
    print("|" + bytes(found[0].astype(np.uint8)).decode(errors="replace"))
    return found


def decode_elsewhere(folder, count):
    """`decode` of the prompts in `folder` by another process."""
    command = [sys.executable, "-m", "examples.decoder", "--decode", str(folder.resolve()), "--count", str(count)]
    subprocess.run(command, cwd=Path(__file__).parents[1], check=True)
    return np.load(folder / "continued.npy")


def row(keep, model, bits, cost, tokens):
    """A row of the table without its speed, from the costs of a call with `tokens`."""
    groups, hidden = model.layers.key.kernel.shape[2], model.layers.down.kernel.shape[1]
    return {
        "keep": keep,
        "bits_per_character": bits,
        "perplexity": 2**bits,
        "groups_of_heads": groups,
        "hidden": hidden,
        "params": cost.params,
        "flops_per_token": cost.flops / tokens.size,
    }


def table(rows):
    """The rows as a table, in Markdown."""
    shown = [
        {
            "to keep": "all (dense)" if found["keep"] is None else f"{found['keep']:.0%}",
            "parameters": f"{found['params']:,} ({found['params'] / rows[0]['params']:.1%})",
            "key heads, hidden units": f"{found['groups_of_heads']}, {found['hidden']}",
            "bits per character": f"{found['bits_per_character']:.3f}",
            "perplexity": f"{found['perplexity']:.2f}",
            "FLOPs per token": f"{found['flops_per_token']:,.0f}",
            "tokens per second, whole and small": _speeds(found),
            "speed, whole = 1": f"{found['speed_ratio']:.2f}",
        }
        for found in rows
    ]
    return tabulate(shown, headers="keys", tablefmt="pipe", disable_numparse=True)


def _speeds(found):
    """The speeds, which were measured alternately, so that the machine was equally busy."""
    small = found["tokens_per_second"]
    whole = small / found["speed_ratio"]
    return f"{whole:,.0f}" if found["keep"] is None else f"{whole:,.0f}, {small:,.0f}"


def dense_row(model, pieces):
    """The first row of the table without its speed."""
    tokens, (graph, state) = pieces[:, :-1], nnx.split(model)
    cost = compaction.cost(lambda state, tokens: nnx.merge(graph, state)(tokens), state, tokens)
    return row(None, model, bits_per_character(model, pieces), cost, tokens) | {"speed_ratio": 1.0}


def made_small(model, groups, recipe, keep, text, pieces, args):
    """Trains with the recipe, compacts, saves, decodes in another process; returns a row of the table."""
    tokens, prompts = pieces[:, :-1], pieces[:CONTINUED, :-1]
    optimizer = train(model, recipe, text, args)
    print(f"   lambda {float(optax.tree.get(optimizer.opt_state, 'strength').current[...]):.2g}")

    def read_one(model, tokens):
        return model.advance(tokens[:, :1], model.empty_cache(len(tokens), 2))

    small = compaction.compact_model(model, prompts, also=[read_one])
    print("   " + str(small).replace("\n", "\n   "))
    report = small.report(tokens, regularizer=groups, params=nnx.state(model, nnx.Param), rounds=0)
    bits, small_bits = bits_per_character(model, pieces), bits_per_character(small.model, pieces)
    print(f"   held out: {bits:.3f} bits per character, made small {small_bits:.3f}")

    folder = args.out / f"{keep:g}"
    folder.mkdir(parents=True, exist_ok=True)
    small.save(folder)
    files.write_whole(folder / "sizes.json", json.dumps({name: getattr(args, name) for name in SIZES}))
    np.save(folder / "prompts.npy", prompts)
    found = np.asarray(continued(small.model, prompts, args.count))
    whole = np.asarray(continued(model, prompts, args.count))
    elsewhere = decode_elsewhere(folder, args.count)
    print(f"   continued as by the whole model: {np.mean(found == whole):.1%} of the bytes")
    print(f"   continued alike by the rebuilt one in another process: {np.mean(found == elsewhere):.1%}")

    speeds = tokens_per_second((model, small.model), prompts[:1], args.count)
    caches = [decoding.empty_cache(1, args.context + args.count).key.nbytes for decoding in (model, small.model)]
    print(f"   the cache of a text: {caches[0]:,} bytes, of the small model {caches[1]:,}; keys alone")
    found = row(keep, small.model, small_bits, report.after, tokens)
    return found | {"tokens_per_second": speeds[1], "speed_ratio": speeds[1] / speeds[0]}, speeds[0]


def main(argv=None):
    """Reads the command line and tells the story; returns the rows of the table, or the continuations."""
    parser = command("decoder", "A decoder of characters, made small.")
    parser.add_argument("--keep", type=float, nargs="+", default=[0.5], help="shares to keep (default: 0.5)")
    parser.add_argument("--data-dir", type=Path, help="WikiText's folder; without it: Python's language reference")
    parser.add_argument("--steps", type=at_least(16), default=1000, help="of each model (default: 1000)")
    parser.add_argument("--batch-size", type=at_least(1), default=16, help="pieces of text in a step (default: 16)")
    parser.add_argument("--context", type=at_least(1), default=64, help="bytes of a piece (default: 64)")
    for name, size in SIZES.items():
        parser.add_argument(f"--{name}", type=at_least(1), default=size, help=f"of the model (default: {size})")
    parser.add_argument("--learning-rate", type=float, default=3e-2, help="RAMDA's; Adam has a tenth (default: 0.03)")
    parser.add_argument("--seed", type=at_least(0), default=0, help="of initial models and batches (default: 0)")
    parser.add_argument("--count", type=at_least(1), default=128, help="bytes to continue a text by (default: 128)")
    parser.add_argument("--out", type=Path, default=Path("out/decoder"), help="default: out/decoder")
    parser.add_argument("--json", type=Path, help="write the rows of the table to this file")
    parser.add_argument("--decode", type=Path, help="only continue a text, with the small model in this folder")
    parser.add_argument("--prompt", help="the text to continue (default: held-out text)")
    args = parser.parse_args(argv)
    if args.decode:
        given = np.frombuffer((args.prompt or "").encode(), np.uint8).astype(np.int32)
        return decode(args.decode, given[None] if len(given) else np.load(args.decode / "prompts.npy"), args.count)
    try:
        text, held_out = read_text(args.data_dir)
        pieces = spread_pieces(held_out, min(MEASURED, len(held_out) // (args.context + 1)), args.context + 1)
    except DataError as error:
        sys.exit(str(error))
    sizes = {name: getattr(args, name) for name in SIZES}
    dense = make(sizes, args.seed)
    try:
        recipes = {keep: make_recipe(dense, pieces[:1, :-1], keep, args) for keep in args.keep}
    except ValueError as error:
        parser.error(str(error))

    print(f"Dense: Adam for {args.steps} steps")
    train(dense, optax.adam(optax.cosine_decay_schedule(args.learning_rate / 10, args.steps)), text, args)
    rows = [dense_row(dense, pieces)]
    print(f"   held out: {rows[0]['bits_per_character']:.3f} bits per character")
    dense_speeds = []
    for keep, (groups, recipe) in recipes.items():
        print(f"\n{keep:.0%}: RAMDA for {args.steps // 2} steps, then Adam with its zeros held")
        found, speed = made_small(make(sizes, args.seed), groups, recipe, keep, text, pieces, args)
        rows.append(found)
        dense_speeds.append(speed)
        rows[0]["tokens_per_second"] = float(np.median(dense_speeds))
        if args.json:
            args.json.parent.mkdir(parents=True, exist_ok=True)
            files.write_whole(args.json, json.dumps(rows, indent=1) + "\n")
    print("\n" + table(rows))
    return rows


if __name__ == "__main__":
    main()
