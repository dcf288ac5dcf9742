"""An ASE calculator, made and asked: in this process, or as a program of another interpreter.

This file stands alone. It needs Python 3.9, numpy and ase and nothing of this project, so that any
environment that holds a calculator can run it. In this process `ase.py` imports it; `remote.py`
starts it as a program, which reads requests from its standard input and answers on its standard
output:

    message   length of the header (4 bytes, unsigned, little-endian), the header (JSON in UTF-8),
              then the arrays that header["arrays"] lists as [name, shape], one after the other:
              8-byte floats, little-endian, C order, in ASE's units
    greeting  before anything else a line, GREETING; what comes before it was printed by others

    {"ask": "make", "name", "module", "factory", "arguments", "device", "threads",
     "reserved", "path"}
        {"is": "made", "facts": {...}}                as `Held.facts`
    {"ask": "compute", "wanted": ["forces", "energy"]} with numbers, positions_ang, cell_ang
        {"is": "found"} with an array for each        as the calculator gives them
        {"is": "problem", "words": "..."}             what is wrong with what it gave
        {"is": "raised", "words": "..."}              what it raised, which may pass
    either may answer
        {"is": "refused", "kind": "config" | "absent" | "failed", "words": "..."}

An end of the input ends the program. Nothing is pickled. Whatever a calculator prints goes to the
standard error.

Public: Held, Refused, Raised, make, hold, resolve, importable_folder, cores, send, receive,
GREETING.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import json
import math
import os
import re
import struct
import sys
import types
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

GREETING = b"mlip-claims calculator 1\n"
METHODS = {  # of ase.Atoms; the energy last, since most calculators have it once they have forces
    "stress": "get_stress",
    "forces": "get_forces",
    "magmoms": "get_magnetic_moments",
    "energy": "get_potential_energy",
}
HOW = "Write ase:package.module:Factory?key=value&key2=value2"
NONE_FOUND = "none found: known by its arguments, versions and code alone"
# Not a row's fault, so that to go on with the next row is of no use: types, numbers and words of
# what gave out. Nothing that is raised is ever stored as a row's problem, whether it is known here.
_SPENT_TYPES = {
    "AcceleratorError",  # torch: the GPU is gone
    "BrokenExecutor",  # a helper process was killed
    "ConnectionError",
    "MemoryError",
    "OutOfMemoryError",  # torch's own, of a GPU
    "TimeoutError",
    "TimeoutExpired",
}
_SPENT_NUMBERS = {
    errno.EDQUOT,
    errno.EIO,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENODEV,
    errno.ENOMEM,
    errno.ENOSPC,
    errno.EROFS,
}
_SPENT_WORDS = re.compile(
    r"out of memory|not enough memory|bad_alloc|RESOURCE_EXHAUSTED|no space left|quota exceeded|"
    r"(can't|cannot|could not|unable to|failed to) allocate|"
    r"\b(CUDA|HIP|cuDNN|cuBLAS|cuSOLVER|NCCL)( driver)? error|CUDNN_STATUS|CUBLAS_STATUS",
    re.IGNORECASE,
)
_LONGEST = 200  # characters of an exception's words that a report shows
_MOST_OBJECTS = 100_000  # looked at for parameters
_MOST_HEADER_BYTES = 1 << 26


class Refused(Exception):
    """Why there is no calculator or no number. ``kind`` says whose fault it is.

    config: the name or an argument is wrong; absent: a package or a property is not there; failed:
    anything else, nothing of which says anything about a crystal.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Raised(str):
    """What a calculator raised at a crystal. Another time it may not."""

    __slots__ = ()


def words(error: BaseException) -> str:
    """What an exception says, on one line of bounded length."""
    text = " ".join(str(error).split()) or "no message"
    text = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
    return f"{type(error).__name__}: {text}"


@contextlib.contextmanager
def others_warnings() -> Iterator[None]:
    """What a package warns of stays a warning, also where ours are errors; its deprecations go.

    Otherwise a session that turns warnings into errors would take them for faults of a crystal.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        for deprecation in (DeprecationWarning, PendingDeprecationWarning, FutureWarning):
            warnings.simplefilter("ignore", deprecation)
        yield


def cores() -> int:
    """How many threads this process may keep busy: OMP_NUM_THREADS, or the cores it may use."""
    named = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    if named.isdecimal() and int(named) > 0:
        return int(named)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def importable_folder() -> None:
    """Modules in the working folder can be imported; installed ones of the same name come first."""
    if not {"", str(Path.cwd())} & set(sys.path):
        sys.path.append(str(Path.cwd()))


# --- what of torch belongs to the whole process ---------------------------------------------------


class Surroundings:
    """torch's default type and threads, and those of BLAS, as one calculator wants them.

    Both are the whole process's, and factories change them: a calculator may rely on the type that
    its factory chose, and nothing else may be touched by it.
    """

    def __init__(self, threads: int = 1) -> None:
        self._threads = threads
        self._dtype: Any = None  # what the calculator left as torch's default

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        """Within: the calculator's own. Afterwards: as it was before."""
        torch = sys.modules.get("torch")
        before = (torch.get_default_dtype(), torch.get_num_threads()) if torch else None
        if torch and self._dtype is not None:
            torch.set_default_dtype(self._dtype)
        with _blas_on(self._threads):
            if torch:
                torch.set_num_threads(self._threads)
            try:
                yield
            finally:
                if torch := sys.modules.get("torch"):
                    self._dtype = torch.get_default_dtype()
                    dtype, threads = before or (torch.float32, cores())  # torch's at its import
                    torch.set_default_dtype(dtype)
                    torch.set_num_threads(threads)


def _blas_on(threads: int) -> contextlib.AbstractContextManager[Any]:
    """As a program of its own the environment says so already, before anything is loaded."""
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        return contextlib.nullcontext()
    return threadpool_limits(threads)


# --- making one -----------------------------------------------------------------------------------


def make(request: Mapping[str, Any]) -> Held:
    """The calculator that a request to make names.

    Args:
        request: name (for messages), module, factory (dotted for a class method), arguments, device
            (auto, cpu or cuda, for a factory that has such a parameter), threads, reserved (keys
            of a name that are not the factory's).
    Raises:
        Refused: the module, the factory or an argument is wrong, a package is missing, or the
            calculator could not be made.
    """
    name, surroundings = request["name"], Surroundings(request["threads"])
    with others_warnings(), surroundings():
        factory = resolve(request)
        arguments = dict(request["arguments"])
        signature = _signature(factory)
        if signature is not None and "device" in signature.parameters:
            arguments.setdefault("device", _chosen(request["device"]))
        calculator = _made(request, factory, arguments)
        settings = {
            "factory": f"{request['module']}:{request['factory']}",
            "arguments": json.dumps(dict(sorted(arguments.items()))),
            "threads": str(request["threads"]),
            **_files(arguments),
        }
        try:
            facts = _facts(request["module"], factory, calculator, settings)
        except Exception as error:  # of others' containers, modules and metadata
            raise Refused(
                "failed", f"{name!r}: what it is known by cannot be told ({words(error)})"
            ) from error
    return Held(calculator, surroundings, facts)


def resolve(request: Mapping[str, Any]) -> Callable[..., Any]:
    """The factory itself, imported, and known to take these arguments.

    Raises:
        Refused: as `make`.
    """
    name, module, factory = request["name"], request["module"], request["factory"]
    for needed in ("numpy", "ase"):
        if importlib.util.find_spec(needed) is None:
            raise Refused(
                "absent", f"{name!r} needs {needed} there, which is not installed. Install it"
            )
    importable_folder()
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing, package = error.name or "", module.partition(".")[0]
        if missing != package and f"{module}.".startswith(f"{missing}."):
            raise Refused(
                "config",
                f"{name!r}: {package} is installed and has no module {missing}. Correct it",
            ) from error
        raise Refused(
            "absent",
            f"{name!r} needs the package {missing.partition('.')[0]}, which is not installed. "
            "Install it with pip, or start from the folder that holds it",
        ) from error
    except ImportError as error:
        raise Refused(
            "absent", f"{name!r} cannot be imported ({words(error)}). Install what it misses"
        ) from error
    for part in factory.split("."):
        if not hasattr(found, part):
            raise Refused("config", f"{name!r}: {module} has no {factory}. Correct it")
        found = getattr(found, part)
    if not callable(found):
        raise Refused("config", f"{name!r}: {factory} cannot be called. Name a class. {HOW}")
    signature = _signature(found)
    if signature is not None:
        if taken := [key for key in request["reserved"] if key in signature.parameters]:
            raise Refused(
                "config",
                f"{name!r}: {factory} has a parameter {taken[0]} of its own, and {taken[0]}= in a "
                "name says how the harness runs it. Name a function of yours that sets it",
            )
        try:
            signature.bind_partial(**request["arguments"])
        except TypeError as error:
            raise Refused(
                "config", f"{name!r}: {error}; {factory} takes {signature}. Correct the query"
            ) from None
    return found


def _signature(factory: Callable[..., Any]) -> inspect.Signature | None:
    try:
        return inspect.signature(factory)
    except (TypeError, ValueError):  # some compiled code has none
        return None


def _chosen(device: str) -> str:
    if device != "auto":
        return device
    try:
        import torch
    except ImportError:
        return "cpu"
    return "cuda" if torch.cuda.is_available() else "cpu"


def _made(
    request: Mapping[str, Any], factory: Callable[..., Any], arguments: Mapping[str, Any]
) -> Any:
    from ase.calculators.calculator import BadConfiguration, EnvironmentError, InputError

    called = f"{request['factory']}({', '.join(f'{k}={v!r}' for k, v in arguments.items())})"
    try:
        calculator = factory(**arguments)
    except (ImportError, BadConfiguration, EnvironmentError) as error:
        raise Refused(
            "absent", f"{called} lacks something ({words(error)}). Install or configure it"
        ) from error
    except (TypeError, ValueError, KeyError, InputError) as error:
        raise Refused(
            "config",
            f"{called} refuses its arguments ({words(error)}). Correct the query of "
            f"{request['name']!r}",
        ) from error
    except Exception as error:  # other people's constructors raise whatever they like
        raise Refused("failed", f"{called} could not be made: {words(error)}") from error
    if not callable(getattr(calculator, "get_property", None)):  # ase.Atoms has not, though it
        # has much else that a calculator has
        raise Refused(
            "config",
            f"{called} gives a {type(calculator).__name__}, which is no ASE calculator. {HOW}",
        )
    if ignored := _ignored(calculator, request["arguments"]):
        raise Refused(
            "config",
            f"{called} would ignore {', '.join(ignored)}: {type(calculator).__name__} knows "
            f"{', '.join(sorted(calculator.default_parameters))}. Correct the query",
        )
    return calculator


def _ignored(calculator: Any, arguments: Mapping[str, Any]) -> list[str]:
    """Arguments that ASE's base class stores and the calculator never reads.

    ASE calculators take any keyword. One that lists its parameters and starts no other program
    knows no more than those and what its constructors name.
    """
    from ase.calculators.calculator import Calculator, FileIOCalculator

    defaults = getattr(calculator, "default_parameters", None)
    if not defaults or not isinstance(calculator, Calculator):
        return []
    if isinstance(calculator, FileIOCalculator):
        return []
    signatures = [_signature(kind) for kind in type(calculator).__mro__]
    named = {p for signature in signatures if signature for p in signature.parameters}
    return [key for key in arguments if key not in named | set(defaults)]


# --- what it is known by --------------------------------------------------------------------------


def hold(calculator: Any) -> Held:
    """A calculator that is there already, known by its class and its parameters."""
    kind = type(calculator)
    settings = {"class": f"{kind.__module__}:{kind.__qualname__}"}
    return Held(calculator, facts=_facts(kind.__module__, kind, calculator, settings))


def _facts(
    module: str, factory: Callable[..., Any], calculator: Any, settings: Mapping[str, str]
) -> dict[str, Any]:
    parameters = Parameters.of(calculator)
    return {
        "class": type(calculator).__name__,
        "implemented": list(calculator.implemented_properties),
        "parameters_sha256": parameters.sha256,
        "many": parameters.sha256 != "" and not parameters.on_gpu,
        "settings": {
            **settings,
            "package": _version(module),
            "ase": importlib.metadata.version("ase"),
            "code": _code_sha256(module, factory),
            "parameters": str(parameters),
            **({"torch": importlib.metadata.version("torch")} if parameters.sha256 else {}),
        },
    }


class Parameters:
    """What torch holds of a calculator: the modules reachable from it, and tensors outside them."""

    def __init__(self, sha256: str, n_tensors: int, n_numbers: int, *, on_gpu: bool) -> None:
        self.sha256 = sha256  # of all of it; empty where there is none
        self.n_tensors, self.n_numbers, self.on_gpu = n_tensors, n_numbers, on_gpu

    def __str__(self) -> str:
        if not self.sha256:
            return NONE_FOUND
        return f"{self.n_numbers} numbers in {self.n_tensors} tensors, sha256 {self.sha256}"

    @classmethod
    def of(cls, calculator: Any) -> Parameters:
        """Hash and count of them, whatever order they are found in."""
        torch = sys.modules.get("torch")
        found = [] if torch is None else list(_tensors(calculator, torch))
        if not found:
            return cls("", 0, 0, on_gpu=False)
        digests = sorted(_digest(name, tensor, torch) for name, tensor in found)
        return cls(
            hashlib.sha256("".join(digests).encode()).hexdigest(),
            len(found),
            sum(tensor.numel() for _, tensor in found),
            on_gpu=any(tensor.device.type != "cpu" for _, tensor in found),
        )


def _tensors(root: Any, torch: Any) -> Iterator[tuple[str, Any]]:
    """Each tensor once, by its name in its module, or "" outside modules."""
    plain = (str, bytes, int, float, complex, type, types.ModuleType, type(None))
    seen: dict[int, Any] = {}  # holds what it has seen, so that no id comes again
    to_see: deque[Any] = deque([root])
    while to_see and len(seen) < _MOST_OBJECTS:
        thing = to_see.popleft()
        if isinstance(thing, plain) or id(thing) in seen:
            continue
        seen[id(thing)] = thing
        if isinstance(thing, torch.nn.Module):
            for name, tensor in thing.state_dict(keep_vars=True).items():
                if isinstance(tensor, torch.Tensor) and id(tensor) not in seen:
                    seen[id(tensor)] = tensor
                    yield name, tensor
            to_see.extend(thing.modules())
        elif isinstance(thing, torch.Tensor):
            yield "", thing
            continue
        to_see.extend(_held_by(thing))


def _held_by(thing: Any) -> Iterator[Any]:
    """What an object refers to, by Python's own ways: others' containers may refuse to be read."""
    kinds: tuple[Any, ...] = (list, tuple, set, frozenset, deque)
    for kind in kinds:
        if isinstance(thing, kind):
            yield from kind.__iter__(thing)
    if isinstance(thing, dict):
        yield from dict.values(thing)
    elif isinstance(thing, types.MethodType):
        yield thing.__self__
        yield thing.__func__
    elif isinstance(thing, types.FunctionType):  # what a function was made with, not its globals
        for cell in thing.__closure__ or ():
            with contextlib.suppress(ValueError):  # an empty cell
                yield cell.cell_contents
        yield from thing.__defaults__ or ()
    for name in ("__dict__", *_slots(type(thing))):
        with contextlib.suppress(AttributeError):
            yield object.__getattribute__(thing, name)


def _slots(kind: type) -> Iterator[str]:
    for base in kind.__mro__:
        slots = vars(base).get("__slots__", ())
        yield from (slots,) if isinstance(slots, str) else slots


def _digest(name: str, tensor: Any, torch: Any) -> str:
    """sha256 of name, type, shape and bytes."""
    values = tensor.detach()
    if values.is_sparse:
        values = values.to_dense()
    if values.is_quantized:
        values = values.dequantize()
    values = values.resolve_conj().resolve_neg().cpu().contiguous()
    digest = hashlib.sha256(f"{name}\0{values.dtype}\0{tuple(values.shape)}\0".encode())
    digest.update(values.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _files(arguments: Any, key: str = "") -> dict[str, str]:
    """Content of every argument that is a file, also within lists and tables."""
    if isinstance(arguments, Mapping):
        parts = {f"{key} {name}".strip(): value for name, value in arguments.items()}
    elif isinstance(arguments, (list, tuple)):
        parts = {f"{key} {i}": value for i, value in enumerate(arguments)}
    elif isinstance(arguments, str) and arguments and _is_file(arguments):
        return {f"file {key}": _sha256(Path(arguments))}
    else:
        return {}
    return {k: v for name, value in parts.items() for k, v in _files(value, name).items()}


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except (OSError, ValueError):  # too long for a name, or a null within
        return False


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


@functools.cache
def _distribution(package: str) -> importlib.metadata.Distribution | None:
    """What installed the package, and None for code that lies in a folder."""
    every = list(importlib.metadata.distributions())
    for found in every:
        if package in (found.read_text("top_level.txt") or "").split():
            return found
    for found in every:
        if any(file.parts[:1] in ((package,), (f"{package}.py",)) for file in found.files or ()):
            return found
    return None


def _version(module: str) -> str:
    found = _distribution(module.partition(".")[0])
    return f"{found.metadata['Name']} {found.version}" if found else "no installed package"


def _code_sha256(module: str, factory: Callable[..., Any]) -> str:
    """Of the files a version number does not pin down.

    For an installed package the version says the rest, and the file that defines the factory is
    enough; a package in a folder, or installed as editable, changes without its version.
    """
    package = module.partition(".")[0]
    found = _distribution(package)
    origin = json.loads((found.read_text("direct_url.json") if found else None) or "{}")
    editable = origin.get("dir_info", {}).get("editable", False)
    own = getattr(importlib.import_module(package), "__file__", None)
    try:
        paths = {Path(inspect.getfile(factory))}
    except TypeError:  # compiled
        paths = set()
    if (found is None or editable) and own is not None:
        folder = Path(own).parent
        paths |= {Path(own)} if Path(own).name != "__init__.py" else set(folder.rglob("*.py"))
    digest = hashlib.sha256()
    for content in sorted(_sha256(path) for path in paths if path.is_file()):
        digest.update(content.encode())
    return digest.hexdigest()


# --- asking it ------------------------------------------------------------------------------------


class Held:
    """A calculator and what it is known by; asked for one crystal after the other.

    facts: class, implemented (properties), parameters_sha256 (empty where torch holds none), many
    (whether several may compute side by side), settings (whatever moves a number).
    """

    def __init__(
        self,
        calculator: Any,
        surroundings: Surroundings | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        self.calculator = calculator
        self.surroundings = surroundings or Surroundings()
        self.facts = dict(facts or {})

    def ask(self, atoms: Any, wanted: Sequence[str]) -> dict[str, Any] | str:
        """What was asked for, float64 in ASE's units, or why not: `Raised`, or what is wrong.

        It is reset before, so what a crystal gives depends on nothing that was before it. Call it
        within `surroundings`.

        Raises:
            Refused: there is no such property, a package is missing, or memory, a disk, a device or
                time gave out, which says nothing about the crystal.
        """
        import numpy as np
        from ase.calculators.calculator import PropertyNotImplementedError

        found: dict[str, Any] = {}
        try:
            if hasattr(self.calculator, "reset"):
                self.calculator.reset()
            atoms.calc = self.calculator
            for name in wanted:
                found[name] = np.asarray(getattr(atoms, METHODS[name])(), dtype=np.float64)
                if not np.isfinite(found[name]).all():
                    return f"its {name} is not finite"
        except PropertyNotImplementedError as error:
            raise Refused(
                "absent",
                f"gives no {wanted[len(found)]} ({words(error)}). Use another --model for what "
                "needs it",
            ) from error
        except ImportError as error:
            raise Refused(
                "absent", f"cannot run ({words(error)}). Install what it misses"
            ) from error
        except (Exception, SystemExit) as error:  # a calculator may raise whatever it likes
            if _spent(error):
                raise Refused(
                    "failed",
                    f"ran out of something at {atoms.get_chemical_formula()}, {len(atoms)} atoms "
                    f"({words(error)}). Free it and run again; finished batches are kept",
                ) from error
            return Raised(words(error))
        return found


def _spent(error: BaseException) -> bool:
    """Whether memory, a disk, a device, time or a helper gave out, in it or in what it came of."""
    seen: list[BaseException] = []
    while error not in seen:
        names = {kind.__name__ for kind in type(error).__mro__}
        number = error.errno if isinstance(error, OSError) else None
        if names & _SPENT_TYPES or number in _SPENT_NUMBERS or _SPENT_WORDS.search(str(error)):
            return True
        seen.append(error)
        error = error.__cause__ or error.__context__ or error
    return False


# --- over a pipe ----------------------------------------------------------------------------------


def send(stream: BinaryIO, header: Mapping[str, Any], arrays: Mapping[str, Any]) -> None:
    """One message, whole; float64 arrays."""
    shapes = [[name, list(array.shape)] for name, array in arrays.items()]
    text = json.dumps({**header, "arrays": shapes}).encode()
    values = [array.astype("<f8").tobytes() for array in arrays.values()]
    stream.write(b"".join([struct.pack("<I", len(text)), text, *values]))
    stream.flush()


def receive(stream: BinaryIO) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and arrays of the next message.

    Raises:
        EOFError: the other side has ended.
        ValueError: what came is no message.
    """
    (length,) = struct.unpack("<I", _exactly(stream, 4))
    if length > _MOST_HEADER_BYTES:
        raise ValueError(f"a header of {length} bytes")
    header = json.loads(_exactly(stream, length))
    arrays = {}
    for name, shape in header["arrays"]:
        import numpy as np  # not before: where it is missing, that can be said

        values = np.frombuffer(_exactly(stream, 8 * math.prod(shape)), dtype="<f8")
        arrays[name] = values.reshape(shape).astype(np.float64)
    return header, arrays


def _exactly(stream: BinaryIO, count: int) -> bytes:
    found = stream.read(count)
    if len(found) != count:
        raise EOFError
    return found


def _serve(requests: BinaryIO, answers: BinaryIO) -> None:
    with contextlib.ExitStack() as surrounded:
        held: Held | None = None
        while True:
            try:
                request, arrays = receive(requests)
            except EOFError:
                return
            answer: dict[str, Any]
            found: Mapping[str, Any] = {}
            try:
                if request["ask"] == "make":
                    sys.path[:] = request["path"] or sys.path
                    held = make(request)
                    surrounded.enter_context(others_warnings())
                    surrounded.enter_context(held.surroundings())
                    answer = {"is": "made", "facts": held.facts}
                elif held is None:
                    raise Refused("failed", "was asked before it was made")
                elif isinstance(asked := held.ask(_atoms(arrays), request["wanted"]), str):
                    kind = "raised" if isinstance(asked, Raised) else "problem"
                    answer = {"is": kind, "words": asked}
                else:
                    answer, found = {"is": "found"}, asked
            except Refused as error:
                answer = {"is": "refused", "kind": error.kind, "words": str(error)}
            except Exception as error:
                answer = {"is": "refused", "kind": "failed", "words": f"failed: {words(error)}"}
            send(answers, answer, found)


def _atoms(arrays: Mapping[str, Any]) -> Any:
    from ase import Atoms

    return Atoms(
        numbers=arrays["numbers"].astype(int),
        positions=arrays["positions_ang"],
        cell=arrays["cell_ang"],
        pbc=True,
    )


def _main() -> None:
    """Keep both pipes for the messages alone: what is printed goes to the standard error."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    answers.write(GREETING)
    answers.flush()
    with contextlib.suppress(BrokenPipeError):  # nobody listens any more
        _serve(requests, answers)


if __name__ == "__main__":
    _main()
