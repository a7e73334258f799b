"""`python -m vsf_lib generate`: its flags, and the order of checking, loading, drawing and writing.

Everything that can be wrong without a model is found before one is loaded, and torch is imported only then.
"""

from __future__ import annotations

import json
from argparse import ArgumentParser, BooleanOptionalAction, Namespace
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from vsf_lib.cli.console import Progress, note, result
from vsf_lib.cli.guidance import add_guidance, explicit, unread
from vsf_lib.cli.output import PICTURES, Output, open_output
from vsf_lib.cli.recipe import LIST, add_recipe, tell_recipes
from vsf_lib.cli.seed import add_seed, is_random
from vsf_lib.cli.sweep import add_sweep, check_file, files_for
from vsf_lib.errors import ModelError, is_out_of_memory
from vsf_lib.images.asked import Asked
from vsf_lib.images.model import Model, find_model
from vsf_lib.images.plans import FILMS
from vsf_lib.images.remarks import other_weights, remarks
from vsf_lib.images.request import DEVICES, DTYPES, OFFLOADS, Request
from vsf_lib.images.resolve import resolve
from vsf_lib.metadata import format_parameters, write_png
from vsf_lib.scenes.model import MODELS, NAME, check_words

_MEMORY = "choose a smaller --size, --dtype bfloat16, --offload model or sequential, or close other programs"


def add_arguments(parser: ArgumentParser) -> None:
    """No flag has a default here, so that an explicit one can be told from none; `resolve` fills them in."""
    parser.add_argument("--prompt", metavar="TEXT", help="what the picture shows")
    guidance = add_guidance(parser, "the picture")
    guidance.add_argument(
        "--compare",
        action=BooleanOptionalAction,
        help="two pictures of the same seed in one file: left without, right with the negative prompt",
    )
    add_recipe(guidance)
    add_sweep(parser.add_argument_group("one setting over a range"))
    guidance.add_argument(
        "--heatmap",
        action=BooleanOptionalAction,
        help="a second file beside the picture, NAME-heatmap.png: where the negative prompt acts, over the "
        "picture and step by step (methods vsf and difference)",
    )
    picture = parser.add_argument_group("the picture")
    picture.add_argument("--steps", type=int, metavar="N", help="default: what suits the model")
    add_seed(picture)
    picture.add_argument("--size", metavar="WxH", help="in pixels, or one number (default: the model's own)")
    picture.add_argument("--batch", type=int, metavar="N", help="so many pictures, of seeds N, N+1, ...")
    picture.add_argument(
        "--guidance-scale",
        type=float,
        metavar="X",
        help="classifier-free guidance, 1 is off (default: 1). It reads the negative prompt only with "
        "--method off; with another method its unconditional prompt is empty. With Flux dev it is the "
        "distilled guidance (default: 3.5; of the small built-in one 1.5), and schnell has none",
    )
    picture.add_argument(
        "--from-image",
        metavar="FILE",
        help="repeat a PNG file, or a sweep's film, that this program made; other flags win over it",
    )
    machine = parser.add_argument_group("model and machine")
    machine.add_argument(
        "--model",
        metavar="MODEL",
        help=f"{', '.join(MODELS)} (small built-in ones; default: {NAME}), or the folder or Hugging Face id "
        "of a Stable Diffusion 3.5 or Flux.1 in diffusers' format, or its .safetensors file (see --parts)",
    )
    machine.add_argument(
        "--parts",
        metavar="FOLDER",
        help="for a model in a single file: the folder in diffusers' format that gives its text encoders, "
        "tokenizers, VAE and configurations",
    )
    machine.add_argument("--device", metavar="NAME", help=f"{', '.join(DEVICES)} or cuda:1 (default: auto)")
    machine.add_argument("--dtype", choices=DTYPES, help="default: auto, by model and device")
    machine.add_argument("--offload", choices=OFFLOADS, help="keep parts in main memory (default: none)")
    result_group = parser.add_argument_group("result")
    result_group.add_argument(
        "--out",
        metavar="PATH",
        help="a .png file, which is replaced, or a folder (default: outputs); of a sweep also "
        f"{', '.join(FILMS)}",
    )
    result_group.add_argument(
        "--json", action="store_true", help="print one JSON object with path, infotext and seconds"
    )
    result_group.add_argument(
        "--debug", action="store_true", help="show tracebacks and what the libraries say"
    )


def asked(args: Namespace) -> Asked:
    """What the flags ask for."""
    names = [item.name for item in fields(Asked) if item.name != "given"]
    return Asked(**{name: getattr(args, name) for name in names}, given=explicit(args))


def run(args: Namespace) -> int:
    """Draws and writes what was asked for."""
    if args.recipe == LIST:
        return tell_recipes(args)
    request = resolve(asked(args))
    if request.model in MODELS:
        check_words(request.prompt, "prompt")
        check_words(request.settings.negative_prompt, "negative prompt")
    model = find_model(request.model, request.parts)
    if model.folder is not None:
        model.folder.size(request.size)
    with open_output(args.out, request.batch, files_for(args) if request.sweep else PICTURES) as output:
        if request.sweep:
            check_file(args, output.suffix)
        try:
            written = list(_written(request, model, output, args))
        except Exception as error:
            if is_out_of_memory(error):
                raise ModelError(f"out of memory: {_MEMORY}") from error
            raise
    if args.json:
        seconds = round(sum(picture["seconds"] for picture in written), 3)
        result(json.dumps({**written[0], "seconds": seconds, "images": written}))
    return 0


def _written(request: Request, model: Model, output: Output, args: Namespace) -> Iterator[dict[str, Any]]:
    """Draws, writes and tells one picture after the other."""
    from vsf_lib.images.loading import choose_machine, fetch, load  # imports torch
    from vsf_lib.images.pictures import Picture, draw

    machine = choose_machine(request, model)
    folder = fetch(model)
    request = request.fitted(flux=folder.flux)
    notes = [
        *request.notes,
        *unread(args, request.settings),
        *other_weights(request, model, str(args.from_image)),
        *remarks(request, model, folder),
    ]
    if is_random(args.seed, repeats=args.from_image is not None):
        notes.append(f"seed {request.seed}")
    pictures: Iterator[Picture]
    if request.sweep is None:
        pictures = draw(request, model, folder, machine, quiet=not args.debug)
    else:
        from vsf_lib.images.swept import draw_sweep, pictures_in

        folder.size(request.size)
        request.sweep.sweep.settings(request.settings)  # raises before a model is loaded
        pictures = draw_sweep(
            load(folder, machine, quiet=not args.debug),
            request,
            request.sweep,
            model,
            folder,
            machine,
            film=output.suffix in FILMS,
            count=Progress(request.batch * pictures_in(request.sweep), "pictures"),
        )
    for picture in pictures:
        path = output.path(request.prompt, picture.parameters.seed, kind=request.kind)
        infotext = format_parameters(picture.parameters)
        picture.write(path, infotext)
        while notes:  # only now, so that a run that fails says one thing
            note(notes.pop(0))
        if not args.json:
            result(str(path))
        told: dict[str, Any] = {"path": str(path), "infotext": infotext, "seconds": round(picture.seconds, 3)}
        told |= picture.told
        if picture.heatmap is not None:  # after the picture, which a failure here must not cost
            image, parameters = picture.heatmap()
            beside = output.beside(path, "heatmap")
            write_png(beside, image, format_parameters(parameters))
            if not args.json:
                result(str(beside))
            told["heatmap"] = str(beside)
        yield told
