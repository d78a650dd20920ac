"""``python -m sparse_xp.recipe``: check, show and convert recipes, old and new.

    python -m sparse_xp.recipe check old_recipe.md
    python -m sparse_xp.recipe show old_recipe.md --args num_epochs=5 --png recipe.png
    python -m sparse_xp.recipe show old_recipe.md --args num_epochs=5 --png recipe.png --run outputs/RUN
    python -m sparse_xp.recipe show recipe=pruned80 task=squad
    python -m sparse_xp.recipe convert old_recipe.md --name mine > mine/recipe/mine.yaml

FILE is a recipe of SparseML (.md, .yaml, .yml) or a stub of the zoo (zoo:...). docs/sparseml.md has more.
"""

from __future__ import annotations

import argparse

from sparse_xp.cli import Parser, run_command
from sparse_xp.recipe.check import check_recipes
from sparse_xp.recipe.convert import convert_recipe
from sparse_xp.recipe.view.show import show_recipe


def make_parser() -> Parser:
    """Return the parser of the command line."""
    parser = Parser(
        prog="python -m sparse_xp.recipe", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    check = commands.add_parser("check", help="ok, or what is wrong and where")
    show = commands.add_parser("show", help="the phases on a time line, and what holds in each epoch")
    convert = commands.add_parser("convert", help="the same as a recipe of our own groups, on standard output")
    check.add_argument("files", metavar="FILE", nargs="+", help="a recipe of SparseML, or a stub of the zoo")
    convert.add_argument("file", metavar="FILE", help="the same")
    show.add_argument("recipe", metavar="FILE", nargs="+", help="the same, or overrides of python -m sparse_xp")
    for command in (check, show, convert):
        command.add_argument("--args", metavar="ARGS", help="values for its variables: a=1,b=2 or JSON")
        command.add_argument("--anchors", action="store_true", help="they also replace values behind aliases (*name)")
        command.add_argument("--zoo", metavar="FILE", help="a table of stubs, before conf/zoo.yaml")
    check.add_argument("--strict", action="store_true", help="an argument that reaches nothing is an error")
    show.add_argument("--config-dir", metavar="DIR", help="a directory with recipes and tasks of your own")
    show.add_argument(
        "--steps-per-epoch",
        "--epochs-steps",
        metavar="N",
        type=steps_option,
        default=100,
        help="default: 100, or those of --run",
    )
    show.add_argument("--json", action="store_true", help="as data")
    show.add_argument("--png", metavar="OUT.png", help="as a picture too")
    show.add_argument("--run", metavar="DIR", help="into the picture, what a run of it measured: rate, sparsity, loss")
    show.add_argument("--model", metavar="DIR_OR_HUB_ID", help="what the patterns match in this model")
    show.add_argument("--task", metavar="NAME", help="whose head the model has (default: squad)")
    convert.add_argument("--name", metavar="NAME", help="of the recipe (default: that of the file)")
    return parser


def steps_option(text: str) -> int:
    """Return the value of --steps-per-epoch. Raises ArgumentTypeError outside of 1 to 10,000."""
    number = int(text)
    if not 1 <= number <= 10_000:
        raise argparse.ArgumentTypeError(f"{text}: expected a number from 1 to 10000")
    return number


def main(argv: list[str]) -> None:
    """Run the command with these arguments.

    None of them loads torch, except ``show --model``.
    """
    parser = make_parser()
    options, rest = parser.parse_known_args(argv)
    if rest and (options.command != "show" or any(word.startswith("-") for word in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if options.command == "show":
        options.recipe += rest  # overrides behind an option
    if options.command == "check":
        check_recipes(options.files, options.args, strict=options.strict, anchors=options.anchors, zoo=options.zoo)
    elif options.command == "show":
        show_recipe(options)
    else:
        text = convert_recipe(options.file, options.args, anchors=options.anchors, zoo=options.zoo, name=options.name)
        print(text, end="")


if __name__ == "__main__":
    run_command(main)
