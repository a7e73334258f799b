"""`python -m vsf_lib bench neggen`: its flags, what is checked before anything is loaded, and its output.

Owns the command. The course stands in course.py.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vsf_lib.bench.neggen.cluster import LOCAL, Cluster
from vsf_lib.bench.neggen.judges import KEY_VARIABLE, PUBLISHED, JudgeSpec, choose_judge, key_of, name_of
from vsf_lib.bench.neggen.labels import compare, read_labels
from vsf_lib.bench.neggen.prompts import OWN, SCENES, Item, load_items
from vsf_lib.bench.results import conditions, write_json
from vsf_lib.cli.console import note, result
from vsf_lib.errors import ModelError, SettingsError
from vsf_lib.images.model import find_model
from vsf_lib.images.request import DEVICES, DTYPES, OFFLOADS, Request
from vsf_lib.scenes.model import MODELS, NAME, check_words

if TYPE_CHECKING:
    from vsf_lib.bench.neggen.store import Store

_METHODS = "vsf,vsf-strong,difference,nag,nag-strong,nasa,none"
_MOST_SEEDS = 1000
_HANDED_ON = ("model", "parts", "steps", "size", "device", "dtype", "offload")
"""Flags that mean what they mean in `generate`, which checks them."""


def add_arguments(parser: ArgumentParser) -> None:
    """The command's options."""
    what = parser.add_argument_group("what is drawn")
    what.add_argument(
        "--prompts",
        metavar="FILE",
        help="a JSON list of prompt, missing_element, question_1 (is the thing shown?) and question_2 (is "
        f"the element missing?), such as the authors'; or {OWN} (30 of ours; the default) or {SCENES} (30 "
        "for the small built-in models; their default)",
    )
    what.add_argument("--limit", type=int, metavar="N", help="only the first N prompts")
    what.add_argument("--seeds", type=int, default=2, metavar="N", help="seeds 0 to N-1 (default: 2)")
    what.add_argument(
        "--methods",
        default=_METHODS,
        metavar="LIST",
        help="with commas, each perhaps with values of its own, such as vsf:alpha=2:beta=0.5 or cfg:scale=4; "
        f"the first is what the others are set against (default: {_METHODS}; there is also cfg)",
    )
    model = parser.add_argument_group("model and machine (as for generate)")
    model.add_argument("--model", default=NAME, metavar="MODEL", help=f"default: {NAME}")
    model.add_argument("--parts", metavar="FOLDER", help="for a model in a single file")
    model.add_argument("--steps", type=int, metavar="N", help="default: what suits the model")
    model.add_argument("--size", metavar="WxH", help="default: the model's own")
    model.add_argument("--device", metavar="NAME", help=f"{', '.join(DEVICES)} or cuda:1 (default: auto)")
    model.add_argument("--dtype", choices=DTYPES, help="default: auto, by model and device")
    model.add_argument("--offload", choices=OFFLOADS, help="keep parts in main memory (default: none)")
    model.add_argument(
        "--ray",
        nargs="?",
        const=LOCAL,
        metavar="ADDRESS",
        help="spread the work over the Ray cluster there, one task per prompt and seed; without an address, "
        "over worker processes of this machine (needs the package ray)",
    )
    model.add_argument(
        "--ray-workers", type=int, metavar="N", help="the most tasks at once (default: one per GPU, else CPU)"
    )
    judge = parser.add_argument_group("judge")
    judge.add_argument(
        "--judge",
        metavar="JUDGE",
        help="the address of an OpenAI-compatible endpoint, such as http://127.0.0.1:8000/v1; or a "
        f"Qwen2.5-VL's folder or Hugging Face id, such as {PUBLISHED}; or {SCENES}, the network that "
        "reads the small models' pictures (their default)",
    )
    judge.add_argument("--judge-model", metavar="NAME", help="with an endpoint: its model")
    judge.add_argument(
        "--judge-key-env",
        metavar="VARIABLE",
        help=f"with an endpoint: the environment variable that has the API key (default: {KEY_VARIABLE}, if "
        "it is set)",
    )
    judge.add_argument(
        "--judge-jobs",
        type=int,
        default=1,
        metavar="N",
        help="with an endpoint: questions at once (default: 1)",
    )
    judge.add_argument(
        "--judge-timeout",
        type=float,
        default=120.0,
        metavar="S",
        help="with an endpoint: seconds that one answer may take (default: 120)",
    )
    judge.add_argument(
        "--judge-adapter",
        metavar="ADAPTER",
        help="with a Qwen2.5-VL: the folder or id of a PEFT adapter of it",
    )
    judge.add_argument(
        "--ask-again", action="store_true", help="ask anew where the judge's answer could not be read before"
    )
    judge.add_argument(
        "--labels",
        type=Path,
        metavar="FILE",
        help="what people saw, to measure the judge by: a JSON list of objects with picture (or prompt, "
        "method and seed), positive, negative and quality",
    )
    kept = parser.add_argument_group("result")
    kept.add_argument(
        "--out",
        type=Path,
        default=Path("outputs/neggen"),
        metavar="DIR",
        help="where pictures and answers are kept: the same command goes on from there (default: "
        "outputs/neggen)",
    )
    kept.add_argument("--json", type=Path, metavar="FILE", help="write the results here, too")


def run(args: Namespace) -> int:
    """Draws, asks, counts and prints; raises VSFError for what the user can mend."""
    _check(args)
    items = _items(args)
    base = _base(args)
    find_model(base.model, base.parts)  # before anything is said of the judge
    spec = choose_judge(
        args.judge,
        drawn_by=args.model,
        model=args.judge_model,
        adapter=args.judge_adapter,
        key_variable=args.judge_key_env,
        timeout=args.judge_timeout,
        device=args.device or "auto",
    )
    key_of(spec)
    if spec.kind == "scenes":
        from vsf_lib.bench.neggen.network import check_items

        check_items(items)
    labels = None if args.labels is None else read_labels(args.labels)
    from vsf_lib.bench.neggen.store import RESULTS, Store

    store = Store(args.out)
    try:
        found = _measured(args, base, items, spec, store)
    except KeyboardInterrupt:
        note(_go_on(store), prefix="")
        raise
    except ModelError as error:
        raise ModelError(f"{error} ({_go_on(store)})") from error
    if labels is not None:
        found["labels"] = compare(labels, found["pictures"])
    for path in (store.folder / RESULTS, args.json):
        if path is not None:
            write_json(path, found)
    from vsf_lib.bench.neggen.table import table
    from vsf_lib.bench.neggen.unread import check_read

    for line in table(found).split("\n"):
        result(line)
    result(f"results: {store.folder / RESULTS}, pictures beside it")
    check_read(found)  # last, because what was drawn and said is of use all the same
    return 0


def _check(args: Namespace) -> None:
    for name in ("limit", "seeds", "ray_workers", "judge_jobs"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise SettingsError(f"--{name.replace('_', '-')} is {value}, but must be 1 or more")
    if args.seeds > _MOST_SEEDS:
        raise SettingsError(f"--seeds is {args.seeds}, but must be at most {_MOST_SEEDS}")
    if not 0 < args.judge_timeout < 10_000:
        raise SettingsError(
            f"--judge-timeout is {args.judge_timeout:g}, but must be a number of seconds above 0"
        )
    if args.ray_workers is not None and args.ray is None:
        raise SettingsError("--ray-workers goes with --ray: add that, or leave it out")


def _items(args: Namespace) -> list[Item]:
    small = args.model in MODELS
    items = load_items(args.prompts or (SCENES if small else OWN))[: args.limit]
    if small:
        for item in items:
            check_words(item.prompt, "prompt")
            check_words(item.missing_element, "missing element")
    return items


def _base(args: Namespace) -> Request:
    """What `generate` would draw with, by its own checks."""
    from vsf_lib.images.asked import Asked
    from vsf_lib.images.resolve import resolve

    handed = {name: getattr(args, name) for name in _HANDED_ON}
    return resolve(Asked(prompt="a prompt of the list", given={"method": "off"}, seed=0, **handed))


def _measured(
    args: Namespace, base: Request, items: list[Item], spec: JudgeSpec, store: Store
) -> dict[str, Any]:
    from vsf_lib.bench.bootstrap import BANDS
    from vsf_lib.bench.methods import methods_named
    from vsf_lib.bench.neggen.course import Course, Plan
    from vsf_lib.bench.neggen.network import check_size

    methods = methods_named(args.methods, args.model)
    plan = Plan(base, methods, items, range(args.seeds), spec, args.judge_jobs, args.ask_again)
    gpu = args.device is None or not args.device.startswith("cpu")
    with nullcontext() if args.ray is None else Cluster(args.ray, args.ray_workers, gpu=gpu) as cluster:
        course = Course(plan, store, cluster)
        if spec.kind == "scenes":
            check_size(course.place.size)
        found = course.run()
    for method in methods:
        found["methods"][method.name] |= {
            "values": method.describe(),
            "settings": method.settings.model_dump(exclude={"negative_prompt"}),
            "guidance_scale": method.guidance_scale,
        }
    return {
        "study": "neggen",
        **conditions(args.model, len(items), args.seeds, base.steps),
        "size": list(course.place.size),
        "dtype": course.place.dtype,
        "model_files": course.place.fingerprint,
        "judge": course.judge,
        "judge_name": name_of(course.judge),
        "bands": BANDS,
        **found,
    }


def _go_on(store: Store) -> str:
    return f"what was drawn and answered is kept in {store.folder}: the same command goes on from there"
