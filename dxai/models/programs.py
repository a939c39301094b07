"""Networks that come whole from a file: programs of `torch.export`, and TorchScript.

Neither file is trusted. `torch.export.load` would unpickle some of its parts, load compiled code,
and evaluate text of the graph; so the archive is written anew from the parts that are plain data,
whose text is checked, and only this copy is loaded. TorchScript runs no Python, but may name
operators that write files: its archive is copied, too, the names in its code are checked before it
is loaded, and the operators that torch found in it before it is run.
"""

from __future__ import annotations

import io
import json
import keyword
import pickletools
import re
import tokenize
import zipfile
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export.passes import move_to_device_pass

PLAIN = re.compile(
    r"archive_format|archive_version|byteorder|\.data/\w+|models/model\.json|"
    r"data/(weights/weight|constants/tensor)_\d+|data/(weights|constants)/model_\w+_config\.json"
)
"""Members of a `torch.export` archive that are numbers or checked text."""
LEFT_OUT = re.compile(r"data/sample_inputs/.*|extra/.*")
"""Members that running the program does not need."""
TARGET = re.compile(
    r"torch\.ops\.(aten|prim|prims|torchvision|quantized|quantized_decomposed)\."
    r"(?!from_file|save)\w+(\.\w+)?"
    r"|torch\.ops\.higher_order\.(wrap_with_set_grad_enabled|wrap_with_autocast|cond)"
    r"|torch\._?sym_\w+"
    r"|math\.[a-z]\w*"
    r"|_operator\.(getitem|add|sub|mul|truediv|floordiv|mod|pow|neg|pos|abs|eq|ne|lt|le|gt|ge"
    r"|and_|or_|not_)"
)
"""Functions that a program may call: tensor operators and arithmetic."""
SIZE = re.compile(
    r"Symbol|Integer|Float|Rational|Add|Mul|Pow|Mod|Min|Max|FloorDiv|CeilDiv|CleanDiv|PythonMod"
    r"|ModularIndexing|Where|IntTrueDiv|FloatTrueDiv|PowByNatural|FloatPow|CeilToInt|FloorToInt"
    r"|TruncToInt|RoundToInt|ToFloat|Identity|Eq|Ne|Lt|Le|Gt|Ge|And|Or|Not|Equality|Unequality"
    r"|StrictLessThan|LessThan|StrictGreaterThan|GreaterThan|true|false|True|False"
    r"|(non)?(positive|negative|zero)|integer|real|finite|[suz]\w*\d"
)
"""Names in the expressions of sizes, which are evaluated when a program is loaded."""

SCRIPT = re.compile(
    r"version|byteorder|\.format_version|\.storage_alignment|\.data/\w+"
    r"|(data|constants)(\.pkl|/\w+)|code/[\w/.]+\.py"
)
"""Members of a TorchScript archive that are loaded: its version, values, tensors and code."""
SCRIPT_GLOBAL = re.compile(
    r"(collections|torch|torch\._utils|torch\.jit\._pickle)\.\w+"
    r"|__torch__\.(?!torch\.classes\.)[\w.]+|__torch__\.torch\.classes\.quantized\.\w+"
)
"""Names that a pickle in a TorchScript archive, which torch reads without Python, may look up."""
LITERAL = re.compile(r'"([^"\\]|\\.)*"|\'([^\'\\]|\\.)*\'')
"""String literal of TorchScript's printer: without prefix, on one line."""
LIBRARIES = ("aten", "prim", "quantized", "torchvision")
"""Libraries whose operators a script may call."""
FORBIDDEN = ("save", "from_file", "rpc_async", "rpc_sync", "rpc_remote", "PythonOp")
"""Operators that reach files, other machines or Python."""


class ProgramError(ValueError):
    """An unusable program; the message says why."""


class Program(nn.Module):
    """A network held as the bytes of its file, uint8, which a model file can store."""

    program: Tensor
    batch: tuple[int, int | None] = (1, None)
    """Fewest and most images that it takes at once."""
    dtype = torch.float32
    image_shape: tuple[Any, ...] | None = None
    """(C, H, W) of the images that it takes, if it says so."""

    def __init__(self, program: Tensor) -> None:
        super().__init__()
        self.register_buffer("program", program)
        # Hidden from `modules()`: a graph has no layers, and refuses `eval()` and `train()`.
        self.__dict__["graph"] = self.load(program.cpu().numpy().tobytes())

    def load(self, content: bytes) -> Any:
        """Return the function of the file's content."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) to whatever the program returns, in batches that it takes."""
        if isinstance(x, fx.Proxy):
            raise TypeError("a network that comes from a file of a program has no layers")
        fewest, most = self.batch
        if len(x) >= fewest and (most is None or len(x) <= most):
            return self.__dict__["graph"](x)
        results = []
        for piece in x.split(most or len(x)):
            padding = piece[-1:].expand(max(fewest - len(piece), 0), *piece.shape[1:])
            results.append(_first(self.__dict__["graph"](torch.cat([piece, padding])), len(piece)))
        return _joined(results)

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickles are made from the bytes; a TorchScript graph has no other way."""
        return type(self), (self.program.cpu(),)


class Exported(Program):
    """Network of a file of `torch.export.save`, with a dynamic or a static batch."""

    def load(self, content: bytes) -> Any:
        program = torch.export.load(io.BytesIO(checked_archive(content)))
        self.__dict__["exported"] = program
        names = program.graph_signature.user_inputs
        inputs = [n for n in program.graph.nodes if n.op == "placeholder" and n.name in names]
        if len(inputs) != 1 or not isinstance(inputs[0].meta["val"], Tensor):
            raise ProgramError(f"it takes {len(names)} inputs; a classifier takes one, images")
        image = inputs[0].meta["val"]
        self.dtype, self.image_shape = image.dtype, tuple(image.shape[1:])
        self.batch = _batch(image.shape[0], program.range_constraints)
        return program.module().requires_grad_(False)

    def _apply(self, fn: Any, recurse: bool = True) -> Exported:
        before = self.program.device
        super()._apply(fn, recurse)
        if self.program.device != before:  # constants in the graph must move, too
            moved = move_to_device_pass(self.__dict__["exported"], self.program.device)
            self.__dict__["graph"] = moved.module().requires_grad_(False)
        return self


class Scripted(Program):
    """Network of a file of `torch.jit.save`."""

    def load(self, content: bytes) -> Any:
        script = torch.jit.load(io.BytesIO(checked_script(content)), map_location="cpu").eval()
        check_operators(script)
        for parameter in script.parameters():
            parameter.requires_grad_(False)
        types = [p.dtype for p in script.parameters() if p.is_floating_point()]
        self.dtype = types[0] if types else torch.float32
        return script

    def _apply(self, fn: Any, recurse: bool = True) -> Scripted:
        super()._apply(fn, recurse)
        self.__dict__["graph"].to(self.program.device)
        return self


def checked_script(content: bytes) -> bytes:
    """Copy a TorchScript archive without the parts that running it does not need.

    Raises `ProgramError` if its code or its pickles name what reaches files or other machines.
    """
    copied = io.BytesIO()
    with (
        opened(content, "TorchScript") as archive,
        zipfile.ZipFile(copied, "w", zipfile.ZIP_STORED) as copy,
    ):
        if len({name.partition("/")[0] for name in archive.namelist()}) > 1:
            raise ProgramError("it is refused, as its archive has more than one folder")
        for name in archive.namelist():
            member = name.partition("/")[2]
            if not SCRIPT.fullmatch(member):
                continue
            data = archive.read(name)
            if member.endswith(".py"):
                check_code(data.decode("latin-1"))
            elif member.endswith(".pkl"):
                _check_pickle(data)
            copy.writestr(name, data)
    return copied.getvalue()


def check_code(code: str) -> None:
    """Raise `ProgramError` if TorchScript could call an operator that reaches files.

    The name of an operator cannot be computed: it stands in the code, or in a string that is the
    second argument of `getattr`, which torch writes only for attributes like "0".
    """
    words = _tokens(code)
    for i, (word, after, following) in enumerate(zip(words, words[1:], words[2:], strict=False)):
        if word in FORBIDDEN:
            raise ProgramError(f"it is refused, as it calls {word}, which reaches files")
        if word in ("torch", "ops") and not (after == "." and following.isidentifier()):
            raise ProgramError(f"it is refused, as it passes on the module {word}")
        if word == "ops" and following not in LIBRARIES:
            raise ProgramError(
                f"it is refused, as it calls ops.{following}, an operator of another library"
            )
        if words[i : i + 4] == ["torch", ".", "classes", "."] and words[i + 4] != "quantized":
            raise ProgramError("it is refused, as it holds a custom object")
        if word == "getattr" and not _is_attribute(words[i + 1 :]):
            raise ProgramError("it is refused, as it calls getattr, which may reach any operator")


def _tokens(code: str) -> list[str]:
    """Split TorchScript as torch does; what Python could split in another way is refused."""
    layout = (tokenize.NEWLINE, tokenize.NL, tokenize.INDENT, tokenize.DEDENT, tokenize.COMMENT)
    refused = ProgramError("it is refused, as its code is not as torch writes it")
    if re.search(r"[^\t\n -~]", code):
        raise refused
    words = []
    try:
        for token in tokenize.generate_tokens(io.StringIO(code).readline):
            is_known = token.type in (tokenize.NAME, tokenize.NUMBER, tokenize.OP)
            if is_known or (token.type == tokenize.STRING and LITERAL.fullmatch(token.string)):
                words.append(token.string)
            elif token.type not in (*layout, tokenize.ENDMARKER):
                raise refused
    except (tokenize.TokenError, SyntaxError):
        raise refused from None
    return [*words, "", "", "", ""]


def _is_attribute(words: list[str]) -> bool:
    """Tell whether a call of `getattr` ends in a name that is not an identifier, like "0"."""
    if words[0] != "(":
        return False
    depth = 0
    for i, word in enumerate(words):
        depth += (word == "(") - (word == ")")
        if depth == 0:
            name = words[i - 1][1:-1]
            is_plain = not name.isidentifier() or keyword.iskeyword(name)
            is_literal = bool(LITERAL.fullmatch(words[i - 1])) and words[i - 2] == ","
            return is_literal and is_plain and "\\" not in name
    return False


def _check_pickle(data: bytes) -> None:
    """Raise `ProgramError` for names that torch's own reader of pickles need not look up."""
    try:
        found = [(op.name, arg) for op, arg, _ in pickletools.genops(data)]
    except Exception:  # its decoders raise almost anything for damaged bytes
        raise ProgramError("it is refused, as a pickle in it is damaged") from None
    for opcode, argument in found:
        name = str(argument).replace(" ", ".")
        if opcode in ("STACK_GLOBAL", "INST", "EXT1", "EXT2", "EXT4") or (
            opcode == "GLOBAL" and not SCRIPT_GLOBAL.fullmatch(name)
        ):
            raise ProgramError(f"it is refused, as a pickle in it names {name[:60]}")


def check_operators(script: torch.jit.ScriptModule) -> None:
    """Raise `ProgramError` if the graphs that torch made of a script reach more than tensors."""
    for module in script.modules():
        made: Any = module._c
        for name in made._method_names():
            for node in _nodes(made._get_method(name).inlined_graph):
                library, _, operator = node.kind().partition("::")
                types = " ".join(output.type().str() for output in node.outputs())
                if (
                    library not in LIBRARIES
                    or operator.lstrip("_^") in FORBIDDEN
                    or re.search(r"torch\.classes\.(?!quantized\.)", types)
                ):
                    raise ProgramError(f"it is refused, as it calls {node.kind()}")


def _nodes(graph: Any) -> Iterator[Any]:
    for node in graph.nodes():
        yield node
        for block in node.blocks():
            yield from _nodes(block)
        for name in node.attributeNames():
            if node.kindOf(name) == "g":
                yield from _nodes(node.g(name))


def opened(content: bytes, kind: str) -> zipfile.ZipFile:
    """Open an archive; raise `ProgramError` if it is not one, or readers could differ about it."""
    try:
        archive = zipfile.ZipFile(io.BytesIO(content))
    except zipfile.BadZipFile:
        raise ProgramError(f"not a {kind} file") from None
    names = [name.casefold() for name in archive.namelist()]
    if len(set(names)) < len(names):
        raise ProgramError("it is refused, as a name stands twice in the archive")
    return archive


def checked_archive(content: bytes) -> bytes:
    """Copy a `torch.export` archive without the parts that are unpickled or run when loaded.

    Raises `ProgramError` if the program needs such a part, or its graph could call anything but
    tensor operators.
    """
    copied = io.BytesIO()
    with (
        opened(content, "torch.export") as archive,
        zipfile.ZipFile(copied, "w", zipfile.ZIP_STORED) as copy,
    ):
        names = archive.namelist()
        if "serialized_exported_program.json" in names:
            raise ProgramError("written by a torch before 2.8, in a pickled form; export it again")
        if not any(name.endswith("/models/model.json") for name in names):
            raise ProgramError("not a torch.export file")
        for name in names:
            member, data = name.partition("/")[2], archive.read(name)
            if LEFT_OUT.fullmatch(member):
                data = b""
            elif not PLAIN.fullmatch(member):
                raise ProgramError(f"it is refused, as {member} in it is a pickle or compiled code")
            elif member.endswith(".json"):
                data = json.dumps(_checked(json.loads(data))).encode()
            copy.writestr(name, data)
    return copied.getvalue()


def _checked(value: Any, key: str = "") -> Any:
    """Copy a value of a graph or of a list of weights; see `checked_archive`."""
    if isinstance(value, dict):
        if value.get("use_pickle"):
            raise ProgramError(f"it is refused, as {value.get('path_name')} in it is a pickle")
        if "as_custom_obj" in value or value.get("custom_obj_values"):
            raise ProgramError("it is refused, as it holds a custom object")
        if key in ("device", "as_device"):  # a program of a GPU is loaded here, and moved later
            return {"type": "cpu", "index": None}
        # Values of metadata are for people, and `guards_code` is evaluated to check the sizes of
        # images, which the operators do, too; the names of the tables are not evaluated.
        dropped: dict[str, Any] = {"metadata": {}, "guards_code": []}
        return {k: dropped[k] if k in dropped else _checked(v, k) for k, v in value.items()}
    if isinstance(value, list):
        return [_checked(item, key) for item in value]
    if isinstance(value, str) and not _is_plain(value, key):
        raise ProgramError(f"it is refused, as its graph holds the {key} {value[:60]!r}")
    return value


def _is_plain(text: str, key: str) -> bool:
    if key in ("target", "as_operator") or text.startswith(("torch.", "_operator", "math.", "#")):
        return bool(TARGET.fullmatch(text))
    if key in ("as_string", "as_strings", "torch_version", "path_name"):
        return True
    if key == "expr_str":
        text = re.sub(r"Symbol\('\w+'", "Symbol(", text)
        known = all(SIZE.fullmatch(name) for name in re.findall(r"[A-Za-z_]\w*", text))
        return known and not re.search(r"[^\w\s(),=.+*/<>&|~%-]|\.\s*[A-Za-z_]", text)
    if key in ("in_spec", "out_spec"):
        return all(re.fullmatch(r"[\w.]*", word) for word in _words(text))
    return bool(re.fullmatch(r"[\w.]*", text))


def _words(text: str) -> Iterator[str]:
    """Yield the words in JSON whose strings may hold JSON again."""
    try:
        value = json.loads(text)
    except ValueError:
        yield text
        return
    stack = [value]
    while stack:
        value = stack.pop()
        if isinstance(value, dict):
            stack += [*value.values(), *value]
        elif isinstance(value, list):
            stack += value
        elif isinstance(value, str) and value.startswith(("[", "{", '"')):
            yield from _words(value)
        elif isinstance(value, str):
            yield "(" if "default_factory" in value else value


def _batch(size: Any, ranges: Any) -> tuple[int, int | None]:
    """Return the fewest and most images of a program whose first dimension has this `size`."""
    if isinstance(size, int):
        return size, size
    bounds = ranges.get(size.node.expr)
    if bounds is None:
        return 1, None
    most = bounds.upper
    return max(int(bounds.lower), 1), int(most) if most.is_Integer else None


def _first(result: Any, count: int) -> Any:
    """Return the first images' part of a result."""
    if isinstance(result, Tensor):
        return result[:count] if result.ndim else result
    if isinstance(result, dict):
        return {key: _first(value, count) for key, value in result.items()}
    if not isinstance(result, (list, tuple)):
        return result
    return tuple(_first(value, count) for value in result)


def _joined(results: list[Any]) -> Any:
    """Join the results of consecutive images."""
    if isinstance(results[0], Tensor):
        return torch.cat(results) if results[0].ndim else results[0]
    if isinstance(results[0], dict):
        return {key: _joined([r[key] for r in results]) for key in results[0]}
    if not isinstance(results[0], (list, tuple)):
        return results[0]
    return tuple(_joined(list(values)) for values in zip(*results, strict=True))
