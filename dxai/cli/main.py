"""The `dxai` command. What is heavy is imported by the subcommand that needs it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from dxai import __version__


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code. A user's error is one line on stderr."""
    options = _parser().parse_args(arguments)
    try:
        return options.run(options)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dxai",
        description="Explain image classifiers by decomposing images into a class-agnostic and a "
        "class-distinct part.",
    )
    parser.add_argument("--version", action="version", version=f"dxai {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_use(commands)
    _add_explain(commands)
    _add_table(commands)
    _add_tables(commands)
    _add_track(commands)
    _add_compare(commands)
    _add_reproduce(commands)
    return parser


def _add_use(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    use = commands.add_parser(
        "use",
        help="choose what `dvc repro` runs",
        description="Rewrite the `run` block of params.yaml: a profile, with other values where "
        "asked for. Prints what changed.",
    )
    use.add_argument(
        "profile", nargs="?", help="a profile of params.yaml; default: change the block as it is"
    )
    use.add_argument(
        "--set",
        metavar="KEY=VALUE",
        dest="overrides",
        type=_override,
        action="append",
        default=[],
        help="another value, for example decompose.steps=300; may be repeated",
    )
    use.add_argument("--datasets", nargs="+", metavar="NAME", help="datasets to run over")
    use.add_argument("--classifiers", nargs="+", metavar="NAME", help="classifiers to explain")
    use.add_argument("--methods", nargs="+", metavar="NAME", help="baselines to compare with")
    use.add_argument("--seeds", nargs="+", metavar="N", type=int, help="seeds of the training")
    use.add_argument("--params", default="params.yaml", metavar="FILE", help=argparse.SUPPRESS)
    use.set_defaults(run=_use)


def _add_explain(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    explain = commands.add_parser(
        "explain",
        help="explain images with a trained decomposition",
        description="For each image write a picture of its parts, with the classifier's "
        "probabilities of each, and a JSON with the numbers.",
    )
    explain.add_argument("images", nargs="+", metavar="IMAGE", help="an image file")
    explain.add_argument(
        "--model",
        required=True,
        metavar="RUN_OR_FILE",
        help="a decomposition's folder or model.pt, an MLflow run id or a runs:/ URI",
    )
    explain.add_argument(
        "--classifier", metavar="FILE", help="ask this classifier instead of the model's own"
    )
    explain.add_argument(
        "--class", metavar="NAME", dest="class_name", help="explain this class; default: predicted"
    )
    explain.add_argument(
        "--out", default="explanations", metavar="DIR", help="folder to write to (%(default)s)"
    )
    explain.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of the latent z (%(default)s)"
    )
    explain.set_defaults(run=_explain)


def _add_table(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    table = commands.add_parser("table", help="print a result table")
    table.add_argument(
        "path", nargs="?", default="results/tables/table1.csv", help="a CSV table (%(default)s)"
    )
    table.set_defaults(run=_table)


def _add_tables(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    tables = commands.add_parser(
        "tables",
        help="make some tables from the results that are here",
        description="Without the stages that only other tables need; `dvc repro` makes them all.",
    )
    tables.add_argument("numbers", nargs="+", metavar="N", type=int, help="1 to 6, as in the paper")
    tables.add_argument(
        "--into", default=".work/tables", metavar="DIR", help="folder to replace (%(default)s)"
    )
    tables.set_defaults(run=_tables)


def _add_track(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    track = commands.add_parser("track", help="log the results that are here to MLflow")
    track.set_defaults(run=_track)


def _add_compare(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    compare = commands.add_parser(
        "compare",
        help="what two runs in MLflow did otherwise",
        description="Settings, data and code that differ, and every cell of Tables 1-4 and 6 that "
        "does, those first that differ by more than the intervals of both runs explain.",
        epilog="A RUN is an id or the beginning of one, a name (the newest run of that name), or "
        "`latest`; NAME~1 is the one before it.",
    )
    for name, what in (("before", "the run to start from"), ("after", "the run to compare")):
        compare.add_argument(name, metavar="RUN", help=what)
    compare.add_argument("--all", action="store_true", help="print cells that are the same, too")
    compare.add_argument(
        "--format",
        choices=("text", "markdown", "json"),
        default="text",
        help="default: %(default)s",
    )
    compare.set_defaults(run=_compare)


def _add_reproduce(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    reproduce = commands.add_parser(
        "reproduce",
        help="compute a run in MLflow again, and compare",
        description="Make a clone at the run's commit, with its uncommitted changes, settings and "
        "package versions, run every stage in it from nothing, and compare each cell of the "
        "tables and each output. Exit code 0: all cells are the same; 1: they are not. Ctrl-C "
        "keeps what is finished, and the same command goes on.",
        epilog="A RUN is named as for `dxai compare`.",
    )
    reproduce.add_argument("spec", metavar="RUN", help="the run")
    reproduce.add_argument(
        "--into", metavar="FOLDER", type=Path, help="where to; default: .work/reproduced/<id>"
    )
    reproduce.add_argument(
        "--here-environment",
        action="store_true",
        help="use the packages that are installed, whichever the run had",
    )
    reproduce.add_argument(
        "--from-cache",
        action="store_true",
        help="take what this project's DVC cache has, after checking its hash; compute the rest",
    )
    reproduce.add_argument(
        "--tolerance",
        metavar="X",
        type=_tolerance,
        default=0.0,
        help="cells that differ by no more are the same (default: 0)",
    )
    reproduce.set_defaults(run=_reproduce)


def _tolerance(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number from 0 up")
    return value


def _override(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    return key, value


def _use(options: argparse.Namespace) -> int:
    from dxai.config.profiles import select_profile

    changes = select_profile(
        options.params,
        options.profile,
        options.datasets,
        options.classifiers,
        options.methods,
        options.seeds,
        dict(options.overrides),
    )
    print("\n".join(changes) if changes else "nothing to change")
    return 0


def _explain(options: argparse.Namespace) -> int:
    from dxai.cli.explain_files import explain_files, open_model

    model = open_model(options.model, options.classifier, options.seed)
    unread = explain_files(model, options.images, Path(options.out), options.class_name)
    return 1 if unread else 0


def _table(options: argparse.Namespace) -> int:
    from dxai.reporting.text import format_table

    print(format_table(options.path))
    return 0


def _tables(options: argparse.Namespace) -> int:
    from dxai.config.schema import choose, load_params
    from dxai.stages.tables import MAKERS, write

    names = [choose("table", f"table{number}", MAKERS) for number in options.numbers]
    params, folder = load_params(), Path(options.into)
    write(folder, {name: MAKERS[name](params) for name in names})
    print("\n".join(str(folder / f"{name}.csv") for name in names))
    return 0


def _track(options: argparse.Namespace) -> int:
    from dxai.tracking import mlflow_store

    print(f"MLflow run {mlflow_store.track()}")
    return 0


def _compare(options: argparse.Namespace) -> int:
    from dxai.reporting.text_comparison import FORMATS
    from dxai.results.comparison import compare
    from dxai.tracking import mlflow_store

    found = compare(mlflow_store.read_run(options.before), mlflow_store.read_run(options.after))
    print(FORMATS[options.format](found, options.all))
    return 0


def _reproduce(options: argparse.Namespace) -> int:
    import signal

    from dxai.tracking.reproduce import as_text, reproduce

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # after DVC has ended, not before
    found = reproduce(
        options.spec,
        options.into,
        options.here_environment,
        options.from_cache,
        lambda line: print(line, flush=True),
    )
    print(as_text(found, options.tolerance), flush=True)
    return 1 if found.differing(options.tolerance) else 0
